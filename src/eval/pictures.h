// Folders of pictures, as evaluation reads them.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace linnet {

/// Every PNG, JPEG and WebP in a folder and its sub-folders, in order. Throws Error when the folder cannot be
/// read or holds none.
std::vector<std::filesystem::path> pictures_in(const std::filesystem::path& dir);

/// Reads pictures as a network takes them: (n, 3, size, size) f32 in -1..1, batch by batch with the first one's
/// place in the list. Others than size x size are scaled so that the shorter side fits and cropped to the
/// middle, as for training. Returns how many were. Throws Error naming a picture that cannot be read.
int64_t read_pictures(const std::vector<std::filesystem::path>& paths, int64_t size,
                      const std::function<void(int64_t first, const Tensor& pictures)>& on_batch);

}  // namespace linnet
