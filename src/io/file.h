// Whole files, written so that a reader never sees half of one.
#pragma once

#include <cstdio>
#include <filesystem>
#include <functional>

namespace linnet {

/// Calls write on "<path>.partial", flushes it to disk and renames it to path. On any failure (also an
/// exception from write) the partial file is removed and path is left as it was. Throws Error naming path and
/// the reason.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(std::FILE*)>& write);

}  // namespace linnet
