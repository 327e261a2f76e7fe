// The two things that Linnet wants of a picture's Exif data: which way up it goes, and a comment. JPEG and WebP
// have no text entries of their own, so what PNG says in entries is there one JSON object in that comment.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace linnet {

struct Exif {
  int orientation = 1;  ///< 1 to 8, as Exif 2.3 counts them (tag 0x0112); 1 is upright
  std::string comment;  ///< UserComment (tag 0x9286), if it is in ASCII
};

/// What is damaged counts as not there: a picture is no worse for it.
Exif parse_exif(std::span<const std::byte> tiff);

/// Exif data that hold nothing but an ASCII comment.
std::string make_exif(const std::string& comment);

/// Text entries as an ASCII comment, and back; what is no such comment gives no entries.
std::string comment_of(const std::map<std::string, std::string>& text);
std::map<std::string, std::string> text_of(const std::string& comment);

}  // namespace linnet
