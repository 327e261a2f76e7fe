// Texts as the numbers of their pieces, by a SentencePiece model, as T5 ships one ("spiece.model").
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace linnet {

class Tokenizer {
 public:
  /// A model file, or a folder with "spiece.model" in it, in "tokenizer" or in "text_encoder". Throws Error
  /// when there is none, or it is no SentencePiece model, or one that must not be read (sentencepiece_model.h).
  static Tokenizer open(const std::filesystem::path& path);
  /// Of a model's bytes; source names them in messages.
  static Tokenizer from_bytes(std::string_view model, const std::string& source);

  struct Piece {
    int64_t id;
    std::string text;  ///< as SentencePiece writes it: "▁" is a blank
  };
  /// Of a UTF-8 text, without an end. Names of special pieces, such as "</s>", are text like any other
  /// (Python's tokenizer takes them for the pieces). Throws Error on bytes that are not UTF-8, and on more than
  /// a text has (fault_of_text()).
  std::vector<Piece> pieces(const std::string& text) const;

  /// The ids of a text and the end-of-text behind them, at most `limit` in all; cut says whether some were left
  /// out for that.
  struct Ids {
    std::vector<int64_t> values;
    bool cut = false;
  };
  Ids ids(const std::string& text, int64_t limit) const;

  int64_t size() const;
  int64_t end_id() const { return end_id_; }
  int64_t padding_id() const { return padding_id_; }

 private:
  struct State;
  std::shared_ptr<const State> state_;
  int64_t end_id_ = 1, padding_id_ = 0;
};

/// The bytes of the model that Tokenizer::open() would open; throws as that does.
std::string read_tokenizer_file(const std::filesystem::path& path);

}  // namespace linnet
