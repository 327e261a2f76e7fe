#include "store/texts_from_classes.h"

#include <map>

#include "io/text.h"
#include "ops/activation.h"
#include "ops/reduce.h"
#include "store/dit_file.h"

namespace linnet {
namespace {

constexpr const char* adaln = "adaLN_modulation.1.";

struct Value {
  Tensor tensor;
  std::string source;
};
using Values = std::map<std::string, Value>;

Tensor operator+(const Tensor& a, const Tensor& b) {
  Tensor sum = a.clone();
  for (int64_t i = 0; i < sum.numel(); ++i) sum.mutable_data<float>()[i] += b.data<float>()[i];
  return sum;
}

Tensor operator*(float factor, const Tensor& a) {
  Tensor product = a.clone();
  for (float& value : std::span(product.mutable_data<float>(), static_cast<size_t>(a.numel()))) value *= factor;
  return product;
}

// matrix (rows, n) · vector (n)
Tensor times(const Tensor& matrix, const Tensor& vector) {
  Tensor result = Tensor::empty({matrix.size(0)});
  for (int64_t r = 0; r < matrix.size(0); ++r) {
    double sum = 0;
    for (int64_t i = 0; i < matrix.size(1); ++i)
      sum += static_cast<double>(matrix.data<float>()[r * matrix.size(1) + i]) *
             static_cast<double>(vector.data<float>()[i]);
    result.mutable_data<float>()[r] = static_cast<float>(sum);
  }
  return result;
}

Tensor mean_of_rows(const Tensor& x) { return (1.0f / static_cast<float>(x.size(0))) * ops::sum_rows(x); }

// The class model's tensors, and what its blocks are told on average.
class Source {
 public:
  Source(const Weights& weights, const PixArtConfig& student)
      : weights_(weights), config_(read_dit_config(weights)), student_(student) {
    const Tensor table = tensor("y_embedder.embedding_table.weight");
    no_class_ = config_.null_class() ? table.rows(config_.num_classes, config_.num_classes + 1).clone()
                                     : mean_of_rows(table);
    no_class_ = no_class_.reshape({config_.hidden_size});
    nn::TimestepEmbedder embedder(config_.hidden_size);
    embedder.first.weight.value = tensor("t_embedder.mlp.0.weight");
    embedder.first.bias.value = tensor("t_embedder.mlp.0.bias");
    embedder.second.weight.value = tensor("t_embedder.mlp.2.weight");
    embedder.second.bias.value = second_bias();
    std::vector<float> timesteps;
    for (int t = 0; t < 1000; t += 10) timesteps.push_back(static_cast<float>(t));
    const Tensor embedded = embedder.forward(Tensor::from(timesteps));
    mean_time_ = mean_of_rows(embedded);
    mean_told_ = mean_of_rows(ops::silu(embedded, DType::f32));
  }

  Values values() const {
    Values result;
    for (const char* name : {"t_embedder.mlp.0.weight", "t_embedder.mlp.0.bias", "t_embedder.mlp.2.weight",
                             "x_embedder.proj.bias"})
      result[name] = {tensor(name), name};
    result["t_embedder.mlp.2.bias"] = {second_bias(), "t_embedder.mlp.2.bias, with the embedding of no class"};
    result["x_embedder.proj.weight"] = {patch_weight(), "x_embedder.proj.weight" + enlarged()};
    for (const char* kind : {"weight", "bias"}) {
      const std::string name = fmt::format("final_layer.linear.{}", kind);
      result[name] = {output(tensor(name)), name + enlarged()};
    }
    const std::string final = fmt::format("final_layer.{}", adaln);
    const Tensor told = times(tensor(final + "weight"), mean_told_) + tensor(final + "bias");
    const int64_t width = config_.hidden_size;
    const Tensor rows = told.reshape({2, width});
    Tensor table = Tensor::empty({2, width});
    for (int64_t i = 0; i < 2 * width; ++i)
      table.mutable_data<float>()[i] = rows.data<float>()[i] - mean_time_.data<float>()[i % width];
    result["final_layer.scale_shift_table"] = {table, final + "*, its mean over timesteps"};
    add_blocks(result);
    return result;
  }

 private:
  Tensor tensor(const std::string& name) const { return weights_.tensor(name).to(DType::f32); }
  Tensor second_bias() const { return tensor("t_embedder.mlp.2.bias") + no_class_; }
  int64_t times_larger() const { return student_.patch_size / config_.patch_size; }
  std::string enlarged() const { return times_larger() == 1 ? "" : ", each value for a square of pixels"; }

  // (width, channels, patch, patch): every pixel has its share in the mean of its square.
  Tensor patch_weight() const {
    const Tensor small = tensor("x_embedder.proj.weight");
    const int64_t n = times_larger(), from = config_.patch_size, to = student_.patch_size;
    Tensor large = Tensor::empty({small.size(0), small.size(1), to, to});
    for (int64_t plane = 0; plane < small.size(0) * small.size(1); ++plane)
      for (int64_t y = 0; y < to; ++y)
        for (int64_t x = 0; x < to; ++x)
          large.mutable_data<float>()[(plane * to + y) * to + x] =
              small.data<float>()[(plane * from + y / n) * from + x / n] / static_cast<float>(n * n);
    return large;
  }

  // (patch·patch·channels, …): weight or bias of the last layer, without the variance's channels if there are
  // none.
  Tensor output(const Tensor& small) const {
    const float sign = student_.prediction == config_.prediction ? 1.0f : -1.0f;
    const int64_t n = times_larger(), from = config_.patch_size, to = student_.patch_size,
                  channels = student_.out_channels(), row = small.numel() / small.size(0);
    const Shape shape = small.shape().rank() == 1 ? Shape{to * to * channels} : Shape{to * to * channels, row};
    Tensor large = Tensor::empty(shape);
    float* target = large.mutable_data<float>();
    for (int64_t y = 0; y < to; ++y)
      for (int64_t x = 0; x < to; ++x)
        for (int64_t c = 0; c < channels; ++c) {
          const float* source =
              small.data<float>() + (((y / n) * from + x / n) * config_.out_channels() + c) * row;
          const float factor = c < config_.in_channels ? sign : 1.0f;
          for (int64_t i = 0; i < row; ++i) *target++ = factor * source[i];
        }
    return large;
  }

  void add_blocks(Values& result) const {
    const auto name_in = [](int64_t block, std::string_view rest) {
      return fmt::format("blocks.{}.{}", block, rest);
    };
    const std::string weight = fmt::format("{}weight", adaln), bias = fmt::format("{}bias", adaln);
    Tensor shared = Tensor::zeros({6 * config_.hidden_size, config_.hidden_size});
    for (int64_t i = 0; i < config_.depth; ++i)
      shared = shared + (1.0f / static_cast<float>(config_.depth)) * tensor(name_in(i, weight));
    result["t_block.1.weight"] = {shared, "blocks.*." + weight + ", the mean of all"};
    result["t_block.1.bias"] = {Tensor::zeros({6 * config_.hidden_size}), "zero: the tables have it"};
    const Tensor told = times(shared, mean_told_);
    for (int64_t i = 0; i < config_.depth; ++i) {
      const Tensor own = times(tensor(name_in(i, weight)), mean_told_) + tensor(name_in(i, bias));
      result[name_in(i, "scale_shift_table")] = {(own + -1.0f * told).reshape({6, config_.hidden_size}),
                                                 name_in(i, adaln) + "*, what it differs by from the mean"};
    }
    for (const Weights::Item& item : weights_.items())
      if (item.name.starts_with("blocks.") && item.name.find(adaln) == std::string::npos)
        result[item.name] = {tensor(item.name), item.name};
  }

  const Weights& weights_;
  const DiTConfig config_;
  const PixArtConfig& student_;
  Tensor no_class_, mean_time_, mean_told_;  // (width)
};

}  // namespace

PixArtConfig with_texts(const DiTConfig& classes, const TextsInPlaceOfClasses& texts) {
  const Prediction prediction = texts.prediction.value_or(classes.prediction);
  if (prediction != classes.prediction && (classes.prediction != Prediction::v || prediction != Prediction::x0))
    throw UsageError(
        fmt::format("a model that predicts {} cannot become one that predicts {}: only v becomes x0",
                    name_of(classes.prediction), name_of(prediction)));
  if (texts.enlarge < 1 || texts.enlarge > 16)
    throw UsageError(fmt::format("pictures become 1 to 16 times as large, not {}", texts.enlarge));
  PixArtConfig config;
  config.sample_size = classes.input_size * texts.enlarge;
  config.patch_size = classes.patch_size * texts.enlarge;
  config.in_channels = classes.in_channels;
  config.hidden_size = classes.hidden_size;
  config.depth = classes.depth;
  config.num_heads = classes.num_heads;
  config.num_cross_heads =
      texts.cross_heads > 0 ? texts.cross_heads : usual_heads(nn::Mixer::softmax, classes.hidden_size);
  config.mlp_ratio = classes.mlp_ratio;
  config.caption_channels = texts.caption_channels;
  config.caption_tokens = texts.caption_tokens;
  config.interpolation = 1;  // DiT's positions count tokens
  config.null_caption = false;
  config.learn_sigma = classes.learn_sigma && !texts.fixed_variance;
  config.mixer = classes.mixer;
  config.prediction = prediction;
  config.validate();
  return config;
}

std::vector<Inherited> inherit_with_texts(PixArt& student, const Weights& classes, uint64_t seed) {
  const Weights weights = with_float_matrices(classes);
  DiT stated(read_dit_config(weights));  // what is read must be as large as it is said to be
  check_parameters(nn::all_parameters(stated), weights);
  const Values values = Source(weights, student.config()).values();
  nn::initialize(student, seed);
  std::vector<Inherited> report;
  for (auto& [name, parameter] : nn::learned_parameters(student)) {
    const auto found = values.find(name);
    if (found != values.end()) {
      const auto& [tensor, source] = found->second;
      check(tensor.shape() == parameter->shape, "{}: '{}' would have shape {}, the model of texts wants {}",
            classes.source(), printable(name), to_string(tensor.shape()), to_string(parameter->shape));
      parameter->value = tensor;
    }
    report.push_back({name, found == values.end() ? "" : found->second.source});
  }
  return report;
}

}  // namespace linnet
