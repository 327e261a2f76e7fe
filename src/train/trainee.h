// What a run trains, whichever model it is: the trainer sees parameters, and a prediction for a batch. A model
// of texts may have its text encoder trained along.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "models/t5.h"
#include "train/config.h"
#include "train/data.h"

namespace linnet {

class Trainee {
 public:
  virtual ~Trainee() = default;

  /// What it predicts of xt (n, c, h, w) at times (n) f32 for the batch's classes or texts.
  virtual Tensor predict(const Tensor& xt, const Tensor& times, const Batch& batch) const = 0;
  virtual void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) = 0;
  virtual ModelConfig config() const = 0;

  /// As DiT's.
  virtual void set_product_dtype(DType dtype) = 0;
  virtual DType product_dtype() const = 0;
  virtual DType product_dtype_from_name(std::string_view name, const Device& device) const = 0;
  virtual void set_checkpointing(bool on) = 0;

  /// Writes folder/model.safetensors, and folder/text_encoder/ of an encoder that was trained along; each file
  /// atomically.
  virtual void save(const std::filesystem::path& folder,
                    const std::map<std::string, std::string>& metadata) = 0;
};

/// A DiT.
class ClassTrainee : public Trainee {
 public:
  explicit ClassTrainee(std::shared_ptr<DiT> model) : model_(std::move(model)) {}

  Tensor predict(const Tensor& xt, const Tensor& times, const Batch& batch) const override;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) override;
  ModelConfig config() const override { return model_->config(); }
  void set_product_dtype(DType dtype) override { model_->set_product_dtype(dtype); }
  DType product_dtype() const override { return model_->product_dtype(); }
  DType product_dtype_from_name(std::string_view name, const Device& device) const override;
  void set_checkpointing(bool on) override { model_->set_checkpointing(on); }
  void save(const std::filesystem::path& folder, const std::map<std::string, std::string>& metadata) override;

  DiT& model() { return *model_; }

 private:
  std::shared_ptr<DiT> model_;
};

/// PixArt. Without an encoder, which may be null, it looks at the batch's states; with one it makes its own.
class TextTrainee : public Trainee {
 public:
  TextTrainee(std::shared_ptr<PixArt> model, std::shared_ptr<T5Encoder> encoder)
      : model_(std::move(model)), encoder_(std::move(encoder)) {}

  Tensor predict(const Tensor& xt, const Tensor& times, const Batch& batch) const override;
  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor) override;
  ModelConfig config() const override { return model_->config(); }
  void set_product_dtype(DType dtype) override;
  DType product_dtype() const override { return model_->product_dtype(); }
  DType product_dtype_from_name(std::string_view name, const Device& device) const override;
  void set_checkpointing(bool on) override { model_->set_checkpointing(on); }
  void save(const std::filesystem::path& folder, const std::map<std::string, std::string>& metadata) override;

  PixArt& model() { return *model_; }
  /// Null if it is not trained along.
  const T5Encoder* encoder() const { return encoder_.get(); }

 private:
  std::shared_ptr<PixArt> model_;
  std::shared_ptr<T5Encoder> encoder_;
};

/// The text encoder that a configuration names, frozen. Throws Error unless it fits the model and the
/// tokenizer.
std::unique_ptr<T5Encoder> load_text_encoder(const TrainConfig& config);

/// The model that a configuration describes, its parameters without values.
std::unique_ptr<Trainee> make_trainee(const TrainConfig& config);
/// A model from its file (open_file_or_builtin), of the kind that the run trains; a model of texts without
/// encoder.
std::unique_ptr<Trainee> load_trainee(const std::string& model, const ModelConfig& alike);

}  // namespace linnet
