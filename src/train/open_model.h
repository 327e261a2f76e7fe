// The models that training begins with, or learns from.
#pragma once

#include <string>

#include "models/model_config.h"
#include "store/weights.h"

namespace linnet {

/// What a model that training begins with drawn weights is unless it is told otherwise.
ModelConfig new_model(bool of_texts);

/// All that a file or folder holds, or a model inside the program if it is "builtin" or "builtin-text".
Weights open_file_or_builtin(const std::string& model);

}  // namespace linnet
