#include "builtin/builtin_model.h"

// Defined in builtin_model.S.
extern "C" {
extern const std::byte linnet_builtin_model[], linnet_builtin_transformer[], linnet_builtin_text_encoder[],
    linnet_builtin_tokenizer[];
extern const uint64_t linnet_builtin_model_size, linnet_builtin_transformer_size,
    linnet_builtin_text_encoder_size, linnet_builtin_tokenizer_size;
}

namespace linnet {
namespace {

std::span<const std::byte> contents(const std::byte* begin, uint64_t size) {
  check(size > 0, "this program was built without this built-in model: name a file");
  return {begin, static_cast<size_t>(size)};
}

SafetensorsFile file_of(std::span<const std::byte> bytes, const char* name) {
  return SafetensorsFile::from_memory(bytes, nullptr, name);
}

}  // namespace

SafetensorsFile builtin_model() {
  return file_of(contents(linnet_builtin_model, linnet_builtin_model_size), "builtin");
}
SafetensorsFile builtin_transformer() {
  return file_of(contents(linnet_builtin_transformer, linnet_builtin_transformer_size), "builtin-text");
}
SafetensorsFile builtin_text_encoder() {
  return file_of(contents(linnet_builtin_text_encoder, linnet_builtin_text_encoder_size), "builtin-text");
}
std::string_view builtin_tokenizer() {
  const auto bytes = contents(linnet_builtin_tokenizer, linnet_builtin_tokenizer_size);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace linnet
