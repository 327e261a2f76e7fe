#include "nn/parameter.h"

#include <cmath>

namespace linnet::nn {

void draw(Parameter& parameter, Generator& generator) {
  Tensor value = Tensor::zeros(parameter.shape);
  const std::span<float> values{value.mutable_data<float>(), static_cast<size_t>(value.numel())};
  const Init init = parameter.init;
  float half_width = init.scale;
  switch (init.kind) {
    case Init::Kind::zero:
    case Init::Kind::computed: break;
    case Init::Kind::normal:
      generator.normal(values);
      for (float& v : values) v *= init.scale;
      break;
    case Init::Kind::xavier_uniform: {
      const int64_t out = parameter.shape[0], in = parameter.shape.numel() / out;
      half_width = std::sqrt(6.0f / static_cast<float>(in + out));
      [[fallthrough]];
    }
    case Init::Kind::uniform:
      for (float& v : values) v = (2.0f * generator.uniform() - 1.0f) * half_width;
      break;
  }
  parameter.value = value;
}

uint64_t hash_name(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

void check_fits(const std::string& name, const Parameter& parameter, const Shape& shape, DType dtype) {
  check(shape == parameter.shape, "tensor \"{}\" has shape {}, the model wants {}", name, to_string(shape),
        to_string(parameter.shape));
  check(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64,
        "tensor \"{}\" is of type {}, a model wants floating-point weights", name, name_of(dtype));
}

void assign(const std::string& name, Parameter& parameter, const Tensor& value) {
  check_fits(name, parameter, value.shape(), value.dtype());
  parameter.value = value;
}

}  // namespace linnet::nn
