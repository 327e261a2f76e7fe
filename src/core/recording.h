// What a recording of GPU work (core/gpu.h) reads at every replay but did not make itself: whoever records
// keeps it alive.
#pragma once

#include <vector>

#include "core/tensor.h"

namespace linnet {

/// While it lives, a recording is being made; one at a time.
class RecordingOwner {
 public:
  /// Tensors that the recording reads are added to kept, which must live as long as the recording.
  explicit RecordingOwner(std::vector<Tensor>& kept);
  ~RecordingOwner();
  RecordingOwner(const RecordingOwner&) = delete;
  RecordingOwner& operator=(const RecordingOwner&) = delete;
};

bool is_recording();
/// For tensors that may be let go while a recording still reads them; nothing happens unless one is being made.
void keep_for_recording(const Tensor& read);

}  // namespace linnet
