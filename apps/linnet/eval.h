// What `linnet eval` can do besides comparing two folders, a file each.
#pragma once

#include <string>
#include "arguments.h"

namespace linnet::app {

/// Two sets of pictures, and how they are compared.
struct EvalOptions {
  std::string samples, reference, features, inception, json, statistics, device = "cpu";
  int threads = 0;
};

void eval_with_inception(const EvalOptions& options);

void add_eval_shapes(const Verb& verb);
void add_eval_scenes(const Verb& verb);
void add_eval_train_classifier(const Verb& verb);

}  // namespace linnet::app
