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
/// Throws Error on a prompt that is not UTF-8, too long or with a zero byte (fault_of_text()).
std::string clean(const std::string& prompt, Cleaning cleaning);

/// The ids of each prompt, cleaned, with the end of text behind, at most `limit` of them.
struct TokenizedTexts {
  std::vector<std::vector<int64_t>> ids;
  std::vector<bool> cut;  ///< which were longer than the limit
};
/// Throws Error, with its number, on a prompt that is not UTF-8 or too long.
TokenizedTexts tokenize(const Tokenizer& tokenizer, const std::vector<std::string>& prompts, int64_t limit,
                        Cleaning cleaning);

/// States of each text, in order; gradients flow to the encoder's weights. on_block is called after every
/// block.
TextStates encode_texts(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                        const std::function<void()>& on_block = {});

/// How many tokens are encoded together at most, unless a single text has more: so many that reading the
/// encoder's weights costs little, so few that what lies between its layers does (T5-XXL: 0.5 GB).
constexpr int64_t tokens_at_once = 2048;
/// How many of the texts ids[first], ids[first + 1], … that is: one at least.
size_t texts_at_once(const std::vector<std::vector<int64_t>>& ids, size_t first);
/// The same as encode_texts(), encoded some at once: for when there are no gradients to flow.
TextStates encode_in_parts(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids);
/// States (tokens, width) of each text on the CPU, encoded some at once. on_block as above. Throws Error when
/// one is not finite.
std::vector<Tensor> encode_each(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                                const std::function<void()>& on_block = {});

/// Keeps states on disk, so that a text that was encoded once costs nothing again. One file a text.
class TextCache {
 public:
  /// An empty folder keeps nothing. encoder is a fingerprint of the encoder and how it computes.
  TextCache(std::filesystem::path folder, std::string encoder);

  /// The states of a text, mapped from its file; undefined if it is not there. A damaged file, or one with
  /// states that are not finite, counts as not there.
  Tensor find(const std::vector<int64_t>& ids, int64_t width) const;
  /// Throws Error when it cannot be written.
  void keep(const std::vector<int64_t>& ids, const Tensor& states) const;

 private:
  std::filesystem::path path_of(const std::vector<int64_t>& ids) const;

  std::filesystem::path folder_;
  std::string encoder_;
};

}  // namespace linnet
