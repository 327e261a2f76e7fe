#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

#include <nlohmann/json.hpp>

#include "io/text.h"

namespace linnet {
namespace {

constexpr size_t header_limit = 100'000'000;  // the format's own
constexpr size_t most_metadata = 1'100'000;   // latents of a million pictures have a text each
constexpr std::string_view metadata_key = "__metadata__";

struct FormatType {
  std::string_view name;
  size_t bytes;
  std::optional<DType> dtype;
};

// In the order of the format's library, by which it sorts. Types with less than a byte an element (F4, F6_*)
// are left out: their sizes are not checked.
constexpr FormatType format_types[] = {
    {"BOOL", 1, {}},        {"U8", 1, DType::u8},   {"I8", 1, DType::i8},   {"F8_E5M2", 1, {}},
    {"F8_E4M3", 1, {}},     {"F8_E8M0", 1, {}},     {"F8_E5M2FNUZ", 1, {}}, {"F8_E4M3FNUZ", 1, {}},
    {"I16", 2, {}},         {"U16", 2, {}},         {"F16", 2, DType::f16}, {"BF16", 2, DType::bf16},
    {"I32", 4, DType::i32}, {"U32", 4, {}},         {"F32", 4, DType::f32}, {"C64", 8, {}},
    {"F64", 8, DType::f64}, {"I64", 8, DType::i64}, {"U64", 8, {}},
};

const FormatType* find_type(std::string_view name) {
  const auto* found = std::ranges::find(format_types, name, &FormatType::name);
  return found == std::end(format_types) ? nullptr : found;
}

const FormatType* find_type(DType dtype) {
  return std::ranges::find(format_types, std::optional(dtype), &FormatType::dtype);
}

// Receives the JSON header's parts as they are parsed, so that neither depth nor size of hostile input can make
// more of it in memory than the tensors it names.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& source, SafetensorsHeader& header) : source_(source), header_(header) {}

  bool key(string_t& text) override {
    if (place_ == Place::root) {
      begin_member(text);
    } else if (place_ == Place::metadata) {
      key_ = text;
      refuse_if(header_.metadata.size() == most_metadata, "it has more than {} metadata", most_metadata);
      refuse_if(header_.metadata.contains(text), "the metadata key '{}' is there twice", printable(text));
    } else {
      begin_field(text);
    }
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::root;
    } else if (place_ == Place::root) {
      place_ = entry_ ? Place::entry : Place::metadata;
    } else {
      wrong_value("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::entry) end_entry();
    place_ = place_ == Place::root ? Place::outside : Place::root;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::entry || field_ == Field::dtype) wrong_value("a list");
    place_ = Place::list;
    return true;
  }

  bool end_array() override {
    place_ = Place::entry;
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(key_, text);
    } else if (place_ == Place::entry && field_ == Field::dtype) {
      entry_->dtype_name = text;
    } else {
      wrong_value("a string");
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::list) wrong_value("a number");
    auto& numbers = field_ == Field::shape ? extents_ : offsets_;
    const size_t limit = field_ == Field::shape ? Shape::max_rank : 2;
    refuse_if(numbers.size() == limit, "tensor '{}' has more than {} numbers in its {}", printable(name_),
              limit, field_name());
    refuse_if(value > uint64_t{INT64_MAX}, "tensor '{}' has the number {} in its {}, too large for any file",
              printable(name_), value, field_name());
    numbers.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool null() override { wrong_value("null"); }
  bool boolean(bool) override { wrong_value("a truth value"); }
  bool number_integer(number_integer_t) override { wrong_value("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { wrong_value("a number that is not whole"); }
  bool binary(binary_t&) override { wrong_value("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    refuse("the header is not valid JSON in UTF-8 at its byte {}", position);
  }

 private:
  enum class Place { outside, root, metadata, entry, list };
  enum class Field { dtype, shape, data_offsets };
  static constexpr std::array<std::string_view, 3> field_names{"dtype", "shape", "data_offsets"};

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail("{}: {}", source_, fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void refuse_if(bool wrong, fmt::format_string<Args...> format, Args&&... args) const {
    if (wrong) refuse(format, std::forward<Args>(args)...);
  }

  std::string_view field_name() const { return field_names[static_cast<size_t>(field_)]; }

  [[noreturn]] void wrong_value(std::string_view found) const {
    switch (place_) {
      case Place::outside: refuse("the header is {} where a JSON object was expected", found);
      case Place::root: refuse("'{}' is {} where an object was expected", printable(name_), found);
      case Place::metadata:
        refuse("the metadata '{}' is {} where a string was expected", printable(key_), found);
      case Place::entry:
        refuse("tensor '{}' has {} as its {} where a {} was expected", printable(name_), found, field_name(),
               field_ == Field::dtype ? "string" : "list of numbers");
      case Place::list:
        refuse("tensor '{}' has {} in its {} where a whole number was expected", printable(name_), found,
               field_name());
    }
    refuse("{} is misplaced", found);
  }

  void begin_member(const std::string& text) {
    name_ = text;
    entry_ = nullptr;
    if (text == metadata_key) {
      refuse_if(has_metadata_, "'{}' is there twice", metadata_key);
      has_metadata_ = true;
      return;
    }
    refuse_if(header_.entries.size() == most_tensors, "it has more than {} tensors", most_tensors);
    const auto [place, is_new] = header_.entries.try_emplace(text);
    refuse_if(!is_new, "tensor '{}' is there twice", printable(text));
    entry_ = &place->second;
    seen_ = {};
    extents_.clear();
    offsets_.clear();
  }

  void begin_field(const std::string& text) {
    const auto found = std::ranges::find(field_names, text);
    refuse_if(found == field_names.end(), "tensor '{}' has an unknown field '{}'", printable(name_),
              printable(text));
    const auto index = static_cast<size_t>(found - field_names.begin());
    field_ = static_cast<Field>(index);
    refuse_if(seen_[index], "tensor '{}' has two fields '{}'", printable(name_), text);
    seen_[index] = true;
  }

  void end_entry() {
    for (size_t i = 0; i < seen_.size(); ++i)
      refuse_if(!seen_[i], "tensor '{}' lacks its {}", printable(name_), field_names[i]);
    refuse_if(offsets_.size() != 2, "tensor '{}' has {} data_offsets where 2 were expected", printable(name_),
              offsets_.size());
    try {
      entry_->shape = Shape(extents_);
    } catch (const Error& error) {
      refuse("tensor '{}': {}", printable(name_), error.what());
    }
    entry_->begin = static_cast<size_t>(offsets_[0]);
    entry_->end = static_cast<size_t>(offsets_[1]);
    if (const FormatType* type = find_type(entry_->dtype_name)) entry_->dtype = type->dtype;
  }

  const std::string& source_;
  SafetensorsHeader& header_;
  Place place_ = Place::outside;
  Field field_ = Field::dtype;
  std::string name_, key_;
  SafetensorsEntry* entry_ = nullptr;  // null within the metadata
  bool has_metadata_ = false;
  std::array<bool, 3> seen_{};
  std::vector<int64_t> extents_, offsets_;
};

size_t read_header_length(std::span<const std::byte> file, const std::string& source) {
  check(file.size() >= 8, "{}: a safetensors file has at least 8 bytes, this one {}", source, file.size());
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= static_cast<uint64_t>(file[i]) << (8 * i);
  check(length <= header_limit,
        "{}: not a safetensors file (its header would be {} bytes long, the limit is {})", source, length,
        header_limit);
  check(length <= file.size() - 8, "{}: the file is cut off: its header is {} bytes long, {} are there", source,
        length, file.size() - 8);
  return static_cast<size_t>(length);
}

void check_size(const std::string& name, const SafetensorsEntry& entry, const std::string& source) {
  check(entry.begin <= entry.end, "{}: tensor '{}' ends at byte {}, before its beginning at {}", source,
        printable(name), entry.end, entry.begin);
  const FormatType* type = find_type(entry.dtype_name);
  if (!type) return;
  const size_t bytes = entry.end - entry.begin;
  check(bytes % type->bytes == 0 && bytes / type->bytes == static_cast<size_t>(entry.shape.numel()),
        "{}: tensor '{}' of shape {} and type {} does not fill the {} bytes it claims", source, printable(name),
        to_string(entry.shape), entry.dtype_name, bytes);
}

// The tensors one after the other must cover the data area exactly.
void check_cover(const SafetensorsHeader& header, size_t data_bytes, const std::string& source) {
  size_t covered = 0;
  for (const std::string& name : header.names) {
    const SafetensorsEntry& entry = header.entries.find(name)->second;
    check(entry.begin >= covered,
          "{}: tensor '{}' begins at byte {} of the data, before the last one's end at {}", source,
          printable(name), entry.begin, covered);
    check(entry.begin == covered, "{}: bytes {} to {} of the data belong to no tensor", source, covered,
          entry.begin);
    check(entry.end <= data_bytes,
          "{}: the file is cut off: tensor '{}' ends at byte {} of the data, {} are there", source,
          printable(name), entry.end, data_bytes);
    covered = entry.end;
  }
  check(covered == data_bytes, "{}: the last {} bytes belong to no tensor", source, data_bytes - covered);
}

std::vector<std::string> names_by_offset(const SafetensorsHeader& header) {
  std::vector<std::tuple<size_t, size_t, const std::string*>> order;
  for (const auto& [name, entry] : header.entries) order.emplace_back(entry.begin, entry.end, &name);
  std::ranges::stable_sort(order, {},
                           [](const auto& item) { return std::pair(std::get<0>(item), std::get<1>(item)); });
  std::vector<std::string> names;
  for (const auto& item : order) names.push_back(*std::get<2>(item));
  return names;
}

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail("the name or text '{}' is not valid UTF-8 and cannot be written to a safetensors file",
         printable(text));
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source) {
  const size_t length = read_header_length(file, source);
  const auto* text = reinterpret_cast<const char*>(file.data()) + 8;
  check(length > 0 && text[0] == '{', "{}: not a safetensors file (its header does not begin with '{{')",
        source);
  // The JSON parser takes a zero byte for the end of its input.
  check(!std::memchr(text, 0, length), "{}: the header contains a zero byte", source);
  SafetensorsHeader header;
  HeaderReader reader(source, header);
  nlohmann::json::sax_parse(text, text + length, &reader);
  header.data_begin = 8 + length;
  for (const auto& [name, entry] : header.entries) check_size(name, entry, source);
  header.names = names_by_offset(header);
  check_cover(header, file.size() - header.data_begin, source);
  return header;
}

std::vector<std::string> list_in_metadata(const std::map<std::string, std::string>& metadata,
                                          const std::string& key, const std::string& source) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return {};
  const auto json = nlohmann::json::parse(found->second, nullptr, false);
  const bool texts = json.is_array() &&
                     std::all_of(json.begin(), json.end(), [](const auto& entry) { return entry.is_string(); });
  check(texts, "{}: its metadata \"{}\" are no list of texts", source, key);
  return json.get<std::vector<std::string>>();
}

void sort_for_safetensors(std::vector<TensorToWrite>& tensors) {
  std::ranges::stable_sort(tensors, [](const auto& a, const auto& b) {
    const FormatType *left = find_type(a.dtype), *right = find_type(b.dtype);
    return left != right ? left > right : a.name < b.name;
  });
}

std::string make_safetensors_header(const std::vector<TensorToWrite>& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> members;
  if (!metadata.empty()) {
    std::vector<std::string> pairs;
    for (const auto& [key, value] : metadata) pairs.push_back(json_string(key) + ":" + json_string(value));
    members.push_back(fmt::format("\"{}\":{{{}}}", metadata_key, fmt::join(pairs, ",")));
  }
  check(tensors.size() <= most_tensors, "a safetensors file has at most {} tensors, not {}", most_tensors,
        tensors.size());
  std::map<std::string_view, int> seen;
  size_t begin = 0;
  for (const TensorToWrite& tensor : tensors) {
    check(tensor.name != metadata_key, "a tensor cannot be called '{}' in a safetensors file", metadata_key);
    check(++seen[tensor.name] == 1, "two tensors are called '{}'", printable(tensor.name));
    const size_t end = begin + tensor.bytes();
    members.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_string(tensor.name), find_type(tensor.dtype)->name,
                                  fmt::join(tensor.shape, ","), begin, end));
    begin = end;
  }
  std::string json = fmt::format("{{{}}}", fmt::join(members, ","));
  json.resize((json.size() + 7) / 8 * 8, ' ');
  check(json.size() <= header_limit, "a safetensors header of {} bytes exceeds the format's limit of {}",
        json.size(), header_limit);
  std::string result;
  for (int i = 0; i < 8; ++i) result += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return result + json;
}

}  // namespace linnet
