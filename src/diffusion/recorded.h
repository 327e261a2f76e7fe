// On a GPU a step of sampling is hundreds of small pieces of work, and putting each there takes longer than
// many of them do. The steps being alike, what one puts there is recorded, and then repeated with a single
// call.
#pragma once

#include "diffusion/samplers.h"

namespace linnet {

/// The same model; for a picture on the GPU it is given the times there, too, and its first call for a shape
/// runs as it is, so that weights get packed, the second is recorded, and later ones are repeated. What it is
/// besides given must not change then. On the CPU, where nothing can be recorded, and with LINNET_RECORDING=off
/// in the environment, it is simply called.
Denoiser recorded(Denoiser model);

}  // namespace linnet
