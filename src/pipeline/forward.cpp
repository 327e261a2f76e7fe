#include "pipeline/forward.h"

#include <cmath>

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

// What does not fit is the file's fault.
template <class F>
auto of_file(const SafetensorsFile& input, F f) {
  try {
    return f();
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error& error) {
    fail("{}: {}", input.source(), error.what());
  }
}

}  // namespace

NamedTensors encode_file(const Vae& vae, const SafetensorsFile& input) {
  const Tensor sample = floats(input, "sample");
  const LatentMoments moments = of_file(input, [&] { return vae.encode(sample); });
  return {{"mean", moments.mean}, {"logvar", moments.logvar}};
}

NamedTensors decode_file(const Vae& vae, const SafetensorsFile& input) {
  const Tensor latent = floats(input, "latent");
  return {{"sample", of_file(input, [&] { return vae.decode(latent); })}};
}

NamedTensors inception_file(const Inception& inception, const SafetensorsFile& input) {
  const Tensor sample = floats(input, "sample");
  const Inception::Features seen = of_file(input, [&] { return inception.features(sample); });
  return {{"64", seen.first},        {"192", seen.second},
          {"768", seen.third},       {"2048", seen.pool},
          {"spatial", seen.spatial}, {"probabilities", inception.probabilities(seen.pool)}};
}

Tensor forward_file(const DiT& model, const SafetensorsFile& input) {
  const Tensor x = pictures(model.config(), input);
  const Tensor t = timesteps(x.size(0), input);
  return model.forward(x, t, classes(x.size(0), model.config(), input));
}

}  // namespace linnet
