#include "train/trainee.h"

#include "io/file.h"
#include "nn/product_type.h"
#include "pipeline/text_encoding.h"
#include "store/bundle.h"
#include "store/dit_file.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "store/transformer_file.h"
#include "train/open_model.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// Alike the one that it begins as, or as configured.
T5Config encoder_config(const TrainConfig& config) {
  if (config.text.tune) return load_text_encoder(config)->config();
  T5Config t5;
  t5.vocabulary = Tokenizer::open(config.text.tokenizer).size();
  t5.width = config.of_texts().caption_channels;
  t5.hidden = config.text.hidden;
  t5.depth = config.text.depth;
  t5.heads = config.text.heads;
  if (t5.heads < 1 || t5.width % t5.heads != 0)
    throw UsageError(fmt::format("configuration: text.heads must divide model.caption_channels, {}", t5.width));
  t5.head_size = t5.width / t5.heads;
  return t5;
}

std::shared_ptr<T5Encoder> make_encoder(const TrainConfig& config) {
  return config.trains_text_encoder() ? std::make_shared<T5Encoder>(encoder_config(config)) : nullptr;
}

}  // namespace

Tensor ClassTrainee::predict(const Tensor& xt, const Tensor& times, const Batch& batch) const {
  return model_->forward(xt, times, batch.y);
}

void ClassTrainee::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  model_->visit(prefix, visitor);
}

DType ClassTrainee::product_dtype_from_name(std::string_view name, const Device& device) const {
  return model_->product_dtype_from_name(name, device);
}

void ClassTrainee::save(const fs::path& folder, const std::map<std::string, std::string>& metadata) {
  save_dit(folder / "model.safetensors", *model_, DType::f32, metadata);
}

Tensor TextTrainee::predict(const Tensor& xt, const Tensor& times, const Batch& batch) const {
  return model_->forward(xt, times, encoder_ ? encode_texts(*encoder_, batch.ids) : batch.texts);
}

void TextTrainee::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  model_->visit(prefix, visitor);
  if (encoder_) encoder_->visit(prefix + text_encoder_prefix, visitor);
}

void TextTrainee::set_product_dtype(DType dtype) {
  model_->set_product_dtype(dtype);
  if (encoder_) encoder_->set_product_dtype(nn::hidden_type(dtype));
}

DType TextTrainee::product_dtype_from_name(std::string_view name, const Device& device) const {
  return model_->product_dtype_from_name(name, device);
}

void TextTrainee::save(const fs::path& folder, const std::map<std::string, std::string>& metadata) {
  if (encoder_) {
    make_folder(folder / "text_encoder");
    save_t5(folder / "text_encoder", *encoder_, DType::f32);
  }
  save_pixart(folder / "model.safetensors", *model_, DType::f32, metadata);
}

std::unique_ptr<T5Encoder> load_text_encoder(const TrainConfig& config) {
  const TextConfig& text = config.text;
  auto encoder = load_t5(text.encoder);
  check_belongs(encoder->config(), text.encoder, config.of_texts());
  check_belongs(Tokenizer::open(text.tokenizer), text.tokenizer, encoder->config());
  return encoder;
}

std::unique_ptr<Trainee> make_trainee(const TrainConfig& config) {
  if (!is_of_texts(config.model))
    return std::make_unique<ClassTrainee>(std::make_shared<DiT>(config.of_classes()));
  auto encoder = make_encoder(config);
  return std::make_unique<TextTrainee>(std::make_shared<PixArt>(config.of_texts()), std::move(encoder));
}

std::unique_ptr<Trainee> load_trainee(const std::string& model, const ModelConfig& alike) {
  const Weights file = open_file_or_builtin(model);
  const bool of_texts = holds_pixart(file);
  check(of_texts == is_of_texts(alike), "{}: this is a model of {}, the run's one of {}", file.source(),
        of_texts ? "texts" : "classes", of_texts ? "classes" : "texts");
  if (of_texts) return std::make_unique<TextTrainee>(load_pixart(find_pixart_weights(file)).model, nullptr);
  return std::make_unique<ClassTrainee>(load_dit(find_dit_weights(file)).model);
}

}  // namespace linnet
