// What a model's settings mean, and all settings as a list.
#include "train/settings.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/open_model.h"

namespace linnet {
namespace {

using Json = nlohmann::ordered_json;

struct Meaning {
  const char *key, *text;
};

constexpr Meaning of_both[] = {
    {"patch_size", "side of what becomes a token; it divides the picture's"},
    {"in_channels", "channels of the picture (3) or of its latents (4)"},
    {"hidden_size", "width; a multiple of 4"},
    {"depth", "blocks"},
    {"num_heads", "heads of the token mixer; they divide hidden_size"},
    {"mlp_ratio", "how many times wider the MLPs are inside, up to 64"},
    {"learn_sigma", "predict the variance, too"},
    {"mixer", "softmax (DiT), lit, linear, focused, focused_gelu"},
    {"prediction", "epsilon (the noise), v, or x0 (the picture)"},
};

constexpr Meaning of_classes[] = {
    {"input_size", "side of the picture or its latents"},
    {"num_classes", "how many classes there are"},
    {"class_dropout", "how often a class is dropped; 0: guidance will not be possible"},
};

constexpr Meaning of_texts[] = {
    {"sample_size", "side of the picture or its latents"},
    {"num_cross_heads", "heads of the attention over the text; they divide hidden_size"},
    {"caption_channels", "width of the text encoder's states"},
    {"caption_tokens", "tokens of a text at most"},
    {"interpolation", "what positions are divided by; unless said, by sample_size"},
    {"null_caption", "an embedding of no text, which training does not teach"},
    {"micro_conditions", "is told the size and ratio, as PixArt-α at 1024 pixels"},
    {"qk_norm", "layer norms of q and k, of softmax attention"},
};

// Collects what a walk over settings comes by.
class Listing {
 public:
  void begin(std::string table, std::string note = "") {
    table_ = std::move(table);
    group_ = fmt::format("[{}]{}", table_, note);
  }
  template <class T>
  void setting(const char* key, const T& usual, const char* meaning) {
    all_.push_back({table_, key, Json(usual).dump(), meaning, group_});
  }
  // A model's: what is usual stands in its JSON, which must know the key.
  void model(std::span<const Meaning> meanings, const Json& usual) {
    for (const auto& [key, text] : meanings) setting(key, usual.at(key), text);
  }
  template <class Config>
  void table(Config config, std::string name, std::string note = "") {
    begin(std::move(name), std::move(note));
    settings(config, *this);
  }
  std::vector<Setting> take() { return std::move(all_); }

 private:
  std::string table_, group_;
  std::vector<Setting> all_;
};

}  // namespace

std::vector<Setting> list_settings() {
  const Json classes = Json::parse(to_full_json(new_model(false)));
  const Json texts = Json::parse(to_full_json(new_model(true)));
  Listing list;
  list.begin("model", ": what is not said is as in train.init's weights or in the preset");
  list.setting("kind", "", "dit (of classes), pixart (of texts); \"\": as preset, else dit");
  list.setting("preset", "", "sizes of a published model: LiT-XL/2, DiT-B/4, LiT-T2I-XL/2");
  list.model(of_both, classes);
  list.begin("model", " of classes");
  list.model(of_classes, classes);
  list.begin("model", " of texts");
  list.model(of_texts, texts);
  list.table(DataConfig(), "data", ": either path or replay");
  list.table(TextConfig(), "text", " for a model of texts");
  list.table(OptimizerConfig(), "train");
  list.table(DistilConfig(), "distil", " with a teacher");
  list.table(OutputConfig(), "output");
  return list.take();
}

std::string describe_settings() {
  const std::vector<Setting> all = list_settings();
  size_t key_width = 0, usual_width = 0;
  for (const Setting& s : all) {
    key_width = std::max(key_width, s.key.size());
    usual_width = std::max(usual_width, s.usual.size());
  }
  std::string text =
      "Settings of a run, what they are unless said, and what they mean: key = value under [table] in a\n"
      "file, table.key=value on the command line.\n";
  std::string group;
  for (const Setting& s : all) {
    if (s.group != group) text += fmt::format("\n{}\n", s.group);
    group = s.group;
    text += fmt::format("  {:<{}}  {:<{}}  {}\n", s.key, key_width, s.usual, usual_width, s.meaning);
  }
  return text;
}

}  // namespace linnet
