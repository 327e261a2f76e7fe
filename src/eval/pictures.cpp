#include "eval/pictures.h"

#include <algorithm>

#include "core/naming.h"
#include "core/parallel.h"
#include "core/printable.h"
#include "io/picture_set.h"
#include "io/resize.h"

namespace linnet {

namespace fs = std::filesystem;

std::vector<fs::path> pictures_in(const fs::path& dir) {
  std::vector<fs::path> paths = pictures_below(dir);
  check(!paths.empty(), "there is no PNG, JPEG or WebP picture in {}", dir.string());
  return paths;
}

int64_t read_pictures(const std::vector<fs::path>& paths, int64_t size,
                      const std::function<void(int64_t first, const Tensor& pictures)>& on_batch) {
  constexpr int64_t batch = 64;
  const auto count = static_cast<int64_t>(paths.size());
  int64_t resized = 0;
  for (int64_t first = 0; first < count; first += batch) {
    std::vector<Image> images(static_cast<size_t>(std::min(batch, count - first)));
    parallel_for(static_cast<int64_t>(images.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        images[static_cast<size_t>(i)] = read_image(paths[static_cast<size_t>(first + i)]);
    });
    for (size_t i = 0; i < images.size(); ++i) {
      Image& image = images[i];
      if (image.width == size && image.height == size) continue;
      const fs::path& path = paths[static_cast<size_t>(first) + i];
      image = naming(printable(path.string()), [&] { return center_crop(image, size); });
      ++resized;
    }
    on_batch(first, to_tensor(images));
  }
  return resized;
}

}  // namespace linnet
