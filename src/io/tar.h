// Reading tar files, also compressed ones, by libarchive.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace linnet {

/// Regular files only, in the order of the archive. bytes are valid during the call.
using OnMember = std::function<void(const std::string& name, std::span<const std::byte> bytes)>;
/// A member's name is its path inside. Throws Error naming the file when it is no tar file, damaged, or has a
/// member of more than most_bytes; what on_member throws passes through.
void read_tar(const std::filesystem::path& path, size_t most_bytes, const OnMember& on_member);

}  // namespace linnet
