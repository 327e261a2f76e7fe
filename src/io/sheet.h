// Many pictures on one sheet, to look at.
#pragma once

#include <span>

#include "io/image.h"

namespace linnet {

/// Pictures in rows of `columns`, `gap` pixels apart, on a light neutral ground. Each is enlarged `scale` times
/// without smoothing; scale 0 enlarges pictures under 96 pixels to at least that. Smaller pictures are centred
/// in the cell of the largest. Throws Error when there is nothing to show or the sheet would be too large.
Image contact_sheet(std::span<const Image> images, int columns, int gap = 4, int scale = 0);

}  // namespace linnet
