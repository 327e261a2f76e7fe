#include "core/recording.h"

namespace linnet {
namespace {

// Of the thread that records, on which all that is recorded is computed.
thread_local std::vector<Tensor>* owner = nullptr;

}  // namespace

RecordingOwner::RecordingOwner(std::vector<Tensor>& kept) { owner = &kept; }
RecordingOwner::~RecordingOwner() { owner = nullptr; }

bool is_recording() { return owner != nullptr; }

void keep_for_recording(const Tensor& read) {
  if (owner) owner->push_back(read);
}

}  // namespace linnet
