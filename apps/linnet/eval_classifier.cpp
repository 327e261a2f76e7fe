// linnet eval train-classifier: makes the classifier whose features `linnet eval` compares.
#include <fmt/format.h>

#include "device_argument.h"
#include "eval.h"
#include "eval/features.h"
#include "interrupt.h"
#include "io/text.h"
#include "model_argument.h"
#include "terminal.h"
#include "train/train_classifier.h"

namespace linnet::app {
namespace {

struct Options {
  ClassifierTraining training;
  std::string held_out, output;
  int threads = 0;
};

void check_options(const Options& options) {
  const OptimizerConfig& o = options.training.optimizer;
  if (o.steps < 1 || o.batch < 1) throw UsageError("--steps and --batch are at least 1");
  if (!(o.lr > 0 && o.lr < 10)) throw UsageError("--lr lies between 0 and 10");
  options.training.model.validate();
  check_writable(options.output);
  if (!options.held_out.empty()) pictures_in(options.held_out);  // better refused now than after training
}

TrainedClassifier train(const ClassifierTraining& training) {
  Progress progress;
  const int64_t steps = training.optimizer.steps;
  return train_classifier(training, [&](const ClassifierMetrics& m) {
    const std::string text = fmt::format("step {}  loss {:.4f}", m.step, m.loss);
    progress.show(static_cast<double>(m.step), static_cast<double>(steps), text);
    if (!on_terminal() && (m.step % 100 == 0 || m.step == steps)) progress.line(text);
    end_if_interrupted();
  });
}

void run(const Options& options) {
  check_options(options);
  const Device device = open_device(options.training.optimizer.device);
  use_threads(options.threads);
  catch_interrupts();
  const TrainedClassifier trained = train(options.training);
  const OptimizerConfig& o = options.training.optimizer;
  save_classifier(
      options.output, *trained.model, trained.class_names,
      {{"linnet.training", fmt::format("{} steps of {} pictures, seed {}", o.steps, o.batch, o.seed)}});
  fmt::print("{}: {} parameters, {} features, {} classes\n", printable(options.output, 4096),
             in_millions(nn::count_parameters(*trained.model)), trained.model->config().hidden_size,
             trained.class_names.size());
  if (options.held_out.empty()) return;
  // Of the file, whose weights are rounded, not of what was trained.
  const double accuracy = folder_accuracy(load_classifier(options.output, device), options.held_out);
  fmt::print("{:.2f} % of the pictures in {} are named rightly\n", 100 * accuracy,
             printable(options.held_out, 4096));
}

}  // namespace

void add_eval_train_classifier(const Verb& verb) {
  const Verb train = verb.add_subcommand(
      "train-classifier",
      "Train a small classifier on class folders of pictures; its features compare pictures");
  auto options = std::make_shared<Options>();
  ClassifierConfig& model = options->training.model;
  OptimizerConfig& optimizer = options->training.optimizer;
  train.add_option("data", options->training.data, "Folder with a sub-folder of pictures a class").required();
  train.add_option("-o,--output", options->output, "Safetensors file to write").required().type_name("FILE");
  train
      .add_option("--held-out", options->held_out,
                  "Other pictures, in the same way, to measure the accuracy on")
      .type_name("DIR");
  train.add_option("--steps", optimizer.steps, "Training steps").capture_default_str();
  train.add_option("--batch", optimizer.batch, "Pictures in a step").capture_default_str();
  train.add_option("--lr", optimizer.lr, "Highest learning rate").capture_default_str();
  train.add_option("--seed", optimizer.seed, "Of initial weights and the pictures' order")
      .capture_default_str();
  train.add_option("--size", model.input_size, "Side of the pictures that it sees").capture_default_str();
  train.add_option("--patch", model.patch_size, "Side of a patch").capture_default_str();
  train.add_option("--width", model.hidden_size, "Channels, which are the features").capture_default_str();
  train.add_option("--depth", model.depth, "Blocks").capture_default_str();
  train.add_option("--heads", model.num_heads, "Heads of the linear attention").capture_default_str();
  add_device_option(train, optimizer.device);
  add_threads_option(train, options->threads);
  train.callback([options] { run(*options); });
}

}  // namespace linnet::app
