#include "store/convert.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "io/file.h"
#include "io/text.h"
#include "ops/int8_linear.h"
#include "store/dit_file.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

bool is_infinite(float value) { return std::isinf(value); }
bool is_infinite(float16 value) { return (value.bits & 0x7fff) == 0x7c00; }
bool is_infinite(bfloat16 value) { return (value.bits & 0x7fff) == 0x7f80; }

double value_at(const Tensor& tensor, int64_t i) {
  switch (tensor.dtype()) {
    case DType::f64: return tensor.data<double>()[i];
    case DType::f16: return static_cast<double>(static_cast<float>(tensor.data<float16>()[i]));
    case DType::bf16: return static_cast<double>(static_cast<float>(tensor.data<bfloat16>()[i]));
    default: return static_cast<double>(tensor.data<float>()[i]);
  }
}

// A number that became infinite only by the conversion, if there is one.
template <class To>
std::optional<double> find_overflow(const Tensor& from, const Tensor& to) {
  const To* values = to.data<To>();
  for (int64_t i = 0; i < to.numel(); ++i)
    if (is_infinite(values[i]) && std::isfinite(value_at(from, i))) return value_at(from, i);
  return std::nullopt;
}

std::optional<double> find_overflow(const Tensor& from, const Tensor& to) {
  switch (to.dtype()) {
    case DType::f16: return find_overflow<float16>(from, to);
    case DType::bf16: return find_overflow<bfloat16>(from, to);
    default: return find_overflow<float>(from, to);
  }
}

Tensor converted(const Tensor& value, DType dtype, const std::string& source, const std::string& name) {
  Tensor result = value.to(dtype);
  const auto overflow = find_overflow(value, result);
  check(!overflow, "{}: tensor '{}' holds {:.6g}, which is too large for {}{}", source, printable(name),
        overflow.value_or(0), name_of(dtype), dtype == DType::f16 ? "; bf16 holds it" : "");
  return result;
}

// On the way out removes what save_diffusers_folder puts into the folder, and the folder if it was made here,
// unless keep() was called. Another model in it would be read instead, or in part.
class NewFolder {
 public:
  /// Where such a config.json is to be written.
  NewFolder(const fs::path& path, const std::string& json) : path_(path) {
    std::error_code problem;
    check(!fs::exists(path) || fs::is_directory(path),
          "cannot make the folder {}: there is a file of that name", printable(path.string()));
    if (!fs::is_directory(path) || !may_be_left_by_a_kill(json)) check_absent(path);
    had_config_ = is_there(config());
    made_ = fs::create_directory(path, problem);
    check(fs::is_directory(path), "cannot make the folder {}: {}", printable(path.string()), problem.message());
  }
  ~NewFolder() {
    std::error_code ignored;
    if (kept_) return;
    fs::remove(weights(), ignored);
    if (!had_config_) fs::remove(config(), ignored);
    if (made_) fs::remove(path_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  fs::path weights() const { return path_ / "diffusion_pytorch_model.safetensors"; }
  fs::path config() const { return path_ / "config.json"; }
  void keep() { kept_ = true; }

 private:
  // What one that was killed has left, if anything, is written over: parts of files, and the very config.json
  // that will be there again.
  bool may_be_left_by_a_kill(const std::string& json) const {
    std::error_code ignored;
    return std::ranges::all_of(entries_of(path_), [&](const fs::path& entry) {
      return entry == weights().string() + ".partial" || entry == config().string() + ".partial" ||
             (entry == config() && fs::file_size(entry, ignored) == json.size() &&
              read_text_file(entry, json.size()) == json);
    });
  }

  fs::path path_;
  bool made_ = false, kept_ = false, had_config_ = false;
};

}  // namespace

void check_absent(const fs::path& path) {
  if (is_there(path)) throw UsageError(fmt::format("{} is there already", printable(path.string())));
}

Names names_from_name(std::string_view name) {
  if (name == "original") return Names::original;
  if (name == "diffusers") return Names::diffusers;
  throw UsageError(
      fmt::format("tensors' names are \"original\" or \"diffusers\", not \"{}\"", printable(name)));
}

namespace {

// Rounds once for the two tensors that come of it. In files scales stand long after values, by their alignment:
// only they are kept until then.
class Rounding {
 public:
  Rounding(std::function<Tensor()> read, std::string what) : read_(std::move(read)), what_(std::move(what)) {}
  Tensor values() {
    const Tensor floats = read_();
    try {
      ops::Int8Matrix rounded = ops::quantize(floats);
      scale_ = std::move(rounded.scale);
      return std::move(rounded.values);
    } catch (const Error& error) {
      fail("{}: {}", what_, error.what());
    }
  }
  Tensor scale() {
    if (!scale_.defined()) values();
    return scale_;
  }

 private:
  std::function<Tensor()> read_;
  std::string what_;
  Tensor scale_;
};

}  // namespace

Weights in_8_bits(const Weights& weights, const nn::ParameterList& model) {
  std::set<std::string> matrices;
  for (const auto& [name, parameter] : model)
    if (parameter->block_matrix) matrices.insert(name);
  Weights result = weights.empty_like();
  for (const Weights::Item& item : weights.items()) {
    if (!matrices.contains(item.name) || item.dtype == DType::i8) {
      result.add(item);
      continue;
    }
    const auto rounding = std::make_shared<Rounding>(
        item.read, fmt::format("{}: tensor '{}'", weights.source(), printable(item.name)));
    result.add({item.name, "i8", DType::i8, item.shape, [rounding] { return rounding->values(); }});
    result.add({scale_name(item.name), "f32", DType::f32, Shape{item.shape[0], 1},
                [rounding] { return rounding->scale(); }});
  }
  return result;
}

namespace {

// Those that `wanted` says in another type.
Weights converted_where(const Weights& weights, DType dtype, bool (*wanted)(const Weights::Item&)) {
  Weights result = weights.empty_like();
  for (Weights::Item item : weights.items()) {
    if (wanted(item) && item.dtype != dtype) {
      item.read = [read = item.read, dtype, source = weights.source(), name = item.name] {
        return converted(read(), dtype, source, name);
      };
      item.dtype = dtype;
      item.dtype_name = name_of(dtype);
    }
    result.add(std::move(item));
  }
  return result;
}

}  // namespace

Weights in_dtype(const Weights& weights, DType dtype) {
  return converted_where(with_float_matrices(weights), dtype, [](const Weights::Item&) { return true; });
}

Weights with_matrices_in(const Weights& weights, DType dtype) {
  return converted_where(weights, dtype, [](const Weights::Item& item) {
    return item.shape.rank() > 1 && item.dtype != DType::i8 && !item.name.ends_with(scale_name(""));
  });
}

Weights weights_of_model(const Weights& weights, const nn::ParameterList& model, bool with_positions) {
  Weights result = weights.empty_like();
  for (const auto& [name, parameter] : model) {
    const bool there = weights.contains(name) && weights.shape(name) == parameter->shape;
    if (parameter->learned() || (with_positions && there)) {
      result.add(weights.item(name));
      if (weights.contains(scale_name(name))) result.add(weights.item(scale_name(name)));
    } else if (with_positions) {
      result.add({name, "f32", DType::f32, parameter->shape, [value = parameter->value] { return value; }});
    }
  }
  return result;
}

void save_weights(const fs::path& path, const Weights& weights,
                  const std::map<std::string, std::string>& metadata, const OnTensor& on_tensor) {
  std::vector<TensorToWrite> tensors;
  for (const Weights::Item& item : weights.items()) {
    check(item.dtype.has_value(), "{}: tensor '{}' has the element type {}, which Linnet does not read",
          weights.source(), printable(item.name), printable(item.dtype_name));
    tensors.push_back({item.name, *item.dtype, item.shape, [&item, &on_tensor] {
                         if (on_tensor) on_tensor(item);
                         return item.read();
                       }});
  }
  write_safetensors(path, std::move(tensors), metadata);
}

void save_diffusers_folder(const fs::path& path, const Weights& weights, const DiTConfig& config,
                           const std::map<std::string, std::string>& metadata, const OnTensor& on_tensor) {
  const std::string json = diffusers_config(config);
  NewFolder folder(path, json);
  write_text_file(folder.config(), json);
  save_weights(folder.weights(), weights, metadata, on_tensor);  // last: where they are, nothing is missing
  folder.keep();
}

}  // namespace linnet
