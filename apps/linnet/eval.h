// What `linnet eval` can do besides comparing two folders, a file each.
#pragma once

#include <CLI/CLI.hpp>

namespace linnet::app {

void add_eval_shapes(CLI::App& verb);
void add_eval_train_classifier(CLI::App& verb);

}  // namespace linnet::app
