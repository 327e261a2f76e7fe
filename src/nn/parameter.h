// A model's parameters, said once: every module has visit(prefix, visitor), and loading, saving, initialising,
// optimising, averaging, inheriting and counting all walk that one list.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "core/parallel.h"
#include "core/random.h"
#include "core/tensor.h"

namespace linnet::nn {

/// How a fresh parameter is drawn.
struct Init {
  enum class Kind : uint8_t { zero, constant, normal, uniform, xavier_uniform, computed };
  Kind kind = Kind::zero;
  float scale = 0;  ///< constant: the value; normal: standard deviation; uniform: half-width

  static Init zero() { return {}; }
  static Init constant(float value) { return {Kind::constant, value}; }
  static Init one() { return constant(1); }
  static Init normal(float deviation) { return {Kind::normal, deviation}; }
  static Init uniform(float half_width) { return {Kind::uniform, half_width}; }
  /// U(±√(6/(fan_in + fan_out))), the weight seen as a matrix (out, everything else).
  static Init xavier_uniform() { return {Kind::xavier_uniform, 0}; }
  /// Not learned: set by the model itself, saved for other programs, ignored when loading.
  static Init computed() { return {Kind::computed, 0}; }
};

struct Parameter {
  Parameter() = default;
  Parameter(const Shape& shape_, Init init_) : shape(shape_), init(init_) {}

  Shape shape;
  Init init;
  Tensor value;         ///< undefined until initialised or loaded
  Tensor scale;         ///< of an i8 value: (rows, 1) f32, see ops/int8_linear.h
  bool frozen = false;  ///< will not change any more: layers may keep it converted and packed
  /// The matrix of a linear layer in a transformer's block, of which nearly all of a model is made. Such are
  /// multiplied in the products' type; they alone may be in 8 bits, stay on the CPU and visit a GPU
  /// (nn/placement.h), and be trained by Muon.
  bool block_matrix = false;

  bool learned() const { return init.kind != Init::Kind::computed; }
};

using ParameterVisitor = std::function<void(const std::string& name, Parameter& parameter)>;

/// Draws every learned parameter; a parameter's values depend on its name and the seed alone.
template <class Module>
void initialize(Module& module, uint64_t seed);

void draw(Parameter& parameter, Generator& generator);
uint64_t hash_name(const std::string& name);

template <class Module>
int64_t count_parameters(Module& module) {
  int64_t count = 0;
  module.visit("", [&](const std::string&, Parameter& p) { count += p.learned() ? p.shape.numel() : 0; });
  return count;
}

template <class Module>
void freeze(Module& module) {
  module.visit("", [](const std::string&, Parameter& p) { p.frozen = true; });
}

/// On a device; f64, for which a GPU has no kernels, as f32 there.
inline Tensor moved(const Tensor& value, const Device& device) {
  const bool too_wide = device.is_gpu() && value.defined() && value.dtype() == DType::f64;
  return (too_wide ? value.to(DType::f32) : value).to(device);
}

/// To another device, where the module's forward() then works.
template <class Module>
void move_to(Module& module, const Device& device) {
  module.visit("", [&](const std::string&, Parameter& p) {
    p.value = moved(p.value, device);
    p.scale = p.scale.to(device);
  });
}

/// Parameters by name, in visiting order.
using ParameterList = std::vector<std::pair<std::string, Parameter*>>;

template <class Module>
ParameterList all_parameters(Module& module) {
  ParameterList list;
  module.visit("", [&](const std::string& name, Parameter& p) { list.emplace_back(name, &p); });
  return list;
}

template <class Module>
ParameterList learned_parameters(Module& module) {
  ParameterList list = all_parameters(module);
  std::erase_if(list, [](const auto& entry) { return !entry.second->learned(); });
  return list;
}

template <class Module>
void initialize(Module& module, uint64_t seed) {
  const ParameterList list = learned_parameters(module);
  parallel_for(static_cast<int64_t>(list.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [name, parameter] = list[static_cast<size_t>(i)];
      Generator generator(mix(seed, hash_name(name)));
      draw(*parameter, generator);
    }
  });
}

/// What a file says of a tensor before it is read.
struct Stored {
  Shape shape;
  DType dtype;
};
/// Throws Error naming the tensor, what it is and what the parameter wants, unless it may become its value. An
/// i8 matrix comes with its rows' scales, which files keep under the name "<name>_scale".
void check_fits(const std::string& name, const Parameter& parameter, const Stored& value,
                const std::optional<Stored>& scale = {});

/// Takes a tensor that fits as the parameter's value (no copy).
void assign(const std::string& name, Parameter& parameter, const Tensor& value, const Tensor& scale = {});

/// A matrix in 8 bits (see ops/int8_linear.h) and back, in f32; nothing happens to one that already is.
void quantize(Parameter& parameter);
void dequantize(Parameter& parameter);

}  // namespace linnet::nn
