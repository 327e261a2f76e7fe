// linnet eval SAMPLES REFERENCE: how alike two sets of pictures are, by the Fréchet distance of a classifier's
// features, or by Inception's (eval_inception.cpp).
#include "eval.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "device_argument.h"
#include "eval/features.h"
#include "interrupt.h"
#include "io/text.h"
#include "model_argument.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;

FeatureStatistics look_at_folder(const LoadedClassifier& classifier, const std::string& dir) {
  Progress progress;
  const FolderStatistics found = folder_statistics(classifier, dir, [&](int64_t done, int64_t count) {
    progress.show(static_cast<double>(done), static_cast<double>(count),
                  fmt::format("{}: {} of {}", printable(dir), done, count));
    end_if_interrupted();
  });
  const int64_t size = classifier.model->config().input_size;
  if (found.resized > 0)
    progress.line(fmt::format("{}: {} of {} pictures were scaled and cropped to {}x{}", printable(dir),
                              found.resized, found.features.count(), size, size));
  return found.features;
}

// A folder of pictures, or a file of statistics saved before, which is read now. The folder must be there to be
// looked at: a wrong name is said before the samples take their time.
std::optional<FeatureStatistics> find_reference(const LoadedClassifier& classifier, const std::string& path) {
  if (is_file(path)) return load_statistics(path, classifier);
  check_folder_can_be_seen(classifier, path);
  return {};
}

std::string as_json(double distance, const FeatureStatistics& samples, const FeatureStatistics& reference,
                    const LoadedClassifier& classifier) {
  nlohmann::ordered_json json;
  json["frechet_distance"] = distance;
  json["samples"] = samples.count();
  json["reference"] = reference.count();
  json["features"] = samples.size();
  json["classifier"] = classifier.fingerprint;
  return json.dump(2) + "\n";
}

void check_differ(const std::string& json, const std::string& statistics) {
  std::error_code ignored;
  const auto place = [&](const std::string& file) {
    return fs::weakly_canonical(absolute_path(file), ignored);
  };
  if (!json.empty() && !statistics.empty() && place(json) == place(statistics))
    throw UsageError("--json and --save-statistics name the same file");
}

void run(const EvalOptions& options) {
  if (options.samples.empty() || options.reference.empty())
    throw UsageError("say what is compared with what: linnet eval SAMPLES REFERENCE --inception FILE");
  if (options.features.empty() == options.inception.empty())
    throw UsageError(
        "say whose features are compared: --inception pt_inception-2015-12-05-6726825d.pth, or --features with "
        "a "
        "classifier of your own");
  for (const std::string& file : {options.json, options.statistics}) {
    if (file.empty()) continue;
    check_writable(file);
    for (const std::string& input : {options.samples, options.reference, options.features, options.inception})
      check_keeps(file, input);
  }
  check_differ(options.json, options.statistics);
  use_threads(options.threads);
  catch_interrupts();
  if (!options.inception.empty()) return eval_with_inception(options);
  const LoadedClassifier classifier = load_classifier(options.features, open_device(options.device));
  std::optional<FeatureStatistics> found = find_reference(classifier, options.reference);
  const FeatureStatistics samples = look_at_folder(classifier, options.samples);
  const FeatureStatistics reference = found ? std::move(*found) : look_at_folder(classifier, options.reference);
  const double distance = frechet_distance(samples, reference);
  if (!options.statistics.empty()) save_statistics(options.statistics, reference, classifier);
  if (!options.json.empty()) write_text_file(options.json, as_json(distance, samples, reference, classifier));
  fmt::print("Fréchet distance {:.4f}: {} pictures in {}, {} in {}, {} features of {}\n", distance,
             samples.count(), printable(options.samples), reference.count(), printable(options.reference),
             samples.size(), printable(short_name(options.features)));
}

}  // namespace

void add_eval(const Verb& app) {
  const Verb verb = app.add_subcommand("eval", "Measure how good pictures are");
  verb.require_subcommand(0, 1);
  auto options = std::make_shared<EvalOptions>();
  verb.add_option(
      "samples", options->samples,
      "Folder of pictures to measure, sub-folders included; with --inception also an .npz file, as ADM's");
  verb.add_option(
      "reference", options->reference,
      "Folder of pictures that they should be like, or its statistics as --save-statistics wrote them; with "
      "--inception also an .npz file");
  verb.add_option(
          "--inception", options->inception,
          "Inception's weights (pt_inception-2015-12-05-6726825d.pth): FID, sFID, Inception score, precision "
          "and recall as ADM's suite defines them")
      .type_name("FILE");
  verb.add_option("--features", options->features,
                  "Classifier of your own (linnet eval train-classifier) whose features are compared instead")
      .type_name("FILE");
  verb.add_option("--json", options->json, "Also write the result to this file").type_name("FILE");
  verb.add_option("--save-statistics", options->statistics,
                  "Write the reference's statistics to this file, which may then stand for it")
      .type_name("FILE");
  add_device_option(verb, options->device);
  add_threads_option(verb, options->threads);
  add_eval_shapes(verb);
  add_eval_scenes(verb);
  add_eval_train_classifier(verb);
  verb.refuse_options_before_verbs();
  verb.footer("linnet eval samples data/shapes --features models/shapes-features.safetensors");
  verb.callback([verb, options] {
    if (!verb.has_chosen()) run(*options);
  });
}

}  // namespace linnet::app
