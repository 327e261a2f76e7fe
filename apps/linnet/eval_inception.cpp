// linnet eval SAMPLES REFERENCE --inception FILE: the figures of ADM's evaluation suite.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "device_argument.h"
#include "eval.h"
#include "eval/inception_view.h"
#include "interrupt.h"
#include "io/file.h"
#include "io/text.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;

bool is_npz(const std::string& path) { return fs::path(path).extension() == ".npz"; }

// A folder of pictures, an .npz file, or what was seen in one before, which is read now. The others must be
// there to be looked at: a wrong name is said before the other set takes its hour.
std::optional<InceptionView> find_set(const LoadedInception& inception, const std::string& path) {
  if (is_npz(path))
    check_npz_can_be_seen(path);
  else if (is_file(path))
    return load_view(path, inception);
  else
    check_folder_can_be_seen(path);
  return {};
}

InceptionView look(const LoadedInception& inception, const std::string& path) {
  Progress progress;
  const OnPicturesSeen show = [&](int64_t done, int64_t count) {
    progress.show(static_cast<double>(done), static_cast<double>(count),
                  fmt::format("{}: {} of {}", printable(path), done, count));
    end_if_interrupted();
  };
  return is_npz(path) ? look_at_npz(inception, path, show) : look_at_folder(inception, path, show);
}

std::string describe(const InceptionView& view, const std::string& path) {
  return view.count > 0 ? fmt::format("{} pictures in {}", view.count, printable(path))
                        : fmt::format("the statistics in {}", printable(path));
}

std::string describe(const InceptionFigures& figures) {
  std::string text = fmt::format("FID {:.3f}", figures.fid);
  if (figures.sfid) text += fmt::format(", sFID {:.3f}", *figures.sfid);
  if (figures.score > 0) text += fmt::format(", Inception score {:.3f}", figures.score);
  if (figures.manifold)
    text +=
        fmt::format(", precision {:.3f}, recall {:.3f}", figures.manifold->precision, figures.manifold->recall);
  return text;
}

std::string as_json(const InceptionFigures& figures, const InceptionView& samples,
                    const InceptionView& reference, const LoadedInception& inception) {
  nlohmann::ordered_json json;
  json["fid"] = figures.fid;
  const auto number = [](bool known, double value) {
    return known ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
  };
  const auto count = [](const InceptionView& view) {  // not known of statistics alone
    return view.count > 0 ? nlohmann::ordered_json(view.count) : nlohmann::ordered_json();
  };
  const PrecisionRecall manifold = figures.manifold.value_or(PrecisionRecall{});
  json["sfid"] = number(figures.sfid.has_value(), figures.sfid.value_or(0));
  json["inception_score"] = number(figures.score > 0, figures.score);
  json["precision"] = number(figures.manifold.has_value(), manifold.precision);
  json["recall"] = number(figures.manifold.has_value(), manifold.recall);
  json["samples"] = count(samples);
  json["reference"] = count(reference);
  json["inception"] = inception.fingerprint;
  return json.dump(2) + "\n";
}

}  // namespace

void eval_with_inception(const EvalOptions& options) {
  const LoadedInception inception = load_inception(options.inception, open_device(options.device));
  std::optional<InceptionView> found_reference = find_set(inception, options.reference),
                               found_samples = find_set(inception, options.samples);
  // The reference first: what cannot be saved of it is said before all of the samples are looked at.
  const InceptionView reference =
      found_reference ? std::move(*found_reference) : look(inception, options.reference);
  if (!options.statistics.empty()) save_view(options.statistics, reference, inception);
  const InceptionView samples = found_samples ? std::move(*found_samples) : look(inception, options.samples);
  InceptionFigures figures;
  {
    Progress progress;
    figures = compare(samples, reference, [&](double share) {
      progress.show(share, 1, "nearest neighbours");
      end_if_interrupted();
    });
  }
  if (!options.json.empty()) write_text_file(options.json, as_json(figures, samples, reference, inception));
  fmt::print("{}: {} against {}\n", describe(figures), describe(samples, options.samples),
             describe(reference, options.reference));
  if (!figures.manifold && samples.features.defined() && reference.features.defined())
    fmt::print("Precision and recall are left out: they need more than {} pictures on each side.\n",
               manifold_neighbours);
}

}  // namespace linnet::app
