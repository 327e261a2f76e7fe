// Writes the data set `shapes` as files. What a scene is: shapes.cpp.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/parallel.h"
#include "core/printable.h"
#include "io/file.h"
#include "io/shapes.h"

namespace linnet {
namespace {

std::string file_of(const Scene& scene, int64_t index) {
  const auto name = static_cast<size_t>(scene.colour * shape_count + scene.shape);
  return fmt::format("{}/{:06}.png", class_names()[name], index);
}

std::string caption_line(const Scene& scene, int64_t index) {
  nlohmann::ordered_json line;
  line["file"] = file_of(scene, index);
  line["class"] = class_names()[static_cast<size_t>(scene.colour * shape_count + scene.shape)];
  line["caption"] = caption(scene);
  line["scene"] = {{"cx", scene.cx},
                   {"cy", scene.cy},
                   {"radius", scene.radius},
                   {"angle", scene.angle},
                   {"fill", scene.fill},
                   {"background_from", scene.background_from},
                   {"background_to", scene.background_to},
                   {"gradient_angle", scene.gradient_angle}};
  return line.dump() + "\n";
}

void make_class_folders(const std::filesystem::path& dir, int64_t count) {
  for (int64_t i = 0; i < std::min<int64_t>(count, shapes_class_count); ++i)
    make_folder(dir / class_names()[static_cast<size_t>(i)]);
}

}  // namespace

void prepare_data_set(const std::filesystem::path& dir, int64_t count, int64_t size) {
  if (count <= 0) throw UsageError(fmt::format("a data set of {} pictures cannot be made", count));
  if (size < 16 || size > 2048)
    throw UsageError(fmt::format("pictures are 16 to 2048 pixels wide, not {}", size));
  if (is_there(dir)) {
    if (!is_folder(dir)) throw UsageError(fmt::format("{} is not a folder", printable(dir.string())));
    if (!entries_of(dir).empty())
      throw UsageError(fmt::format("{} is not empty; choose a new folder", printable(dir.string())));
  }
  make_folder(dir);
}

void write_data_set(const std::filesystem::path& dir, int64_t count, int64_t size, uint64_t seed,
                    const std::function<void(int64_t)>& progress) {
  prepare_data_set(dir, count, size);
  make_class_folders(dir, count);
  constexpr int64_t batch = 256;  // pictures between two calls of progress
  for (int64_t first = 0; first < count; first += batch) {
    const int64_t here = std::min(batch, count - first);
    parallel_for(here, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = first + begin; i < first + end; ++i) {
        const Scene scene = scene_of(seed, i);
        write_image(dir / file_of(scene, i), render(scene, size), {}, {}, Durability::replaceable);
      }
    });
    if (progress) progress(first + here);
  }
  write_file_atomically(dir / "captions.jsonl", [&](std::FILE* file) {
    for (int64_t i = 0; i < count; ++i) {
      const std::string line = caption_line(scene_of(seed, i), i);
      write_bytes(file, line.data(), line.size());
    }
  });
}

}  // namespace linnet
