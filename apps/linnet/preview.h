// What is being painted, shown while it is: in a file beside the output, on the terminal, or both.
#pragma once

#include "diffusion/samplers.h"
#include "generate_output.h"
#include "pipeline/preview.h"
#include "terminal_picture.h"

namespace linnet::app {

/// Whether anything is shown, so that nothing is prepared in vain. The options are checked (prepare_outputs()).
bool wants_previews(const OutputOptions& options);

/// Whether the file is a preview, left by a run that was killed.
bool is_own_preview(const std::filesystem::path& file);

/// Called after every step. The file is gone when this is: then the pictures are there, or there will be none.
/// What the terminal shows stays.
class PreviewWatch {
 public:
  /// All must outlive this. preview: of what is painted; of no use unless wants_previews().
  PreviewWatch(const OutputOptions& options, Progress& progress, SamplePreview preview);
  ~PreviewWatch();
  PreviewWatch(const PreviewWatch&) = delete;
  PreviewWatch& operator=(const PreviewWatch&) = delete;

  /// Every so many steps and after the last, as decoding may take a while.
  void operator()(const SamplingStep& step);

 private:
  Image sheet_of(const Tensor& samples) const;
  void show(const Image& image);

  Progress& progress_;
  const SamplePreview preview_;
  const PictureProtocol protocol_;
  const std::filesystem::path file_;  // empty: none is written
  const int every_;
  const int64_t columns_;
  bool ended_ = false;  // one could not be made
};

}  // namespace linnet::app
