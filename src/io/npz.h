// NumPy's .npz files, by libarchive: arrays are streamed, so that a set of pictures never needs to be in
// memory.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/tensor.h"

namespace linnet {

/// What an array's header says.
struct NpyArray {
  std::string name;            ///< "arr_0"
  std::string dtype_name;      ///< NumPy's: "|u1", "<f4"
  std::optional<DType> dtype;  ///< none if Linnet has no such type
  Shape shape;                 ///< at most four dimensions
  bool fortran_order = false;  ///< column-major: the first index varies fastest
};

/// Fills so many bytes with the next values. Throws Error when the array is shorter.
using ReadValues = std::function<void(void* into, size_t bytes)>;

/// Calls on_array for each array that is wanted, in the file's order; it may read as much of the values as it
/// wants. What else is in the file may be anything. Throws Error naming the file when it is no .npz, damaged,
/// or what is wanted is no array, or one of more than four dimensions.
void read_npz(const std::filesystem::path& path, const std::function<bool(std::string_view name)>& wants,
              const std::function<void(const NpyArray& array, const ReadValues& read)>& on_array);

/// Writes pictures (count, height, width, 3) of bytes as "arr_0", atomically; picture(i, into) gives the i-th
/// one's height·width·3 bytes.
void write_npz_pictures(const std::filesystem::path& path, int64_t count, int64_t height, int64_t width,
                        const std::function<void(int64_t i, uint8_t* into)>& picture);

}  // namespace linnet
