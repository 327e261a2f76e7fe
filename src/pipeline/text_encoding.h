// The first stage of painting from texts: prompts become the states that the transformer looks at.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "io/tokenizer.h"
#include "models/pixart.h"
#include "models/t5.h"

namespace linnet {

/// How a prompt is changed before it is cut into pieces.
enum class Cleaning : uint8_t {
  lower,  ///< lower case, no blanks at the ends: diffusers
  strip,  ///< no blanks at the ends: PixArt's own code
};
/// "lower" or "strip"; throws UsageError on others.
Cleaning cleaning_from_name(std::string_view name);
/// Throws Error on a prompt that is not UTF-8.
std::string clean(const std::string& prompt, Cleaning cleaning);

/// The ids of each prompt, cleaned, with the end of text behind, at most `limit` of them.
struct TokenizedTexts {
  std::vector<std::vector<int64_t>> ids;
  std::vector<bool> cut;  ///< which were longer than the limit
};
/// Throws Error on a prompt that is not UTF-8.
TokenizedTexts tokenize(const Tokenizer& tokenizer, const std::vector<std::string>& prompts, int64_t limit,
                        Cleaning cleaning);

/// States of each text, in order; gradients flow to the encoder's weights. on_block is called after every
/// block.
TextStates encode_texts(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                        const std::function<void()>& on_block = {});

/// Keeps states on disk, so that a text that was encoded once costs nothing again. One file a text.
class TextCache {
 public:
  /// An empty folder keeps nothing. encoder is a fingerprint of the encoder and how it computes.
  TextCache(std::filesystem::path folder, std::string encoder);

  /// The states of a text; undefined if it is not there. A damaged file counts as not there.
  Tensor find(const std::vector<int64_t>& ids, int64_t width) const;
  /// Throws Error when it cannot be written.
  void keep(const std::vector<int64_t>& ids, const Tensor& states) const;

 private:
  std::filesystem::path path_of(const std::vector<int64_t>& ids) const;

  std::filesystem::path folder_;
  std::string encoder_;
};

}  // namespace linnet
