// Folders of pictures with texts, as people keep them: a "captions.jsonl" with a line for each picture, or
// beside each picture a text file of its name.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace linnet {

struct CaptionedPicture {
  std::filesystem::path path;
  std::string caption;
  std::string fault =
      {};  ///< why the caption is none to work with: "its text is not UTF-8"; empty if it is one
};

/// True if there is a captions.jsonl or a metadata.jsonl.
bool lists_captions(const std::filesystem::path& folder);
/// True if there is either, or a picture beside which lies its text.
bool holds_captions(const std::filesystem::path& folder);

/// The lines {"file": ..., "caption": ...} of folder/captions.jsonl, or {"file_name": ..., "text": ...} of
/// folder/metadata.jsonl; without either, every picture in the folder beside which lies its name with ".txt",
/// but hidden ones; one whose text cannot be read has a fault. In the lines' or the names' order. Throws Error
/// when there are none, or a line is no such thing or names a file outside the folder.
std::vector<CaptionedPicture> read_captions(const std::filesystem::path& folder);

}  // namespace linnet
