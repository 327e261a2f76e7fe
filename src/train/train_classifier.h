// Trains the classifier whose features compare sets of pictures. Runs are short, so there is nothing to resume.
#pragma once

#include <functional>

#include "models/classifier.h"
#include "train/config.h"

namespace linnet {

struct ClassifierTraining {
  std::string data;        ///< folder of class sub-folders, which are the classes
  ClassifierConfig model;  ///< num_classes is what the folder holds
  OptimizerConfig optimizer;

  /// Settings that suit small pictures.
  ClassifierTraining();
};

struct ClassifierMetrics {
  int64_t step = 0;  ///< counted from 1
  double loss = 0;
};

struct TrainedClassifier {
  std::unique_ptr<Classifier> model;  ///< the moving average of the weights, on the device of the training
  std::vector<std::string> class_names;
};

/// Works on optimizer.device, in f32. on_step is called after every step; on a GPU only after every tenth and
/// the last, since reading the loss waits for them. Throws Error if the data cannot be read.
TrainedClassifier train_classifier(ClassifierTraining training,
                                   const std::function<void(const ClassifierMetrics&)>& on_step = {});

}  // namespace linnet
