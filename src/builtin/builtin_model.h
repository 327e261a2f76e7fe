// The model that ships inside the program: models/shapes-lit.safetensors, laid into the binary by the
// assembler.
#pragma once

#include "io/safetensors.h"

namespace linnet {

/// False if the program was built without one.
bool has_builtin_model();

/// Throws Error if the program was built without one.
SafetensorsFile builtin_model();

}  // namespace linnet
