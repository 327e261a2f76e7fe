// linnet inherit: a linear model that starts from a softmax one's weights, or one of texts from one of classes.
#include "store/inherit.h"

#include <fmt/format.h>

#include <map>
#include <regex>

#include "io/file.h"
#include "io/text.h"
#include "model_argument.h"
#include "store/dit_file.h"
#include "store/pixart_file.h"
#include "store/texts_from_classes.h"
#include "store/transformer_file.h"
#include "verbs.h"

namespace linnet::app {
namespace {

struct Options {
  std::string from, output, mixer = "lit", also, weights = "ema", prediction;
  int64_t heads = 0, seed = 0;
  bool texts = false;
  TextsInPlaceOfClasses text;
};

// "blocks.3.mlp.fc1.weight" as "blocks.*.mlp.fc1.weight": what happened is the same in every block.
std::string without_number(const std::string& text) {
  static const std::regex block("blocks\\.[0-9]+\\.");
  return std::regex_replace(text, block, "blocks.*.");
}

std::string why(const Inherited& row) {
  if (!row.source.empty()) return row.source;
  if (row.tensor.find("cross_attn") != std::string::npos || row.tensor.starts_with("y_embedder"))
    return "fresh: the teacher knows no texts";
  return row.tensor.find(".dwc.") != std::string::npos ? "fresh: no convolution is taken over"
                                                       : "fresh: another attention learns its own";
}

void show(const std::vector<Inherited>& report) {
  struct Line {
    std::string tensor, what;
    int64_t count = 0;
  };
  std::vector<Line> lines;
  std::map<std::string, size_t> places;
  for (const Inherited& row : report) {
    const std::string tensor = without_number(row.tensor);
    const auto [place, added] = places.emplace(tensor, lines.size());
    if (added) lines.push_back({tensor, without_number(why(row))});
    ++lines[place->second].count;
  }
  size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.tensor.size());
  for (const Line& line : lines)
    fmt::print("  {:<{}}  {:>3}x  {}\n", printable(line.tensor), width, line.count,
               line.what == line.tensor ? "copied" : printable(line.what));
}

template <class From, class To>
void tell(const From& from, const To& to, const std::vector<Inherited>& report, const std::string& output) {
  fmt::print("from {}\nto   {}\n", describe_model(from), describe_model(to));
  show(report);
  int64_t copied = 0;
  for (const Inherited& row : report) copied += !row.source.empty();
  fmt::print("{} of {} tensors inherited: {}\n", copied, report.size(), output);
}

// The teacher's file with another attention, written to the output.
template <class Model, class Config, class Save>
void inherit_from(const Options& options, const Weights& teacher, const Config& config, int64_t usual,
                  Save save) {
  Model student(
      student_of(config, nn::mixer_from_name(options.mixer), options.heads > 0 ? options.heads : usual));
  const auto report =
      inherit(student, teacher, also_inherit_from_name(options.also), static_cast<uint64_t>(options.seed));
  save(student);
  tell(config, student.config(), report, options.output);
}

// A model of texts that starts from one of classes, with its attention.
void inherit_texts(const Options& options, const Weights& teacher) {
  const DiTConfig config = read_dit_config(teacher);
  TextsInPlaceOfClasses texts = options.text;
  if (!options.prediction.empty()) texts.prediction = prediction_from_name(options.prediction);
  PixArt student(with_texts(config, texts));
  const auto report = inherit_with_texts(student, teacher, static_cast<uint64_t>(options.seed));
  save_pixart(options.output, student, DType::f32);
  tell(config, student.config(), report, options.output);
}

void run(const Options& options) {
  for (const auto& [name, heads] :
       {std::pair{"--heads", options.heads}, std::pair{"--cross-heads", options.text.cross_heads}})
    if (heads < 0) throw UsageError(fmt::format("{} is at least 0, not {}", name, heads));
  check_writable(options.output);
  check_keeps_model(options.output, options.from);
  const nn::Mixer mixer = nn::mixer_from_name(options.mixer);
  const Choice choice = choice_from_name(options.weights);
  const Weights file = open_file(options.from);
  const bool of_texts = holds_pixart(file, choice);
  if (options.texts && of_texts)
    throw UsageError(fmt::format("{}: this is a model of texts already", printable(options.from)));
  if (options.texts) return inherit_texts(options, find_dit_weights(file, choice));
  if (of_texts) {
    const Weights teacher = find_pixart_weights(file, choice);
    const PixArtConfig config = read_pixart_config(teacher);
    const int64_t usual = mixer == nn::Mixer::softmax ? config.num_cross_heads : 2;
    return inherit_from<PixArt>(options, teacher, config, usual,
                                [&](PixArt& student) { save_pixart(options.output, student, DType::f32); });
  }
  const Weights teacher = find_dit_weights(file, choice);
  const DiTConfig config = read_dit_config(teacher);
  std::map<std::string, std::string> metadata;
  if (const auto classes = teacher.metadata().find(classes_key); classes != teacher.metadata().end())
    metadata.insert(*classes);
  inherit_from<DiT>(options, teacher, config, usual_heads(mixer, config.hidden_size),
                    [&](DiT& student) { save_dit(options.output, student, DType::f32, metadata); });
}

// Texts in place of classes. What is said of the attention goes with the other kind of inheritance alone.
void add_text_options(const Verb& verb, Options& options, const std::vector<Argument>& of_attention) {
  TextsInPlaceOfClasses& text = options.text;
  const Argument texts = verb.add_flag(
      "--texts", options.texts,
      "Of a model of classes make one of texts, with the same attention, that is to be trained further");
  for (const Argument& other : of_attention) texts.excludes(other);
  verb.add_option("--text-width", text.caption_channels, "Width of the text encoder's states")
      .capture_default_str()
      .needs(texts);
  verb.add_option("--text-tokens", text.caption_tokens, "Most tokens of a text")
      .capture_default_str()
      .needs(texts);
  verb.add_option("--cross-heads", text.cross_heads,
                  "Heads of the attention over texts; 0: as published for the width")
      .capture_default_str()
      .needs(texts);
  verb.add_option("--enlarge", text.enlarge, "Pictures and patches so many times as large")
      .capture_default_str()
      .needs(texts);
  verb.add_option("--prediction", options.prediction, "x0, of a model that predicts v")
      .type_name("NAME")
      .needs(texts);
  verb.add_flag("--fixed-variance", text.fixed_variance, "Leave out the predicted variance").needs(texts);
}

}  // namespace

void add_inherit(const Verb& app) {
  const Verb verb = app.add_subcommand("inherit",
                                       "Make a linear model that starts from a softmax DiT's or PixArt's "
                                       "weights, or a model of texts that starts from one of classes");
  auto options = std::make_shared<Options>();
  verb.add_option("--from", options->from, "Teacher: a DiT or PixArt, weights of any kind that Linnet reads")
      .required()
      .type_name("FILE");
  verb.add_option("-o,--output", options->output, "Safetensors file to write").required().type_name("FILE");
  const Argument mixer =
      verb.add_option("--mixer", options->mixer, "Attention of the student: " + nn::known_mixers())
          .capture_default_str()
          .type_name("NAME");
  const Argument heads =
      verb.add_option(
              "--heads", options->heads,
              "Heads of the student; 0: as published for the width, of others 2, or of softmax one for 64 "
              "channels")
          .capture_default_str();
  const Argument also =
      verb.add_option("--also", options->also, "Projections of the attention to inherit too: qkv, kv, v, q, o")
          .type_name("LETTERS");
  verb.add_option("--seed", options->seed, "Of what starts afresh").capture_default_str();
  add_text_options(verb, *options, {mixer, heads, also});
  add_weights_option(verb, options->weights);
  verb.callback([options] { run(*options); });
}

}  // namespace linnet::app
