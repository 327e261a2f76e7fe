#include "builtin/builtin_model.h"

// Defined in builtin_model.S.
extern "C" const std::byte linnet_builtin_model[];
extern "C" const uint64_t linnet_builtin_model_size;

namespace linnet {
namespace {

std::span<const std::byte> contents() {
  return {linnet_builtin_model, static_cast<size_t>(linnet_builtin_model_size)};
}

}  // namespace

bool has_builtin_model() { return !contents().empty(); }

SafetensorsFile builtin_model() {
  check(has_builtin_model(), "this program was built without a built-in model; name a file with --model");
  return SafetensorsFile::from_memory(contents(), nullptr, "builtin");
}

}  // namespace linnet
