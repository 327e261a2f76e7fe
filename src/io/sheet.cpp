#include "io/sheet.h"

#include <algorithm>

namespace linnet {
namespace {

void paste(const Image& image, int64_t scale, Image& sheet, int64_t left, int64_t top) {
  for (int64_t y = 0; y < image.height * scale; ++y)
    for (int64_t x = 0; x < image.width * scale; ++x)
      std::copy_n(image.at(x / scale, y / scale), 3, sheet.at(left + x, top + y));
}

}  // namespace

Image contact_sheet(std::span<const Image> images, int columns, int gap, int scale) {
  check(!images.empty(), "no pictures for a contact sheet");
  check(columns > 0 && gap >= 0 && scale >= 0,
        "a contact sheet of {} columns, gap {} and scale {} is impossible", columns, gap, scale);
  int64_t width = 1, height = 1;
  for (const Image& image : images) {
    width = std::max(width, image.width);
    height = std::max(height, image.height);
  }
  const int64_t side = std::max(width, height),
                times = scale > 0 ? scale : std::max<int64_t>(1, (95 + side) / side);
  const auto count = static_cast<int64_t>(images.size()), across = std::min<int64_t>(columns, count);
  const int64_t step_x = width * times + gap, step_y = height * times + gap;
  const int64_t sheet_width = across * step_x + gap,
                sheet_height = (count + across - 1) / across * step_y + gap;
  check(sheet_width <= max_image_side && sheet_height <= max_image_side &&
            sheet_width * sheet_height <= max_image_pixels,
        "a contact sheet of {} x {} pixels is too large", sheet_width, sheet_height);
  Image sheet = blank_image(sheet_width, sheet_height, 246, 246, 244);
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<size_t>(i)];
    paste(image, times, sheet, gap + i % across * step_x + (width - image.width) * times / 2,
          gap + i / across * step_y + (height - image.height) * times / 2);
  }
  return sheet;
}

}  // namespace linnet
