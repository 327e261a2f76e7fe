#include "pipeline/forward.h"

#include "io/file.h"

#include <algorithm>
#include <cmath>

#include "core/naming.h"
#include "pipeline/text_encoding.h"

namespace linnet {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

Tensor as_f32(const Tensor& tensor) {
  if (tensor.dtype() != DType::i64) return tensor.to(DType::f32);
  Tensor result = Tensor::empty(tensor.shape());
  for (int64_t i = 0; i < tensor.numel(); ++i)
    result.mutable_data<float>()[i] = static_cast<float>(tensor.data<int64_t>()[i]);
  return result;
}

Tensor pictures(const DiTConfig& config, const SafetensorsFile& input) {
  const Tensor x = input.tensor("x");
  const Shape& shape = x.shape();
  const bool fits = shape.rank() == 4 && shape[0] > 0 && shape[1] == config.in_channels &&
                    shape[2] == config.input_size && shape[3] == config.input_size;
  check(fits, "{}: tensor 'x' has shape {}, the model takes (n, {}, {}, {})", input.source(), to_string(shape),
        config.in_channels, config.input_size, config.input_size);
  check(is_float(x.dtype()), "{}: tensor 'x' is of type {}, pictures are floating-point numbers",
        input.source(), name_of(x.dtype()));
  return x.to(DType::f32);
}

Tensor timesteps(int64_t n, const SafetensorsFile& input) {
  const Tensor t = input.tensor("t");
  check(t.shape() == Shape{n}, "{}: tensor 't' has shape {}, {} pictures need {}", input.source(),
        to_string(t.shape()), n, to_string(Shape{n}));
  check(is_float(t.dtype()) || t.dtype() == DType::i64, "{}: tensor 't' is of type {}, not f32 or i64",
        input.source(), name_of(t.dtype()));
  const Tensor times = as_f32(t);
  for (const float time : times.values<float>())
    check(std::isfinite(time), "{}: tensor 't' holds a timestep that is no number", input.source());
  return times;
}

Tensor classes(int64_t n, const DiTConfig& config, const SafetensorsFile& input) {
  const Tensor y = input.tensor("y");
  check(y.shape() == Shape{n}, "{}: tensor 'y' has shape {}, {} pictures need {}", input.source(),
        to_string(y.shape()), n, to_string(Shape{n}));
  check(y.dtype() == DType::i64, "{}: tensor 'y' is of type {}, not i64", input.source(), name_of(y.dtype()));
  const int64_t last = config.null_class() ? config.num_classes : config.num_classes - 1;
  for (const int64_t index : y.values<int64_t>())
    check(index >= 0 && index <= last, "{}: tensor 'y' holds class {}, which lies outside 0..{}",
          input.source(), index, last);
  return y;
}

Tensor floats(const SafetensorsFile& input, const std::string& name) {
  const Tensor x = input.tensor(name);
  check(is_float(x.dtype()), "{}: tensor '{}' is of type {}, not floating-point numbers", input.source(), name,
        name_of(x.dtype()));
  return x.to(DType::f32);
}

}  // namespace

NamedTensors encode_file(const Vae& vae, const SafetensorsFile& input, const Device& device) {
  const Tensor sample = floats(input, "sample").to(device);
  const LatentMoments moments = naming(input.source(), [&] { return vae.encode(sample); });
  return {{"mean", moments.mean.host()}, {"logvar", moments.logvar.host()}};
}

NamedTensors decode_file(const Vae& vae, const SafetensorsFile& input, const Device& device) {
  const Tensor latent = floats(input, "latent").to(device);
  return {{"sample", naming(input.source(), [&] { return vae.decode(latent); }).host()}};
}

namespace {

// How many tokens each text has.
std::vector<int64_t> lengths(const SafetensorsFile& input, const Shape& ids) {
  if (!input.contains("attention_mask")) return std::vector<int64_t>(static_cast<size_t>(ids[0]), ids[1]);
  const Tensor mask = input.tensor("attention_mask");
  check(mask.dtype() == DType::i64 && mask.shape() == ids,
        "{}: tensor 'attention_mask' is {} {}, and input_ids are i64 {}", input.source(), name_of(mask.dtype()),
        to_string(mask.shape()), to_string(ids));
  std::vector<int64_t> result;
  for (int64_t i = 0; i < ids[0]; ++i) {
    const int64_t* row = mask.data<int64_t>() + i * ids[1];
    const auto length = std::find_if(row, row + ids[1], [](int64_t m) { return m != 1; }) - row;
    check(length > 0 && std::all_of(row + length, row + ids[1], [](int64_t m) { return m == 0; }),
          "{}: tensor 'attention_mask' is not ones and then zeros in row {}", input.source(), i);
    result.push_back(length);
  }
  return result;
}

}  // namespace

NamedTensors text_file(const T5Encoder& encoder, const SafetensorsFile& input) {
  const Tensor ids = input.tensor("input_ids");
  check(ids.dtype() == DType::i64 && ids.shape().rank() == 2 && ids.numel() > 0,
        "{}: tensor 'input_ids' is {} {}, not i64 (texts, tokens)", input.source(), name_of(ids.dtype()),
        to_string(ids.shape()));
  const int64_t width = encoder.config().width, tokens = ids.size(1);
  std::vector<std::vector<int64_t>> kept;
  const int64_t* row = ids.data<int64_t>();
  for (const int64_t length : lengths(input, ids.shape())) {
    kept.emplace_back(row, row + length);
    row += tokens;
  }
  TextStates texts = naming(input.source(), [&] { return encode_texts(encoder, kept, &forget_mapped_pages); });
  texts.states = texts.states.host();
  Tensor result = Tensor::zeros({ids.size(0), tokens, width});
  for (int64_t i = 0; i < texts.count(); ++i)
    std::copy_n(texts.states.data<float>() + texts.offsets[static_cast<size_t>(i)] * width,
                texts.length(i) * width, result.mutable_data<float>() + i * tokens * width);
  return {{"last_hidden_state", result}};
}

NamedTensors inception_file(const Inception& inception, const SafetensorsFile& input, const Device& device) {
  const Tensor sample = floats(input, "sample").to(device);
  const Inception::Features seen = naming(input.source(), [&] { return inception.features(sample); });
  return {{"64", seen.first.host()},        {"192", seen.second.host()},
          {"768", seen.third.host()},       {"2048", seen.pool.host()},
          {"spatial", seen.spatial.host()}, {"probabilities", inception.probabilities(seen.pool).host()}};
}

Tensor forward_file(const DiT& model, const SafetensorsFile& input, const Device& device) {
  const Tensor x = pictures(model.config(), input);
  const Tensor t = timesteps(x.size(0), input);
  return model.forward(x.to(device), t, classes(x.size(0), model.config(), input)).host();
}

namespace {

// Texts without what their mask leaves out.
TextStates texts(const PixArtConfig& config, int64_t n, const SafetensorsFile& input) {
  const Tensor text = floats(input, "text");
  const int64_t width = config.caption_channels;
  check(text.shape().rank() == 3 && text.size(0) == n && text.size(2) == width && text.size(1) > 0,
        "{}: tensor 'text' has shape {}, {} pictures need ({}, tokens, {})", input.source(),
        to_string(text.shape()), n, n, width);
  const int64_t tokens = text.size(1);
  const Tensor mask = input.contains("text_mask") ? input.tensor("text_mask") : Tensor();
  check(!mask.defined() || (mask.dtype() == DType::i64 && mask.shape() == Shape{n, tokens}),
        "{}: tensor 'text_mask' is not i64 ({}, {})", input.source(), n, tokens);
  TextStates result{{}, {0}};
  std::vector<float> kept;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i * tokens; j < (i + 1) * tokens; ++j)
      if (!mask.defined() || mask.data<int64_t>()[j] != 0)
        kept.insert(kept.end(), text.data<float>() + j * width, text.data<float>() + (j + 1) * width);
    result.offsets.push_back(static_cast<int64_t>(kept.size()) / width);
    check(result.offsets.back() > result.offsets[static_cast<size_t>(i)],
          "{}: tensor 'text_mask' leaves nothing of text {}", input.source(), i);
  }
  result.states = Tensor::from(std::span<const float>(kept), {result.offsets.back(), width});
  return result;
}

}  // namespace

Tensor forward_file(const PixArt& model, const SafetensorsFile& input, const Device& device) {
  const Tensor x = floats(input, "x");
  const int64_t n = x.shape().rank() == 4 ? x.size(0) : 0;
  const Tensor t = n > 0 ? timesteps(n, input) : Tensor::full({0}, 0);
  const TextStates text = n > 0 ? texts(model.config(), n, input) : TextStates{{}, {0}};
  return naming(input.source(), [&] { return model.forward(x.to(device), t, text); }).host();
}

}  // namespace linnet
