#include "store/bundle.h"

#include <nlohmann/json.hpp>

#include "io/text.h"
#include "io/tokenizer.h"
#include "store/model_file.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/vae_file.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// Becomes the wanted folder when all is written; gone if it is not.
class NewBundle {
 public:
  explicit NewBundle(const fs::path& path) : path_(path), partial_(path.string() + ".partial") {
    std::error_code problem;
    check(!fs::exists(path_), "{}: it is there already", printable(path_.string()));
    fs::remove_all(partial_, problem);
    for (const char* part : {"transformer", "text_encoder", "tokenizer", "vae"}) {
      fs::create_directories(partial_ / part, problem);
      check(!problem, "cannot make the folder {}: {}", printable(partial_.string()), problem.message());
    }
  }
  ~NewBundle() {
    std::error_code ignored;
    fs::remove_all(partial_, ignored);
  }
  NewBundle(const NewBundle&) = delete;
  NewBundle& operator=(const NewBundle&) = delete;

  fs::path operator/(const char* name) const { return partial_ / name; }
  void finish() const {
    std::error_code problem;
    fs::rename(partial_, path_, problem);
    check(!problem, "cannot write {}: {}", printable(path_.string()), problem.message());
  }

 private:
  fs::path path_, partial_;
};

Weights in_type(const Weights& weights, DType dtype, MayBeIn8Bits may_be) {
  // What stays of matrices beside those in 8 bits, such as the table of tokens, is in bf16.
  if (dtype == DType::i8) return with_matrices_in(in_8_bits(weights, may_be), DType::bf16);
  return with_matrices_in(weights, dtype);
}

template <class Model, class Config>
void check_fits(const Config& config, const Weights& weights) {
  Model model(config);
  check_parameters(nn::all_parameters(model), weights);
}

std::string config_of(const T5Config& config) {
  nlohmann::ordered_json json;
  json["architectures"] = {"T5EncoderModel"};
  json["model_type"] = "t5";
  json["d_model"] = config.width;
  json["d_ff"] = config.hidden;
  json["d_kv"] = config.head_size;
  json["num_heads"] = config.heads;
  json["num_layers"] = config.depth;
  json["vocab_size"] = config.vocabulary;
  json["relative_attention_num_buckets"] = config.distance_buckets;
  json["relative_attention_max_distance"] = config.max_distance;
  json["layer_norm_epsilon"] = config.norm_epsilon;
  json["feed_forward_proj"] = "gated-gelu";
  return json.dump(2) + "\n";
}

constexpr const char* index_text = R"({
  "_class_name": "PixArtSigmaPipeline",
  "text_encoder": ["transformers", "T5EncoderModel"],
  "tokenizer": ["transformers", "T5Tokenizer"],
  "transformer": ["linnet", "PixArt"],
  "vae": ["diffusers", "AutoencoderKL"]
}
)";

}  // namespace

void save_bundle(const fs::path& folder, const TextToImageParts& parts, const BundleTypes& types, Choice choice,
                 const OnBytes& on_bytes) {
  const Weights transformer = find_pixart_weights(Weights::open(parts.transformer), choice);
  const Weights text_encoder = find_t5_weights(Weights::open(parts.text_encoder));
  const Weights vae = find_vae_weights(Weights::open(parts.vae));
  const PixArtConfig config = read_pixart_config(transformer);
  const T5Config text_config = read_t5_config(text_encoder);
  check(text_config.width == config.caption_channels,
        "{}: its states are {} wide, and the transformer takes {}: they do not belong together",
        text_encoder.source(), text_config.width, config.caption_channels);
  const VaeConfig vae_config = read_vae_config(vae);
  check_fits<PixArt>(config, without_positions(transformer));
  check_fits<T5Encoder>(text_config, text_encoder);
  check_fits<Vae>(vae_config, vae);
  const std::string tokenizer = read_tokenizer_file(parts.tokenizer);

  const Weights small_transformer =
      in_type(without_positions(transformer), types.transformer, &nn::is_block_matrix);
  const Weights small_encoder = in_type(text_encoder, types.text_encoder, &T5Encoder::may_be_in_8_bits);
  const size_t all = small_transformer.bytes() + small_encoder.bytes() + vae.bytes();
  size_t done = 0;
  const OnTensor count = [&](const Weights::Item& item) {
    if (on_bytes) on_bytes(item.name, done, all);
    done += item.bytes();
  };
  const NewBundle bundle(folder);
  save_weights(bundle / "transformer/diffusion_pytorch_model.safetensors", small_transformer,
               {{config_key, to_json(config)}}, count);
  save_weights(bundle / "text_encoder/model.safetensors", small_encoder, {}, count);
  write_text_file(bundle / "text_encoder/config.json", config_of(text_config));
  save_weights(bundle / "vae/diffusion_pytorch_model.safetensors", vae, {{"format", "pt"}}, count);
  write_text_file(bundle / "vae/config.json", to_json(vae_config) + "\n");
  write_text_file(bundle / "tokenizer/spiece.model", tokenizer);
  write_text_file(bundle / "model_index.json", index_text);
  bundle.finish();
}

}  // namespace linnet
