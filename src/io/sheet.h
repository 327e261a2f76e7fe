// Many pictures on one sheet, to look at.
#pragma once

#include <cstdint>
#include <span>

#include "io/image.h"

namespace linnet {

/// Where the pictures of a sheet go, in pixels.
struct SheetLayout {
  int64_t width = 0, height = 0;  ///< of the sheet
  int64_t scale = 1, gap = 0, across = 1;
  int64_t step_x = 0, step_y = 0;  ///< from one picture to the next
};

/// For `count` pictures of at most width x height pixels; the rest as contact_sheet() takes it. Throws Error
/// when the sheet would be too large.
SheetLayout layout_sheet(int64_t count, int64_t width, int64_t height, int64_t columns, int64_t gap = 4,
                         int64_t scale = 0);

/// Pictures in rows of `columns`, `gap` pixels apart, on a light neutral ground. Each is enlarged `scale` times
/// without smoothing; scale 0 enlarges pictures under 96 pixels to at least that. Smaller pictures are centred
/// in the cell of the largest. Throws Error when there is nothing to show or the sheet would be too large.
Image contact_sheet(std::span<const Image> images, int64_t columns, int64_t gap = 4, int64_t scale = 0);

}  // namespace linnet
