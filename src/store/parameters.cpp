#include "store/parameters.h"

#include <cstring>
#include <set>

#include "core/hash.h"
#include "core/random.h"
#include "io/file.h"
#include "io/text.h"

namespace linnet {
namespace {

// Of a large tensor in blocks evenly spread from its first bytes to its last, of a small one whole.
uint64_t hash_samples(const Tensor& tensor, uint64_t seed) {
  constexpr size_t blocks = 16, block = 4096;
  const auto* data = static_cast<const char*>(tensor.raw());
  if (tensor.bytes() <= blocks * block) return hash_bytes(data, tensor.bytes(), seed);
  const size_t last = tensor.bytes() - block;
  for (size_t i = 0; i < blocks; ++i) seed = hash_bytes(data + last * i / (blocks - 1), block, seed);
  return seed;
}

// What is stored of a tensor, if anything is.
std::optional<nn::Stored> stored(const Weights& weights, const std::string& name) {
  if (!weights.contains(name)) return std::nullopt;
  const Weights::Item& item = weights.item(name);
  check(item.dtype.has_value(), "{}: tensor \"{}\" has the element type {}, which Linnet does not read",
        weights.source(), name, printable(item.dtype_name));
  return nn::Stored{item.shape, *item.dtype};
}

}  // namespace

void check_parameters(const nn::ParameterList& parameters, const Weights& weights) {
  std::set<std::string> left_over;
  for (const Weights::Item& item : weights.items()) left_over.insert(item.name);
  for (const auto& entry : parameters) {  // whole, as Clang 14 lets no lambda have its parts
    const std::string &name = entry.first, scale = scale_name(name);
    left_over.erase(name);
    left_over.erase(scale);
    if (!entry.second->learned()) continue;
    const auto value = stored(weights, name);
    check(value.has_value(), "{}: tensor \"{}\" is missing", weights.source(), name);
    const auto stored_scale = stored(weights, scale);
    weights.naming_source([&] { nn::check_fits(name, *entry.second, *value, stored_scale); });
  }
  check(left_over.empty(), "{}: tensor \"{}\" has no place in this model", weights.source(),
        left_over.empty() ? "" : printable(*left_over.begin()));
}

void read_parameters(const nn::ParameterList& parameters, const Weights& weights) {
  check_parameters(parameters, weights);
  for (const auto& [name, parameter] : parameters) {
    if (!parameter->learned()) continue;
    const std::string scale = scale_name(name);
    nn::assign(name, *parameter, weights.tensor(name),
               weights.contains(scale) ? weights.tensor(scale) : Tensor());
  }
}

std::vector<TensorToWrite> values_of(const nn::ParameterList& parameters, DType dtype) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, parameter] : parameters) {
    check(parameter->value.defined(), "tensor \"{}\" has no value to save", name);
    const bool eight_bits = parameter->scale.defined();
    const DType stored_as = eight_bits ? DType::i8 : dtype;
    tensors.push_back({name, stored_as, parameter->shape, [p = parameter, stored_as] {
                         return stored_as == DType::i8 ? p->value : p->value.to(stored_as);
                       }});
    if (eight_bits)
      tensors.push_back(
          {scale_name(name), DType::f32, parameter->scale.shape(), [p = parameter] { return p->scale; }});
  }
  return tensors;
}

std::string fingerprint(const nn::ParameterList& parameters) {
  constexpr size_t at_once = size_t{16} << 20;  // of a file in memory, but for a larger tensor
  uint64_t sum = 0;
  size_t seen = 0;
  for (const auto& [name, parameter] : parameters)
    for (const Tensor& part : {parameter->value.host(), parameter->scale.host()}) {
      if (!part.defined()) continue;
      const uint64_t seed = mix(nn::hash_name(name), static_cast<uint64_t>(part.dtype()));
      sum += hash_bytes(part.raw(), part.bytes(), seed);
      seen += part.bytes();
      if (seen < at_once) continue;
      forget_mapped_pages();
      seen = 0;
    }
  forget_mapped_pages();
  return fmt::format("{:016x}", sum);
}

std::string quick_fingerprint(const nn::ParameterList& parameters) {
  uint64_t hash = parameters.size();
  for (const auto& [name, parameter] : parameters) {
    const Tensor &value = parameter->value, &scale = parameter->scale;
    hash = mix(mix(hash, nn::hash_name(name)), mix(static_cast<uint64_t>(value.dtype()), value.bytes()));
    hash = hash_samples(value, hash);
    if (scale.defined()) hash = hash_bytes(scale.raw(), scale.bytes(), hash);
  }
  return fmt::format("{:016x}", hash);
}

std::string fingerprint(const Tensor& tensor) {
  return fmt::format("{:016x}",
                     hash_bytes(tensor.raw(), tensor.bytes(), static_cast<uint64_t>(tensor.dtype())));
}

}  // namespace linnet
