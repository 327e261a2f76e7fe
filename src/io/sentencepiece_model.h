// What a SentencePiece model must hold to before libsentencepiece may read it: that trusts every length in one.
#pragma once

#include <string>
#include <string_view>

namespace linnet {

/// Walks a model's bytes without keeping any. Throws Error, one sentence beginning with source, when they are
/// no protocol buffer, when a piece is longer than 1,024 bytes or has a zero byte, when there are more than a
/// million, when a normalizer's table leads out of itself or makes one character more than 256 bytes, or when
/// the model's own tests are longer than a megabyte. What else a model needs, libsentencepiece says.
void check_sentencepiece_model(std::string_view model, const std::string& source);

}  // namespace linnet
