// linnet tokenize: a text as the text encoder sees it.
#include <fmt/format.h>

#include "io/text.h"
#include "model_argument.h"
#include "pipeline/text_encoding.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string model, text, cleaning = "lower";
};

void run(const Options& options) {
  const Tokenizer tokenizer = open_tokenizer(options.model == "builtin" ? builtin_text : options.model);
  const std::string text = clean(options.text, cleaning_from_name(options.cleaning));
  const auto show = [](int64_t id, std::string_view piece) { fmt::print("{:>7}  {}\n", id, piece); };
  for (const Tokenizer::Piece& piece : tokenizer.pieces(text)) show(piece.id, printable(piece.text));
  show(tokenizer.end_id(), "(end)");
}

}  // namespace

void add_tokenize(const Verb& app) {
  const Verb verb = app.add_subcommand("tokenize", "Show the pieces of a text and their numbers");
  auto options = std::make_shared<Options>();
  verb.add_option("model", options->model, "SentencePiece model, a folder that holds spiece.model, or builtin")
      .required()
      .type_name("PATH");
  verb.add_option("text", options->text, "The text").required();
  verb.add_option("--cleaning", options->cleaning,
                  "Of the text, before it is cut, as linnet generate's: lower or strip")
      .capture_default_str()
      .type_name("NAME");
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
