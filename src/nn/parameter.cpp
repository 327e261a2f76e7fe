#include "nn/parameter.h"

#include <algorithm>
#include <cmath>

#include "ops/int8_linear.h"

namespace linnet::nn {

void draw(Parameter& parameter, Generator& generator) {
  Tensor value = Tensor::zeros(parameter.shape);
  const std::span<float> values{value.mutable_data<float>(), static_cast<size_t>(value.numel())};
  const Init init = parameter.init;
  float half_width = init.scale;
  switch (init.kind) {
    case Init::Kind::zero:
    case Init::Kind::computed: break;
    case Init::Kind::constant: std::ranges::fill(values, init.scale); break;
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

void check_fits(const std::string& name, const Parameter& parameter, const Stored& value,
                const std::optional<Stored>& scale) {
  check(value.shape == parameter.shape, "tensor \"{}\" has shape {}, the model wants {}", name,
        to_string(value.shape), to_string(parameter.shape));
  if (value.dtype == DType::i8) {
    check(value.shape.rank() == 2 && scale,
          "tensor \"{}\" is of type i8, which a model takes of matrices that come with a scale for each row",
          name);
    check(scale->dtype == DType::f32 && scale->shape == Shape{value.shape[0], 1},
          "tensor \"{}_scale\" is {} of {}, not f32 of ({}, 1)", name, name_of(scale->dtype),
          to_string(scale->shape), value.shape[0]);
    return;
  }
  check(value.dtype == DType::f32 || value.dtype == DType::bf16 || value.dtype == DType::f16 ||
            value.dtype == DType::f64,
        "tensor \"{}\" is of type {}, a model wants floating-point weights", name, name_of(value.dtype));
  check(!scale, "tensor \"{}\" is of type {} and has no use for \"{}_scale\"", name, name_of(value.dtype),
        name);
}

void assign(const std::string& name, Parameter& parameter, const Tensor& value, const Tensor& scale) {
  std::optional<Stored> stored_scale;
  if (scale.defined()) stored_scale = {scale.shape(), scale.dtype()};
  check_fits(name, parameter, {value.shape(), value.dtype()}, stored_scale);
  parameter.value = value;
  parameter.scale = scale;
}

void quantize(Parameter& parameter) {
  if (parameter.value.dtype() == DType::i8) return;
  const ops::Int8Matrix rounded = ops::quantize(parameter.value);
  parameter.value = rounded.values;
  parameter.scale = rounded.scale;
}

void dequantize(Parameter& parameter) {
  if (parameter.value.dtype() != DType::i8) return;
  parameter.value = ops::dequantize({parameter.value, parameter.scale}, DType::f32);
  parameter.scale = {};
}

}  // namespace linnet::nn
