#include "store/bundle.h"

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/file_lock.h"
#include "io/text.h"
#include "store/metadata.h"
#include "store/parameters.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/vae_file.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* diffusers_file = "diffusion_pytorch_model.safetensors";

// Becomes the wanted folder when all is written; gone if it is not. A file that is locked tells it from a
// folder of somebody's: what one that was killed has left is taken over, as is a folder without anything.
class NewBundle {
 public:
  explicit NewBundle(const fs::path& path)
      : path_(path_of_folder(path)), partial_(path_.string() + ".partial") {
    check_absent(path_);
    const fs::path lock = partial_ / "quantize.lock";
    const bool there = is_there(partial_);
    if (there && !is_there(lock) && !(is_folder(partial_) && entries_of(partial_).empty()))
      throw UsageError(
          fmt::format("cannot write {0}: it is made as {1} first, which is there already; move {1}, or "
                      "choose another name",
                      printable(path_.string()), printable(partial_.string())));
    make_folder(partial_);
    try {
      lock_ = FileLock::take(lock);
    } catch (const Error&) {
      std::error_code ignored;
      if (!there) fs::remove(partial_, ignored);
      throw;
    }
    if (!lock_) throw UsageError(fmt::format("another process is writing {}", printable(path_.string())));
    for (const fs::path& left : entries_of(partial_))
      if (left != lock) remove(left);
  }
  ~NewBundle() {
    if (!finished_) remove(partial_);
  }
  NewBundle(const NewBundle&) = delete;
  NewBundle& operator=(const NewBundle&) = delete;

  /// Where a file of a part is written.
  fs::path file(const char* part, const char* name) const {
    make_folder(partial_ / part);
    return partial_ / part / name;
  }
  fs::path index() const { return partial_ / "model_index.json"; }
  void finish() {
    lock_.reset();
    std::error_code problem;
    fs::rename(partial_, path_, problem);
    check(!problem, "cannot write {}: {}", printable(path_.string()), problem.message());
    finished_ = true;
  }

 private:
  static void remove(const fs::path& path) {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }

  fs::path path_, partial_;
  std::unique_ptr<FileLock> lock_;
  bool finished_ = false;
};

Weights in_type(const Weights& weights, DType dtype, const nn::ParameterList& model) {
  // What stays of matrices beside those in 8 bits, such as the table of tokens, is in bf16.
  if (dtype == DType::i8) return with_matrices_in(in_8_bits(weights, model), DType::bf16);
  return with_matrices_in(with_float_matrices(weights), dtype);
}

std::string index_of(bool with_vae) {
  nlohmann::ordered_json json;
  json["_class_name"] = "PixArtSigmaPipeline";
  json["text_encoder"] = {"transformers", "T5EncoderModel"};
  json["tokenizer"] = {"transformers", "T5Tokenizer"};
  json["transformer"] = {"linnet", "PixArt"};
  if (with_vae) json["vae"] = {"diffusers", "AutoencoderKL"};
  return json.dump(2) + "\n";
}

Weights vae_weights(const fs::path& path) {
  Weights weights = find_vae_weights(Weights::open(path));
  Vae vae(read_vae_config(weights));
  check_parameters(nn::all_parameters(vae), weights);
  return weights;
}

}  // namespace

fs::path part_in(const fs::path& folder, const char* name, std::string_view advice) {
  fs::path part = folder / name;
  if (is_folder(part)) return part;
  check_told(part);
  throw UsageError(fmt::format("{} holds no folder \"{}\": {}", printable(folder.string()), name, advice));
}

void check_belongs(const T5Config& text_encoder, const std::string& name, const PixArtConfig& transformer) {
  check(text_encoder.width == transformer.caption_channels,
        "{}: its states are {} wide, and the transformer takes {}: they do not belong together", name,
        text_encoder.width, transformer.caption_channels);
}

void check_belongs(const Tokenizer& tokenizer, const std::string& name, const T5Config& text_encoder) {
  check(tokenizer.size() <= text_encoder.vocabulary,
        "{}: it has {} pieces, and the text encoder knows {}: they do not belong together", name,
        tokenizer.size(), text_encoder.vocabulary);
}

void save_bundle(const fs::path& folder, const TextToImageParts& parts, const BundleTypes& types, Choice choice,
                 const OnBytes& on_bytes) {
  const Weights transformer = find_pixart_weights(Weights::open(parts.transformer), choice);
  const Weights text_encoder = find_t5_weights(Weights::open(parts.text_encoder), choice);
  const std::optional<Weights> vae = parts.vae.empty() ? std::nullopt : std::optional(vae_weights(parts.vae));
  const PixArtConfig config = read_pixart_config(transformer);
  const T5Config text_config = read_t5_config(text_encoder);
  check_belongs(text_config, text_encoder.source(), config);
  check_belongs(Tokenizer::open(parts.tokenizer), printable(parts.tokenizer.string()), text_config);
  PixArt pixart(config);
  T5Encoder t5(text_config);
  const nn::ParameterList of_pixart = nn::all_parameters(pixart), of_t5 = nn::all_parameters(t5);
  check_parameters(of_pixart, without_positions(transformer));
  check_parameters(of_t5, text_encoder);
  const std::string tokenizer = read_tokenizer_file(parts.tokenizer);

  const Weights small_transformer = in_type(without_positions(transformer), types.transformer, of_pixart);
  const Weights small_encoder = in_type(text_encoder, types.text_encoder, of_t5);
  const size_t all = small_transformer.bytes() + small_encoder.bytes() + (vae ? vae->bytes() : 0);
  size_t done = 0;
  const OnTensor count = [&](const Weights::Item& item) {
    if (on_bytes) on_bytes(item.name, done, all);
    done += item.bytes();
  };
  NewBundle bundle(folder);
  save_weights(bundle.file("transformer", diffusers_file), small_transformer, {{config_key, to_json(config)}},
               count);
  save_weights(bundle.file("text_encoder", "model.safetensors"), small_encoder, {}, count);
  write_text_file(bundle.file("text_encoder", "config.json"), to_json(text_config));
  if (vae) {
    save_weights(bundle.file("vae", diffusers_file), *vae, {{"format", "pt"}}, count);
    write_text_file(bundle.file("vae", "config.json"), to_json(read_vae_config(*vae)) + "\n");
  }
  write_text_file(bundle.file("tokenizer", "spiece.model"), tokenizer);
  write_text_file(bundle.index(), index_of(vae.has_value()));
  bundle.finish();
}

}  // namespace linnet
