#include "io/captions.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "io/file.h"
#include "io/image.h"
#include "io/text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

struct Listing {
  const char *file, *picture_key, *caption_key;
};
constexpr Listing listings[] = {{"captions.jsonl", "file", "caption"}, {"metadata.jsonl", "file_name", "text"}};

// Null if there is none.
const Listing* find_listing(const fs::path& folder) {
  const auto* found =
      std::ranges::find_if(listings, [&](const Listing& l) { return is_there(folder / l.file); });
  return found == std::end(listings) ? nullptr : found;
}

bool stays_inside(const fs::path& path) {
  return path.is_relative() && std::ranges::none_of(path, [](const fs::path& part) { return part == ".."; });
}

std::vector<CaptionedPicture> read_listing(const fs::path& folder, const Listing& listing) {
  constexpr size_t limit = size_t{4} << 30;
  const fs::path path = folder / listing.file;
  std::istringstream lines(read_text_file(path, limit));
  std::vector<CaptionedPicture> pictures;
  int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (std::ranges::all_of(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; })) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    const auto text = [&](const char* key) -> const std::string* {
      return json.is_object() && json.contains(key) ? json[key].get_ptr<const std::string*>() : nullptr;
    };
    const std::string *file = text(listing.picture_key), *caption = text(listing.caption_key);
    check(file && caption, "{}, line {}: it is no JSON object with the texts \"{}\" and \"{}\"",
          printable(path.string()), number, listing.picture_key, listing.caption_key);
    check(stays_inside(*file), "{}, line {}: \"{}\" lies outside the folder", printable(path.string()), number,
          printable(*file));
    pictures.push_back({folder / *file, *caption});
  }
  return pictures;
}

fs::path text_beside(const fs::path& picture) { return fs::path(picture).replace_extension(".txt"); }

// Links that lead nowhere are taken, picture and text: that they cannot be read is for the reader to say.
bool is_captioned(const fs::directory_entry& entry) {
  if (!image_format(entry) || is_hidden(entry) || is_folder(entry)) return false;
  std::error_code ignored;
  return fs::exists(fs::symlink_status(text_beside(entry), ignored));
}

std::vector<CaptionedPicture> read_neighbours(const fs::path& folder) {
  constexpr size_t limit = 1'000'000;
  std::vector<CaptionedPicture> pictures;
  for (const fs::directory_entry& entry : entries_of(folder)) {
    if (!is_captioned(entry)) continue;
    CaptionedPicture& picture = pictures.emplace_back(CaptionedPicture{entry.path(), {}});
    try {
      picture.caption = read_text_file(text_beside(entry), limit);
    } catch (const Error& error) {
      picture.fault = error.what();
    }
  }
  std::ranges::sort(pictures, {}, &CaptionedPicture::path);
  return pictures;
}

}  // namespace

bool lists_captions(const fs::path& folder) { return find_listing(folder) != nullptr; }

bool holds_captions(const fs::path& folder) {
  return lists_captions(folder) ||
         std::ranges::any_of(entries_of(folder), [](const auto& entry) { return is_captioned(entry); });
}

std::vector<CaptionedPicture> read_captions(const fs::path& folder) {
  check_told(folder);
  check(is_folder(folder), "{}: there is no such folder of pictures", printable(folder.string()));
  const Listing* listing = find_listing(folder);
  auto pictures = listing ? read_listing(folder, *listing) : read_neighbours(folder);
  check(!pictures.empty(),
        "{}: there are no pictures with texts here: a captions.jsonl with lines of \"file\" and \"caption\", "
        "or a .txt "
        "beside each picture",
        printable(folder.string()));
  for (CaptionedPicture& picture : pictures)
    if (const std::string fault = fault_of_text(picture.caption); !fault.empty())
      picture.fault = "its text " + fault;
  return pictures;
}

}  // namespace linnet
