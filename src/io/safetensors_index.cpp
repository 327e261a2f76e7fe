// Models in several safetensors files: the index, and TensorFiles, which hides how many files there are.
#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr size_t index_limit = 100'000'000;

// A name and nothing else: an index must not reach for files outside its folder.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         std::ranges::none_of(name, [](char c) { return c == '/' || c == '\\' || c == '\0'; });
}

// Picks "weight_map" out of an index. Everything else in it is skipped without being kept.
class IndexReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit IndexReader(const std::string& source) : source_(source) {}

  std::map<std::string, std::string> finish() {
    check(found_, "{}: the index lacks its weight_map", source_);
    return std::move(map_);
  }

  bool key(string_t& text) override {
    if (depth_ == 1) {
      in_map_ = text == "weight_map";
      check(!in_map_ || !found_, "{}: the index has two weight_maps", source_);
    } else if (in_map_) {
      name_ = text;
      check(map_.size() < most_tensors, "{}: the index names more than {} tensors", source_, most_tensors);
      check(!map_.contains(name_), "{}: tensor '{}' is there twice", source_, printable(name_));
    }
    return true;
  }

  bool string(string_t& text) override {
    if (!in_map_ || depth_ != 2) return scalar();
    check(is_plain_file_name(text), "{}: tensor '{}' is said to be in '{}', which is not a plain file name",
          source_, printable(name_), printable(text));
    map_.emplace(name_, text);
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ == 1 && in_map_) {
      found_ = true;
    } else {
      check(!in_map_, "{}: tensor '{}' has an object where a file name was expected", source_,
            printable(name_));
    }
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return leave();
  }
  bool start_array(size_t) override {
    scalar();
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return leave();
  }

  bool null() override { return scalar(); }
  bool boolean(bool) override { return scalar(); }
  bool number_integer(number_integer_t) override { return scalar(); }
  bool number_unsigned(number_unsigned_t) override { return scalar(); }
  bool number_float(number_float_t, const string_t&) override { return scalar(); }
  bool binary(binary_t&) override { return scalar(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail("{}: the index is not valid JSON in UTF-8 at byte {}", source_, position);
  }

 private:
  // Any value that is not the one that belongs here.
  bool scalar() {
    check(depth_ > 0, "{}: the index is not a JSON object", source_);
    check(!in_map_, "{}: the weight_map must map tensor names to file names", source_);
    return true;
  }
  bool leave() {
    if (depth_ <= 1) in_map_ = false;
    return true;
  }

  const std::string& source_;
  std::map<std::string, std::string> map_;
  std::string name_;
  size_t depth_ = 0;
  bool in_map_ = false, found_ = false;
};

}  // namespace

std::map<std::string, std::string> parse_safetensors_index(std::string_view text, const std::string& source) {
  check(text.find('\0') == text.npos, "{}: the index contains a zero byte", source);
  IndexReader reader(source);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.finish();
}

TensorFiles TensorFiles::open(const std::filesystem::path& path) {
  TensorFiles result;
  result.source_ = printable(path.string());
  if (path.extension() != ".json") {
    result.add(SafetensorsFile::open(path));
    for (const std::string& name : result.files_[0].names()) result.owners_.emplace(name, 0);
    result.names_ = result.files_[0].names();
    return result;
  }
  const auto index = parse_safetensors_index(read_text_file(path, index_limit), result.source_);
  std::map<std::string, size_t> shards;
  for (const auto& [name, shard] : index) shards.emplace(shard, 0);
  for (auto& [shard, position] : shards) {
    position = result.files_.size();
    result.add(SafetensorsFile::open(path.parent_path() / shard));
  }
  for (const auto& [name, shard] : index) {
    check(result.files_[shards[shard]].contains(name), "{}: tensor '{}' is not in {} as it should be",
          result.source_, printable(name), printable(shard));
    result.owners_.emplace(name, shards[shard]);
  }
  for (size_t i = 0; i < result.files_.size(); ++i)
    for (const std::string& name : result.files_[i].names())
      if (const auto found = result.owners_.find(name); found != result.owners_.end() && found->second == i)
        result.names_.push_back(name);
  return result;
}

void TensorFiles::add(SafetensorsFile file) {
  metadata_.insert(file.metadata().begin(), file.metadata().end());
  files_.push_back(std::move(file));
}

const SafetensorsFile& TensorFiles::file_of(std::string_view name) const {
  const auto found = owners_.find(name);
  check(found != owners_.end(), "{}: there is no tensor '{}'", source_, printable(name));
  return files_[found->second];
}

}  // namespace linnet
