// The verbs of the command, one file each. Every function adds its verb with its options to the command line;
// what the verb does happens when it is chosen. Verbs throw: main turns UsageError into exit code 2, Error
// into 1.
#pragma once

#include "arguments.h"

namespace linnet::app {

void add_generate(const Verb& app);
void add_train(const Verb& app);
void add_data(const Verb& app);
void add_eval(const Verb& app);
void add_info(const Verb& app);
void add_convert(const Verb& app);
void add_encode(const Verb& app);
void add_inherit(const Verb& app);
void add_forward(const Verb& app);
void add_quantize(const Verb& app);
void add_tokenize(const Verb& app);
void add_bench(const Verb& app);

}  // namespace linnet::app
