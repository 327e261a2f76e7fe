#include "io/tokenizer.h"

#include <sentencepiece_processor.h>

#include "core/error.h"
#include "io/file.h"
#include "io/other_kinds.h"
#include "io/sentencepiece_model.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_model_bytes = size_t{64} << 20;

fs::path model_in(const fs::path& path) {
  if (!is_folder(path)) return path;
  for (const char* place : {"", "tokenizer", "text_encoder"})
    if (const fs::path file = path / place / "spiece.model"; is_there(file)) return file;
  check_told(path / "spiece.model");
  fail("{}: there is no tokenizer here (spiece.model)", printable(path.string()));
}

}  // namespace

struct Tokenizer::State {
  sentencepiece::SentencePieceProcessor processor;
};

Tokenizer Tokenizer::open(const fs::path& given) {
  const fs::path path = model_in(given);
  return from_bytes(read_text_file(path, most_model_bytes), path.string());
}

Tokenizer Tokenizer::from_bytes(std::string_view model, const std::string& source) {
  check_no_other_kind(model, printable(source), "tokenizer");
  check_sentencepiece_model(model, source);
  const auto state = std::make_shared<State>();
  const auto status = state->processor.LoadFromSerializedProto({model.data(), model.size()});
  check(status.ok() && state->processor.GetPieceSize() > 0, "{}: this is no SentencePiece model",
        printable(source));
  Tokenizer result;
  result.end_id_ = state->processor.eos_id();
  result.padding_id_ = state->processor.pad_id();
  check(result.end_id_ >= 0 && result.padding_id_ >= 0,
        "{}: this tokenizer has no end-of-text or no padding, which T5's has", printable(source));
  result.state_ = state;
  return result;
}

std::string read_tokenizer_file(const fs::path& path) {
  (void)Tokenizer::open(path);
  return read_text_file(model_in(path), most_model_bytes);
}

std::vector<Tokenizer::Piece> Tokenizer::pieces(const std::string& text) const {
  const std::string fault = fault_of_text(text);
  check(fault.empty(), "the text \"{}\" {}", printable(text, 60), fault);
  std::vector<std::string> parts;
  const auto status = state_->processor.Encode(text, &parts);
  check(status.ok(), "the tokenizer cannot take \"{}\": {}", printable(text, 60), status.ToString());
  std::vector<Piece> result;
  for (std::string& part : parts) {
    const int id = state_->processor.PieceToId(part);
    result.push_back({id, std::move(part)});
  }
  return result;
}

Tokenizer::Ids Tokenizer::ids(const std::string& text, int64_t limit) const {
  check(limit >= 1, "a text has at least one token, its end");
  Ids result;
  for (const Piece& piece : pieces(text)) result.values.push_back(piece.id);
  result.cut = static_cast<int64_t>(result.values.size()) > limit - 1;
  if (result.cut) result.values.resize(static_cast<size_t>(limit - 1));
  result.values.push_back(end_id_);
  return result;
}

int64_t Tokenizer::size() const { return state_->processor.GetPieceSize(); }

}  // namespace linnet
