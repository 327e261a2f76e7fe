#include "io/torch_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "io/file.h"
#include "io/pickle.h"
#include "io/text.h"
#include "io/zip.h"

namespace linnet {
namespace {

using Kind = PickleValue::Kind;

// The older format begins with this number as a pickle: protocol 2, LONG1 of ten bytes.
constexpr std::string_view legacy_magic = {"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e", 15};

// What may be called, and then means: a tensor, or plain data that no model needs.
constexpr std::string_view rebuild_tensor = "torch._utils._rebuild_tensor_v2",
                           rebuild_parameter = "torch._utils._rebuild_parameter",
                           rebuild_with_state = "torch._utils._rebuild_parameter_with_state";
constexpr std::string_view allowed_calls[] = {rebuild_tensor,
                                              rebuild_parameter,
                                              rebuild_with_state,
                                              "torch._utils._rebuild_tensor_v3",  // of types that Linnet lacks
                                              "argparse.Namespace",
                                              "torch.Size",
                                              "torch.device",
                                              "torch.serialization._get_layout",
                                              "collections.Counter",
                                              "pathlib.PosixPath",
                                              "pathlib.WindowsPath",
                                              "pathlib.PurePosixPath",
                                              "pathlib.PureWindowsPath",
                                              "pathlib._local.PosixPath",  // of Python 3.13
                                              "pathlib._local.WindowsPath",
                                              "pathlib._local.PurePosixPath",
                                              "pathlib._local.PureWindowsPath",
                                              "numpy.dtype",
                                              "numpy.core.multiarray.scalar",
                                              "numpy.core.multiarray._reconstruct",
                                              "numpy._core.multiarray.scalar",  // of NumPy 2
                                              "numpy._core.multiarray._reconstruct",
                                              "_codecs.encode",
                                              "__builtin__.set",
                                              "__builtin__.frozenset",
                                              "__builtin__.bytearray",
                                              "__builtin__.complex",
                                              "builtins.set",
                                              "builtins.frozenset",
                                              "builtins.bytearray",
                                              "builtins.complex"};

// A key may stand in many dictionaries, and becomes part of every name below it.
constexpr size_t longest_name = 4096, most_name_bytes = size_t{64} << 20;

struct ElementType {
  std::string_view name;  // of torch.<Name>Storage, in lower case
  size_t bytes;
  std::optional<DType> dtype;
};
constexpr ElementType element_types[] = {
    {"double", 8, DType::f64}, {"float", 4, DType::f32}, {"half", 2, DType::f16}, {"bfloat16", 2, DType::bf16},
    {"long", 8, DType::i64},   {"int", 4, DType::i32},   {"short", 2, {}},        {"char", 1, DType::i8},
    {"byte", 1, DType::u8},    {"bool", 1, DType::u8},   {"complexfloat", 8, {}}, {"complexdouble", 16, {}},
};

}  // namespace

class TorchFileReader {
 public:
  TorchFileReader(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                  const std::string& source)
      : bytes_(bytes), source_(source) {
    file_.source_ = source;
    file_.owner_ = std::move(owner);
  }

  TorchFile read() {
    file_.zipped_ = is_zip(bytes_);
    file_.zipped_ ? read_zip_file() : read_legacy();
    return std::move(file_);
  }

 private:
  void read_zip_file() {
    const ZipFiles files = read_zip(bytes_, source_);
    const auto found = std::ranges::find_if(
        files, [](const auto& file) { return file.first == "data.pkl" || file.first.ends_with("/data.pkl"); });
    check(found != files.end(), "{}: this zip archive is no PyTorch file (it has no data.pkl)", source_);
    const std::string root = found->first.substr(0, found->first.size() - std::string_view("data.pkl").size());
    if (const auto order = files.find(root + "byteorder"); order != files.end()) {
      ByteReader reader(order->second, source_);
      check(reader.text(order->second.size()) == "little", "{}: its numbers are big-endian", source_);
    }
    ByteReader reader(found->second, source_);
    pickle_ = Pickle::read(reader, source_);
    find_storage_ = [this, &files, root](std::string_view key, const ElementType& type, uint64_t count) {
      const auto data = files.find(root + "data/" + std::string(key));
      check(data != files.end(), "{}: the storage '{}' is missing", source_, printable(key));
      check(data->second.size() / type.bytes >= count, "{}: the storage '{}' is too short", source_,
            printable(key));
      return data->second;
    };
    read_tensors();
  }

  // Magic number, protocol, system and the objects, each a pickle; the storages' keys; then, in their order,
  // the number of elements and the elements of each.
  void read_legacy() {
    ByteReader reader(bytes_, source_);
    reader.take(legacy_magic.size());
    const PickleValue protocol = Pickle::read(reader, source_).root();
    check(protocol.is(Kind::integer) && protocol.integer == 1001,
          "{}: this is no PyTorch file of a known version", source_);
    const Pickle system = Pickle::read(reader, source_);
    const PickleValue* const little = system.root().find("little_endian");
    check(!little || little->integer == 1, "{}: its numbers are big-endian", source_);
    pickle_ = Pickle::read(reader, source_);
    const Pickle keys = Pickle::read(reader, source_);
    check(keys.root().is(Kind::list), "{}: the list of storages is damaged", source_);

    // How large a storage's elements are, only the objects that refer to it say.
    std::map<std::string, ElementType, std::less<>> types;
    for (const PickleValue& value : pickle_.values())
      if (value.is(Kind::persistent)) {
        const auto [key, type, count] = read_identifier(value);
        types.emplace(key, type);
      }
    std::map<std::string, std::span<const std::byte>, std::less<>> storages;
    for (const PickleValue* key : keys.root().items) {
      check(key->is(Kind::text), "{}: the list of storages is damaged", source_);
      const auto type = types.find(key->text);
      check(type != types.end(), "{}: nothing refers to the storage '{}'", source_, printable(key->text));
      const auto count = reader.number<uint64_t>();
      check(count <= reader.left() / type->second.bytes, "{}: the storage '{}' is cut off", source_,
            printable(key->text));
      storages.emplace(key->text, reader.take(count * type->second.bytes));
    }
    find_storage_ = [this, &storages](std::string_view key, const ElementType& type, uint64_t count) {
      const auto data = storages.find(key);
      check(data != storages.end(), "{}: the storage '{}' is missing", source_, printable(key));
      check(data->second.size() / type.bytes >= count, "{}: the storage '{}' is too short", source_,
            printable(key));
      return data->second;
    };
    read_tensors();
  }

  struct Identifier {
    std::string_view key;
    ElementType type;
    uint64_t count;
  };

  // ("storage", torch.FloatStorage, key, device, number of elements, ...)
  Identifier read_identifier(const PickleValue& value) const {
    const PickleValue& tuple = *value.items[0];
    const bool fits = tuple.is(Kind::tuple) && tuple.items.size() >= 5 && tuple.items[0]->text == "storage" &&
                      tuple.items[1]->is(Kind::global) && tuple.items[2]->is(Kind::text) &&
                      tuple.items[4]->is(Kind::integer) && tuple.items[4]->integer >= 0;
    check(fits, "{}: a reference to a storage is damaged", source_);
    return {tuple.items[2]->text, element_type(tuple.items[1]->name),
            static_cast<uint64_t>(tuple.items[4]->integer)};
  }

  // "torch.BFloat16Storage"
  ElementType element_type(std::string_view name) const {
    const std::string plain = lower_case(name);
    for (const ElementType& type : element_types)
      if (plain == fmt::format("torch.{}storage", type.name)) return type;
    fail("{}: it holds elements of the unknown type {}", source_, printable(name));
  }

  void read_tensors() {
    for (const PickleValue& value : pickle_.values())
      if (value.is(Kind::call))
        check(std::ranges::find(allowed_calls, value.items[0]->name) != std::end(allowed_calls),
              "{}: it wants to call {}, which is no part of a tensor; Linnet runs nothing of a file", source_,
              printable(value.items[0]->name));
    check(pickle_.root().is(Kind::dictionary), "{}: it holds {} instead of a dictionary of tensors", source_,
          describe(pickle_.root()));
    visit(pickle_.root(), "", 0);
    check(!file_.names_.empty(), "{}: there are no tensors in it", source_);
  }

  // Dictionaries are followed a few levels down: checkpoints nest no deeper, hostile files might.
  void visit(const PickleValue& dictionary, const std::string& prefix, int depth) {
    for (size_t i = 0; i + 1 < dictionary.items.size(); i += 2) {
      const PickleValue &key = *dictionary.items[i], &value = *dictionary.items[i + 1];
      check(++visited_ <= 1'000'000, "{}: there are too many entries in it", source_);
      if (!key.is(Kind::text)) continue;
      check(prefix.size() + key.text.size() <= longest_name, "{}: the name '{}' in it is too long", source_,
            printable(key.text));
      const std::string name = prefix + std::string(key.text);
      if (value.is(Kind::dictionary) && depth < 3)
        visit(value, name + "/", depth + 1);
      else if (const PickleValue* tensor = tensor_call(value))
        add(name, *tensor);
    }
  }

  // The call that rebuilds a tensor, within that of a parameter or not; null if value is neither.
  static const PickleValue* tensor_call(const PickleValue& value) {
    if (!value.is(Kind::call)) return nullptr;
    if (value.items[0]->name == rebuild_tensor) return &value;
    const auto& arguments = value.items[1]->items;
    const bool parameter =
        value.items[0]->name == rebuild_parameter || value.items[0]->name == rebuild_with_state;
    if (!parameter || arguments.empty() || arguments[0] == &value || !arguments[0]->is(Kind::call))
      return nullptr;
    return arguments[0]->items[0]->name == rebuild_tensor ? arguments[0] : nullptr;
  }

  std::vector<int64_t> numbers(const PickleValue& value, const std::string& name) const {
    std::vector<int64_t> result;
    bool fits = value.is(Kind::tuple) && value.items.size() <= Shape::max_rank;
    for (const PickleValue* item : value.items) {
      fits = fits && item->is(Kind::integer) && item->integer >= 0 && item->integer < (int64_t{1} << 60);
      if (fits) result.push_back(item->integer);
    }
    check(fits, "{}: tensor '{}' has an impossible shape", source_, printable(name));
    return result;
  }

  void add(const std::string& name, const PickleValue& call) {
    name_bytes_ += name.size();
    check(name_bytes_ <= most_name_bytes, "{}: the names in it are too long, all together", source_);
    const auto& arguments = call.items[1]->items;  // storage, offset, shape, strides, wants a gradient, hooks
    const bool fits = arguments.size() >= 4 && arguments[0]->is(Kind::persistent) &&
                      arguments[1]->is(Kind::integer) && arguments[1]->integer >= 0;
    check(fits, "{}: tensor '{}' is damaged", source_, printable(name));
    const Identifier storage = read_identifier(*arguments[0]);
    TorchFile::Entry entry;
    entry.dtype_name = storage.type.name;
    entry.dtype = storage.type.dtype;
    try {
      entry.shape = Shape(numbers(*arguments[2], name));
    } catch (const Error&) {
      fail("{}: tensor '{}' has an impossible shape", source_, printable(name));
    }
    entry.strides = numbers(*arguments[3], name);
    entry.offset = static_cast<size_t>(arguments[1]->integer);
    entry.storage = find_storage_(storage.key, storage.type, storage.count);
    if (is_expanded(entry)) return;
    check_bounds(name, entry, entry.storage.size() / storage.type.bytes);
    check(file_.entries_.emplace(name, entry).second, "{}: tensor '{}' is in it twice", source_,
          printable(name));
    file_.names_.push_back(name);
  }

  // One element in many places is no weight, and may be more than the file is large.
  static bool is_expanded(const TorchFile::Entry& entry) {
    const size_t rank = std::min(entry.strides.size(), static_cast<size_t>(entry.shape.rank()));
    for (size_t i = 0; i < rank; ++i)
      if (entry.strides[i] == 0 && entry.shape[static_cast<int>(i)] > 1) return true;
    return false;
  }

  void check_bounds(const std::string& name, const TorchFile::Entry& entry, uint64_t elements) const {
    check(entry.strides.size() == static_cast<size_t>(entry.shape.rank()),
          "{}: tensor '{}' has {} strides for shape {}", source_, printable(name), entry.strides.size(),
          to_string(entry.shape));
    uint64_t furthest = entry.offset;
    bool inside = furthest <= elements;
    for (int i = 0; i < entry.shape.rank() && inside; ++i) {
      if (entry.shape[i] == 0) return;
      const auto steps = static_cast<uint64_t>(entry.shape[i] - 1),
                 stride = static_cast<uint64_t>(entry.strides[static_cast<size_t>(i)]);
      inside = steps == 0 || stride <= elements / steps;
      if (inside) furthest += steps * stride;
      inside = inside && furthest <= elements;
    }
    // Elements used more than once (a stride of 0) may make a tensor larger than the file; no weight is like
    // that.
    inside = inside && furthest < elements && static_cast<uint64_t>(entry.shape.numel()) <= elements;
    check(inside, "{}: tensor '{}' of shape {} lies outside its storage", source_, printable(name),
          to_string(entry.shape));
  }

  std::span<const std::byte> bytes_;
  const std::string& source_;
  TorchFile file_;
  Pickle pickle_;
  std::function<std::span<const std::byte>(std::string_view key, const ElementType& type, uint64_t count)>
      find_storage_;
  int64_t visited_ = 0;
  size_t name_bytes_ = 0;
};

bool TorchFile::is_torch_file(std::span<const std::byte> bytes) {
  return is_zip(bytes) || (bytes.size() >= legacy_magic.size() &&
                           std::memcmp(bytes.data(), legacy_magic.data(), legacy_magic.size()) == 0);
}

TorchFile TorchFile::open(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return from_memory(file->bytes(), file, printable(path.string()));
}

TorchFile TorchFile::from_memory(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                 const std::string& source) {
  check(is_torch_file(bytes), "{}: this is no PyTorch file", source);
  return TorchFileReader(bytes, std::move(owner), source).read();
}

const TorchFile::Entry& TorchFile::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  check(found != entries_.end(), "{}: there is no tensor '{}'", source_, printable(name));
  return found->second;
}

namespace {

bool is_dense(const TorchFile::Entry& entry) {
  int64_t expected = 1;
  for (int i = entry.shape.rank() - 1; i >= 0; --i) {
    if (entry.shape[i] != 1 && entry.strides[static_cast<size_t>(i)] != expected) return false;
    expected *= entry.shape[i];
  }
  return true;
}

// Copies dimension `d` and all after it, from elements `at` on.
void gather(const TorchFile::Entry& entry, size_t bytes, int d, size_t at, std::byte*& out) {
  if (d == entry.shape.rank()) {
    std::memcpy(out, entry.storage.data() + at * bytes, bytes);
    out += bytes;
    return;
  }
  const auto stride = static_cast<size_t>(entry.strides[static_cast<size_t>(d)]);
  for (int64_t i = 0; i < entry.shape[d]; ++i)
    gather(entry, bytes, d + 1, at + static_cast<size_t>(i) * stride, out);
}

}  // namespace

Tensor TorchFile::tensor(std::string_view name) const {
  const Entry& e = entry(name);
  check(e.dtype.has_value(), "{}: tensor '{}' has the element type {}, which Linnet does not read", source_,
        printable(name), e.dtype_name);
  const size_t bytes = size_of(*e.dtype);
  const std::byte* const data = e.storage.data() + e.offset * bytes;
  if (e.shape.numel() > 0 && is_dense(e) && reinterpret_cast<uintptr_t>(data) % bytes == 0)
    return Tensor::borrow(data, e.shape, *e.dtype, owner_);
  Tensor copy = Tensor::empty(e.shape, *e.dtype);
  if (e.shape.numel() == 0) return copy;
  auto* out = static_cast<std::byte*>(copy.mutable_raw());
  if (is_dense(e))
    std::memcpy(out, data, copy.bytes());
  else
    gather(e, bytes, 0, e.offset, out);
  return copy;
}

}  // namespace linnet
