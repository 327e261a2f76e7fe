#include "io/picture_set.h"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <future>
#include <list>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "io/captions.h"
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

uint64_t hash_samples(const fs::path& path) {
  const std::string bytes = sample_file(path);
  uint64_t hash = bytes.size();
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min(sizeof word, bytes.size() - at));
    hash = mix(hash, word);
  }
  return hash;
}

// Calls look(i) for each of 0..n, in more threads than there are processors: they wait for the disk.
void look_at_each(int64_t n, const std::function<void(size_t i)>& look,
                  const PictureSet::OnChecked& on_checked) {
  constexpr int readers = 16;
  constexpr int64_t block = 256;  // files between two calls of on_checked
  for (int64_t first = 0; first < n; first += block) {
    const int64_t end = std::min(n, first + block);
    std::atomic next = first;
    std::vector<std::future<void>> running;
    // Where no thread is to be had, the work is done where it is waited for.
    for (int i = 0; i < std::min<int64_t>(readers, end - first); ++i)
      running.push_back(std::async(std::launch::async | std::launch::deferred, [&] {
        for (int64_t file = next++; file < end; file = next++) look(static_cast<size_t>(file));
      }));
    for (std::future<void>& reader : running) reader.get();
    if (on_checked) on_checked(end, n);
  }
}

// Each folder once, whatever links to it.
void add_pictures_below(const fs::path& folder, std::set<fs::path>& seen, std::set<fs::path>& files) {
  std::error_code ignored;
  if (!seen.insert(fs::weakly_canonical(folder, ignored)).second) return;
  for (const fs::directory_entry& entry : entries_of(folder)) {
    if (is_hidden(entry)) continue;
    if (is_folder(entry))
      add_pictures_below(entry, seen, files);
    else if (image_format(entry))
      files.insert(entry.path());
  }
}

std::set<fs::path> folders_in(const fs::path& root) {
  std::set<fs::path> folders;
  for (const fs::directory_entry& entry : entries_of(root))
    if (is_folder(entry) && !is_hidden(entry)) folders.insert(entry.path());
  return folders;
}

// Puts pictures and classes, or texts, of one tar file together, whichever comes first.
class Pairing {
 public:
  Pairing(std::string tar, PictureNotes notes, const PictureSet::OnPicture& on_picture,
          const PictureSet::OnBroken& on_broken)
      : tar_(std::move(tar)), captions_(notes == PictureNotes::captions), on_picture_(on_picture),
        on_broken_(on_broken) {}

  void take(const std::string& name, std::span<const std::byte> bytes) {
    const auto [key, extension] = split_key(name);
    const bool picture = image_format(name).has_value() && extension.rfind('.') == 0;  // and no "key.mask.png"
    if (!picture && extension != (captions_ ? ".txt" : ".cls")) return;
    Waiting& waiting = waiting_for(key);
    if (picture && !waiting.name.empty())
      return on_broken_(tar_ + ": " + name, "there is another picture of this key");
    if (picture) {
      waiting.name = name;
      waiting.bytes.assign(bytes.begin(), bytes.end());
    } else {
      if (captions_)
        waiting.caption.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      else
        waiting.label = class_from(bytes);
      waiting.has_note = true;
    }
    if (waiting.name.empty() || !waiting.has_note) return;
    finish(waiting);
    forget(key);
  }
  // What still waits when the file ends.
  void finish() {
    for (const auto& [key, waiting] : waiting_)
      leave_out(waiting, captions_ ? "it has no text" : "it has no class");
  }

 private:
  struct Waiting {
    std::string name;
    std::vector<std::byte> bytes;
    bool has_note = false;
    std::optional<int64_t> label;
    std::string caption;
    std::list<std::string>::iterator turn;
  };

  // What waits under a key. When there are too many, the one that has waited longest makes room.
  Waiting& waiting_for(const std::string& key) {
    const auto found = waiting_.find(key);
    if (found != waiting_.end()) return found->second;
    if (waiting_.size() == most_waiting) {
      const std::string oldest = turns_.front();
      leave_out(waiting_[oldest],
                captions_ ? "its text lies too far from it" : "its class lies too far from it");
      forget(oldest);
    }
    Waiting& waiting = waiting_[key];
    waiting.turn = turns_.insert(turns_.end(), key);
    return waiting;
  }
  void forget(const std::string& key) {
    turns_.erase(waiting_[key].turn);
    waiting_.erase(key);
  }
  // A class or a text alone is no loss.
  void leave_out(const Waiting& waiting, const char* why) const {
    if (!waiting.name.empty()) on_broken_(tar_ + ": " + waiting.name, why);
  }

  void finish(Waiting& waiting) {
    const std::string name = tar_ + ": " + waiting.name;
    if (const std::string fault = fault_of_text(waiting.caption); captions_ && !fault.empty())
      on_broken_(name, "its text " + fault);
    else if (captions_)
      on_picture_({name, std::move(waiting.bytes), 0, std::move(waiting.caption)});
    else if (waiting.label)
      on_picture_({name, std::move(waiting.bytes), *waiting.label});
    else
      on_broken_(name, "its class is no whole number");
  }

  std::string tar_;
  bool captions_;
  const PictureSet::OnPicture& on_picture_;
  const PictureSet::OnBroken& on_broken_;
  std::map<std::string, Waiting> waiting_;
  std::list<std::string> turns_;  // their keys, in the order of their coming
};

}  // namespace

std::vector<fs::path> pictures_below(const fs::path& folder) {
  std::set<fs::path> seen, files;
  add_pictures_below(folder, seen, files);
  return {files.begin(), files.end()};
}

std::vector<PicturesOfClass> pictures_by_class(const fs::path& root) {
  check_told(root);
  check(is_folder(root), "{}: there is no such folder of pictures", printable(root.string()));
  std::vector<PicturesOfClass> classes;
  for (const fs::path& folder : folders_in(root)) {
    classes.push_back({folder.filename().string(), pictures_below(folder)});
    check(is_utf8(classes.back().name), "{}: this folder's name, which names a class, is not UTF-8",
          printable(folder.string()));
    check(!classes.back().pictures.empty(),
          "{}: there is no PNG, JPEG or WebP picture in this folder, which names a class",
          printable(folder.string()));
  }
  return classes;
}

PictureSet PictureSet::open(const fs::path& root, int64_t pictures_a_part, PictureNotes notes) {
  check_told(root);
  check(is_folder(root), "{}: there is no such folder of pictures", printable(root.string()));
  PictureSet result;
  result.root_ = root;
  result.pictures_a_part_ = pictures_a_part;
  result.notes_ = notes;
  std::set<fs::path> tars;
  for (const fs::directory_entry& entry : entries_of(root))
    if (is_tar(entry) && !is_hidden(entry) && (is_file(entry) || !is_there(entry))) tars.insert(entry.path());
  result.tars_.assign(tars.begin(), tars.end());
  if (!tars.empty()) {
    result.check_tars_are_all();
    return result;
  }
  if (notes == PictureNotes::classes)
    result.take_class_folders();
  else
    for (CaptionedPicture& picture : read_captions(root))
      result.files_.push_back({picture.path, 0, std::move(picture.caption), std::move(picture.fault)});
  return result;
}

// Pictures beside tar files would be left out, or a stray archive taken for all there is: it is not guessed.
void PictureSet::check_tars_are_all() const {
  const auto refuse = [this](std::string_view what) {
    fail(
        "{}: there are tar files here ({}) and {}: only one of them can be the data set; move the other "
        "elsewhere",
        printable(root_.string()), printable(tars_[0].filename().string()), what);
  };
  if (notes_ == PictureNotes::captions) {
    if (holds_captions(root_)) refuse("pictures with texts");
    return;
  }
  for (const fs::path& folder : folders_in(root_))
    if (!pictures_below(folder).empty())
      refuse(fmt::format("folders of pictures ({})", printable(folder.filename().string())));
}

void PictureSet::take_class_folders() {
  for (const auto& [name, pictures] : pictures_by_class(root_)) {
    for (const fs::path& file : pictures) files_.push_back({file, static_cast<int64_t>(class_names_.size())});
    class_names_.push_back(name);
  }
  check(!files_.empty(), "{}: there are neither tar files nor pictures in class sub-folders here",
        printable(root_.string()));
}

int64_t PictureSet::parts() const {
  if (!tars_.empty()) return static_cast<int64_t>(tars_.size());
  return (count() + pictures_a_part_ - 1) / pictures_a_part_;
}

std::string PictureSet::fingerprint_of_files(const std::vector<uint64_t>& sizes) const {
  uint64_t hash = static_cast<uint64_t>(tars_.empty() ? pictures_a_part_ : 0);
  const auto add_text = [&hash](const std::string& text) {
    for (const char c : text) hash = mix(hash, static_cast<unsigned char>(c));
  };
  size_t index = 0;
  const auto add = [&](const fs::path& path) {
    add_text(path.lexically_relative(root_).string());
    hash = mix(hash, sizes[index++]);
  };
  for (const fs::path& tar : tars_) add(tar);
  for (const File& file : files_) {
    add(file.path);
    hash = mix(hash, static_cast<uint64_t>(file.label));
    add_text(file.caption);
  }
  for (const std::string& name : class_names_) add_text(name + '/');
  return fmt::format("{:016x}", hash);
}

PictureSet::Fingerprints PictureSet::fingerprints(const OnChecked& on_checked) const {
  const size_t tars = tars_.size(), count = tars + files_.size();
  std::vector<uint64_t> sizes(count), hashes(count);
  const auto look = [&](size_t i) {
    const fs::path& path = i < tars ? tars_[i] : files_[i - tars].path;
    std::error_code ignored;
    sizes[i] = static_cast<uint64_t>(fs::file_size(path, ignored));
    hashes[i] = hash_samples(path);
  };
  look_at_each(static_cast<int64_t>(count), look, on_checked);
  uint64_t contents = 0;
  for (const uint64_t each : hashes) contents = mix(contents, each);
  return {fingerprint_of_files(sizes), fmt::format("{:016x}", contents)};
}

void PictureSet::read(int64_t part, const OnPicture& on_picture, const OnBroken& on_broken) const {
  check(part >= 0 && part < parts(), "there is no part {} of {}", part, parts());
  if (!tars_.empty()) {
    const fs::path& tar = tars_[static_cast<size_t>(part)];
    Pairing pairing(printable(tar.string(), 4096), notes_, on_picture, on_broken);
    read_tar(tar, most_picture_bytes,
             [&](const std::string& name, std::span<const std::byte> bytes) { pairing.take(name, bytes); });
    return pairing.finish();
  }
  const int64_t end = std::min(count(), (part + 1) * pictures_a_part_);
  for (int64_t i = part * pictures_a_part_; i < end; ++i) {
    const File& file = files_[static_cast<size_t>(i)];
    StoredPicture picture{file.path.string(), {}, file.label, file.caption};
    if (!file.fault.empty()) {
      on_broken(picture.name, file.fault);
      continue;
    }
    try {
      // Not mapped: nobody may cut a picture short while it is copied.
      const std::string bytes = read_text_file(file.path, most_picture_bytes);
      check(!bytes.empty(), "{}: the file is empty", printable(picture.name));
      const auto all = std::as_bytes(std::span(bytes));
      picture.bytes.assign(all.begin(), all.end());
    } catch (const Error& error) {
      on_broken(picture.name, error.what());
      continue;
    }
    on_picture(std::move(picture));
  }
}

}  // namespace linnet
