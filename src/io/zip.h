// Zip archives whose files are stored, not compressed, as PyTorch writes them: found by the central directory,
// each file a view of the archive's memory. Zip64 included. Format: PKWARE's APPNOTE.TXT 6.3.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace linnet {

using ZipFiles = std::map<std::string, std::span<const std::byte>, std::less<>>;

/// True if the bytes begin as a zip archive does.
bool is_zip(std::span<const std::byte> archive);

/// All files by name. Throws Error, one sentence beginning with source, when the directory is damaged, a file
/// lies outside the archive, is compressed or encrypted, has two names, or shares bytes with another, or a name
/// appears twice.
ZipFiles read_zip(std::span<const std::byte> archive, const std::string& source);

}  // namespace linnet
