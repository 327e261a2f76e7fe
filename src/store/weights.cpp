#include "store/weights.h"

#include <algorithm>
#include <set>
#include <span>

#include "io/file.h"
#include "io/text.h"
#include "ops/int8_linear.h"
#include "store/metadata.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

Weights of_index(const fs::path& path) {
  const auto files = std::make_shared<const TensorFiles>(TensorFiles::open(path));
  Weights result(printable(path.string()), files->metadata(), "safetensors with an index");
  for (const std::string& name : files->names()) {
    const SafetensorsEntry& entry = files->entry(name);
    result.add(
        {name, entry.dtype_name, entry.dtype, entry.shape, [files, name] { return files->tensor(name); }});
  }
  return result;
}

// Of one file, by its contents.
Weights of_contents(const fs::path& path) {
  const auto mapped = MappedFile::open(path);
  const std::string name = printable(path.string());
  const std::string_view text(reinterpret_cast<const char*>(mapped->data()), mapped->size());
  check(!text.starts_with("GGUF"), "{}: this is a GGUF file; safetensors and PyTorch's files are read", name);
  if (TorchFile::is_torch_file(mapped->bytes()))
    return Weights::of(TorchFile::from_memory(mapped->bytes(), mapped, name));
  return Weights::of(SafetensorsFile::from_memory(mapped->bytes(), mapped, name));
}

// Of PyTorch's files, as transformers wrote them before safetensors. An index among them is no file of tensors:
// it could name itself.
Weights of_torch_index(const fs::path& path) {
  constexpr size_t index_limit = 100'000'000;
  const std::string name = printable(path.string());
  std::map<std::string, Weights> files;
  Weights result(name, {}, "PyTorch with an index");
  for (const auto& [tensor, file] : parse_safetensors_index(read_text_file(path, index_limit), name)) {
    auto found = files.find(file);
    if (found == files.end()) found = files.emplace(file, of_contents(path.parent_path() / file)).first;
    result.add(found->second.item(tensor));
  }
  return result;
}

Weights of_file(const fs::path& path) {
  if (path.extension() != ".json") return of_contents(path);
  const std::string name = path.filename().string();
  check(name != "config.json" && name != "model_index.json",
        "{}: this says what weights are; name the folder that it lies in", printable(path.string()));
  return name.find(".bin.index.") != std::string::npos ? of_torch_index(path) : of_index(path);
}

}  // namespace

Weights Weights::open(const fs::path& given) {
  const bool folder = is_folder(given);
  const fs::path path = folder ? weights_in(given) : given;
  Weights result = of_file(path);
  if (folder)
    result.container_ = fmt::format("folder: {} ({})", printable(path.filename().string()), result.container_);
  // A file of such a folder is what it is, also where it is named itself.
  if (folder || is_named_as_weights(path.filename().string())) result.metadata_.merge(read_beside(path));
  return result;
}

Weights Weights::of(const SafetensorsFile& file) {
  const auto shared = std::make_shared<const SafetensorsFile>(file);
  Weights result(file.source(), file.metadata(), "safetensors");
  for (const std::string& name : file.names()) {
    const SafetensorsEntry& entry = file.entry(name);
    result.add(
        {name, entry.dtype_name, entry.dtype, entry.shape, [shared, name] { return shared->tensor(name); }});
  }
  return result;
}

Weights Weights::of(const TorchFile& file) {
  const auto shared = std::make_shared<const TorchFile>(file);
  Weights result(file.source(), {}, file.zipped() ? "PyTorch" : "PyTorch, in its format before 1.6");
  for (const std::string& name : file.names()) {
    const TorchFile::Entry& entry = file.entry(name);
    result.add(
        {name, entry.dtype_name, entry.dtype, entry.shape, [shared, name] { return shared->tensor(name); }});
  }
  return result;
}

const Weights::Item& Weights::item(std::string_view name) const {
  const auto found = places_.find(name);
  check(found != places_.end(), "{}: tensor '{}' is missing", source_, printable(name));
  return items_[found->second];
}

void Weights::add(Item item) {
  check(places_.emplace(item.name, items_.size()).second, "{}: tensor '{}' is there twice", source_,
        printable(item.name));
  items_.push_back(std::move(item));
}

size_t Weights::bytes() const {
  size_t bytes = 0;
  for (const Item& item : items_) bytes += item.bytes();
  return bytes;
}

size_t Weights::made_bytes() const {
  size_t bytes = 0;
  for (const Item& item : items_) bytes += item.made ? item.bytes() : 0;
  return bytes;
}

std::optional<std::string> Weights::prefix_before(std::string_view name) const {
  for (const Item& item : items_)
    if (item.name.ends_with(name)) return item.name.substr(0, item.name.size() - name.size());
  return std::nullopt;
}

Weights with_float_matrices(const Weights& weights) {
  Weights result = weights.empty_like();
  std::set<std::string> scales;
  for (const Weights::Item& item : weights.items())
    if (item.dtype == DType::i8 && weights.contains(scale_name(item.name)))
      scales.insert(scale_name(item.name));
  for (Weights::Item item : weights.items()) {
    if (scales.contains(item.name)) continue;
    if (const std::string scale = scale_name(item.name); scales.contains(scale)) {
      item.read = [values = item.read, scale = weights.item(scale).read] {
        return ops::dequantize({values(), scale()}, DType::f32);
      };
      item.dtype = DType::f32;
      item.dtype_name = name_of(DType::f32);
    }
    result.add(std::move(item));
  }
  return result;
}

Choice choice_from_name(std::string_view name) {
  if (name == "ema") return Choice::ema;
  if (name == "raw") return Choice::raw;
  throw UsageError(fmt::format("a checkpoint's weights are \"ema\" or \"raw\", not \"{}\"", printable(name)));
}

namespace {

// The first of these prefixes that some tensor's name begins with; empty if none does.
std::string_view find_prefix(const Weights& all, std::span<const std::string_view> prefixes) {
  for (const std::string_view prefix : prefixes)
    for (const Weights::Item& item : all.items())
      if (item.name.starts_with(prefix)) return prefix;
  return {};
}

}  // namespace

Weights Weights::empty_like() const {
  Weights result(source_, metadata_, container_);
  result.part_ = part_;
  return result;
}

Weights part_of(const Weights& all, std::string_view prefix) {
  Weights result = all.empty_like();
  if (!prefix.empty()) result.part_ = prefix.substr(0, prefix.size() - 1);
  for (Weights::Item item : all.items()) {
    if (!item.name.starts_with(prefix)) continue;
    item.name.erase(0, prefix.size());
    result.add(std::move(item));
  }
  return result;
}

Weights model_weights(const Weights& all, Choice choice) {
  static constexpr std::string_view averages[] = {"ema/", "state_dict_ema/", "ema_model/", "ema_state_dict/",
                                                  "model_ema/"};
  // Parallel training and compilation, either of which may be around the other.
  static constexpr std::string_view wrappers[] = {"module.", "_orig_mod.", "module."};
  static constexpr std::string_view raws[] = {"model/", "state_dict/", "module/", "model_state_dict/"};
  const std::string_view average = find_prefix(all, averages), raw = find_prefix(all, raws);
  check(choice == Choice::ema || average.empty() || !raw.empty(),
        "{}: it has no raw weights, only their moving average (ema)", all.source());
  const Weights chosen = part_of(all, choice == Choice::raw || average.empty() ? raw : average);
  Weights result = chosen.empty_like();
  for (Weights::Item item : chosen.items()) {
    for (const std::string_view wrapper : wrappers)
      if (item.name.starts_with(wrapper)) item.name.erase(0, wrapper.size());
    if (item.name == "n_averaged") continue;  // torch's AveragedModel counts its steps beside the weights
    result.add(std::move(item));
  }
  return result;
}

// Their names say "ema." and "model.", beside the optimiser's "mean." and "square.".
Weights part_of_checkpoint(const Weights& checkpoint, Choice choice) {
  return part_of(checkpoint, choice == Choice::ema ? "ema." : "model.");
}

namespace {

// Of Linnet's own checkpoint, without the text encoder that was trained along.
Weights of_own_checkpoint(const Weights& file, Choice choice) {
  const Weights part = part_of_checkpoint(file, choice);
  Weights result = part.empty_like();
  for (const Weights::Item& item : part.items())
    if (!item.name.starts_with(text_encoder_prefix)) result.add(item);
  result.set_metadata(config_key, file.metadata().at(checkpoint_key));
  return result;
}

}  // namespace

Weights transformer_weights(const Weights& file, Choice choice) {
  if (file.metadata().contains(checkpoint_key)) return of_own_checkpoint(file, choice);
  return file.metadata().contains(config_key) ? file : model_weights(file, choice);
}

}  // namespace linnet
