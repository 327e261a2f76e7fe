#include "io/picture_set.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "io/file.h"
#include "io/image.h"
#include "io/tar.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr size_t most_picture_bytes = size_t{1} << 30;
constexpr size_t most_waiting = 4096;  // keys of a tar file whose picture or class has not come yet

bool is_tar(const fs::path& path) {
  const std::string name = lower_case(path.filename().string());
  return name.ends_with(".tar") || name.ends_with(".tar.gz") || name.ends_with(".tgz") ||
         name.ends_with(".tar.zst");
}

std::optional<int64_t> class_from(std::span<const std::byte> bytes) {
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  int64_t label = -1;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), label);
  const bool whole = problem == std::errc() && end == text.data() + text.size();
  return whole && label >= 0 && label < (1 << 20) ? std::optional(label) : std::nullopt;
}

// "a/b/key.jpg" → "a/b/key" and ".jpg": a key ends at the first point of the name.
std::pair<std::string, std::string> split_key(const std::string& name) {
  const size_t slash = name.rfind('/'), begin = slash == std::string::npos ? 0 : slash + 1;
  const size_t point = std::min(name.find('.', begin), name.size());
  return {name.substr(0, point), lower_case(name.substr(point))};
}

// Puts pictures and classes of one tar file together, whichever comes first.
class Pairing {
 public:
  Pairing(std::string tar, const PictureSet::OnPicture& on_picture, const PictureSet::OnBroken& on_broken)
      : tar_(std::move(tar)), on_picture_(on_picture), on_broken_(on_broken) {}

  void take(const std::string& name, std::span<const std::byte> bytes) {
    const auto [key, extension] = split_key(name);
    const bool picture = image_format(name).has_value();
    if (!picture && extension != ".cls") return;
    check(waiting_.size() < most_waiting, "{}: pictures and classes lie too far apart", tar_);
    Waiting& waiting = waiting_[key];
    if (picture) {
      waiting.name = name;
      waiting.bytes.assign(bytes.begin(), bytes.end());
    } else {
      waiting.label = class_from(bytes);
      waiting.has_label = true;
    }
    if (waiting.name.empty() || !waiting.has_label) return;
    finish(waiting);
    waiting_.erase(key);
  }
  // What still waits when the file ends.
  void finish() {
    for (const auto& [key, waiting] : waiting_)
      if (!waiting.name.empty()) on_broken_(tar_ + ": " + waiting.name, "it has no class");
  }

 private:
  struct Waiting {
    std::string name;
    std::vector<std::byte> bytes;
    bool has_label = false;
    std::optional<int64_t> label;
  };

  void finish(Waiting& waiting) {
    const std::string name = tar_ + ": " + waiting.name;
    if (waiting.label)
      on_picture_({name, std::move(waiting.bytes), *waiting.label});
    else
      on_broken_(name, "its class is no whole number");
  }

  std::string tar_;
  const PictureSet::OnPicture& on_picture_;
  const PictureSet::OnBroken& on_broken_;
  std::map<std::string, Waiting> waiting_;
};

}  // namespace

PictureSet PictureSet::open(const fs::path& root, int64_t pictures_a_part) {
  check(fs::is_directory(root), "{}: there is no such folder of pictures", printable(root.string()));
  PictureSet result;
  result.root_ = root;
  result.pictures_a_part_ = pictures_a_part;
  std::set<fs::path> folders, tars;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.is_directory()) folders.insert(entry.path());
    if (entry.is_regular_file() && is_tar(entry.path())) tars.insert(entry.path());
  }
  result.tars_.assign(tars.begin(), tars.end());
  if (!tars.empty()) return result;
  for (const fs::path& folder : folders) {
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.is_regular_file() && image_format(entry.path())) files.insert(entry.path());
    for (const fs::path& file : files)
      result.files_.push_back({file, static_cast<int64_t>(result.class_names_.size())});
    result.class_names_.push_back(folder.filename().string());
  }
  check(!result.files_.empty(), "{}: there are neither tar files nor pictures in class sub-folders here",
        printable(root.string()));
  return result;
}

int64_t PictureSet::parts() const {
  if (!tars_.empty()) return static_cast<int64_t>(tars_.size());
  return (count() + pictures_a_part_ - 1) / pictures_a_part_;
}

std::string PictureSet::fingerprint() const {
  uint64_t hash = static_cast<uint64_t>(tars_.empty() ? pictures_a_part_ : 0);
  const auto add = [&](const fs::path& path) {
    for (const char c : fs::relative(path, root_).string()) hash = mix(hash, static_cast<unsigned char>(c));
    std::error_code ignored;
    hash = mix(hash, static_cast<uint64_t>(fs::file_size(path, ignored)));
  };
  for (const fs::path& tar : tars_) add(tar);
  for (const File& file : files_) add(file.path);
  return fmt::format("{:016x}", hash);
}

void PictureSet::read(int64_t part, const OnPicture& on_picture, const OnBroken& on_broken) const {
  check(part >= 0 && part < parts(), "there is no part {} of {}", part, parts());
  if (!tars_.empty()) {
    const fs::path& tar = tars_[static_cast<size_t>(part)];
    Pairing pairing(printable(tar.string(), 4096), on_picture, on_broken);
    read_tar(tar, most_picture_bytes,
             [&](const std::string& name, std::span<const std::byte> bytes) { pairing.take(name, bytes); });
    return pairing.finish();
  }
  const int64_t end = std::min(count(), (part + 1) * pictures_a_part_);
  for (int64_t i = part * pictures_a_part_; i < end; ++i) {
    const File& file = files_[static_cast<size_t>(i)];
    StoredPicture picture{file.path.string(), {}, file.label};
    try {
      const auto mapped = MappedFile::open(file.path);
      picture.bytes.assign(mapped->bytes().begin(), mapped->bytes().end());
    } catch (const Error& error) {
      on_broken(picture.name, error.what());
      continue;
    }
    on_picture(std::move(picture));
  }
}

}  // namespace linnet
