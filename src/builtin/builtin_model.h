// The models that ship inside the program, laid into the binary by the assembler:
// models/shapes-lit.safetensors, which paints classes, and, where it is there, models/scenes, which paints
// texts.
#pragma once

#include <string_view>

#include "io/safetensors.h"

namespace linnet {

/// All throw Error if the program was built without the model.
SafetensorsFile builtin_model();
SafetensorsFile builtin_transformer();
SafetensorsFile builtin_text_encoder();
/// A SentencePiece model's bytes.
std::string_view builtin_tokenizer();

}  // namespace linnet
