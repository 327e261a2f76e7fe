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

SheetLayout layout_sheet(int64_t count, int64_t width, int64_t height, int64_t columns, int64_t gap,
                         int64_t scale) {
  check(count > 0, "no pictures for a contact sheet");
  check(columns > 0 && gap >= 0 && scale >= 0,
        "a contact sheet of {} columns, gap {} and scale {} is impossible", columns, gap, scale);
  const int64_t side = std::max(width, height);
  SheetLayout layout;
  layout.scale = scale > 0 ? scale : std::max<int64_t>(1, (95 + side) / side);
  layout.gap = gap;
  layout.across = std::min(columns, count);
  const int64_t down = (count + layout.across - 1) / layout.across;
  // Each factor is checked on its own, so that no product overflows.
  const bool sensible = layout.scale <= max_image_side && gap <= max_image_side &&
                        layout.across <= max_image_side && down <= max_image_side && side <= max_image_side;
  check(sensible, "a contact sheet of {} x {} pictures, each enlarged {} times, is too large", layout.across,
        down, layout.scale);
  layout.step_x = width * layout.scale + gap;
  layout.step_y = height * layout.scale + gap;
  layout.width = layout.across * layout.step_x + gap;
  layout.height = down * layout.step_y + gap;
  check(layout.width <= max_image_side && layout.height <= max_image_side &&
            layout.width * layout.height <= max_image_pixels,
        "a contact sheet of {} x {} pixels is too large", layout.width, layout.height);
  return layout;
}

Image contact_sheet(std::span<const Image> images, int64_t columns, int64_t gap, int64_t scale) {
  int64_t width = 1, height = 1;
  for (const Image& image : images) {
    width = std::max(width, image.width);
    height = std::max(height, image.height);
  }
  const auto count = static_cast<int64_t>(images.size());
  const SheetLayout to = layout_sheet(count, width, height, columns, gap, scale);
  Image sheet = blank_image(to.width, to.height, 246, 246, 244);
  for (int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<size_t>(i)];
    paste(image, to.scale, sheet, gap + i % to.across * to.step_x + (width - image.width) * to.scale / 2,
          gap + i / to.across * to.step_y + (height - image.height) * to.scale / 2);
  }
  return sheet;
}

}  // namespace linnet
