// The verbs of the command, one file each. Every function adds its verb with its options to the command line;
// what the verb does happens when it is chosen. Verbs throw: main turns UsageError into exit code 2, Error
// into 1.
#pragma once

#include <CLI/CLI.hpp>

namespace linnet::app {

void add_generate(CLI::App& app);
void add_train(CLI::App& app);
void add_data(CLI::App& app);
void add_eval(CLI::App& app);
void add_info(CLI::App& app);
void add_convert(CLI::App& app);
void add_encode(CLI::App& app);
void add_inherit(CLI::App& app);
void add_forward(CLI::App& app);
void add_quantize(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace linnet::app
