#include "eval/features.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "io/safetensors.h"
#include "io/text.h"
#include "store/metadata.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr const char* classifier_key = "linnet.features";

std::vector<double> numbers_of(const SafetensorsFile& file, const char* name, const Shape& shape) {
  check(file.contains(name), "{}: tensor \"{}\" is missing: these are no statistics of features", file.source(),
        name);
  const Tensor tensor = file.tensor(name);
  check(tensor.dtype() == DType::f64 && tensor.shape() == shape,
        "{}: tensor \"{}\" is {} of shape {}, this classifier wants f64 of shape {}", file.source(), name,
        name_of(tensor.dtype()), to_string(tensor.shape()), to_string(shape));
  const auto values = tensor.values<double>();
  check(std::ranges::all_of(values, [](double value) { return std::isfinite(value); }),
        "{}: tensor \"{}\" holds values that are no numbers", file.source(), name);
  return {values.begin(), values.end()};
}

int64_t count_of(const SafetensorsFile& file) {
  const auto found = file.metadata().find(pictures_key);
  check(found != file.metadata().end(), "{}: the metadata lack \"{}\": these are no statistics of features",
        file.source(), pictures_key);
  int64_t count = 0;
  const std::string& text = found->second;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), count);
  check(problem == std::errc() && end == text.data() + text.size() && count >= 2 && count < (int64_t{1} << 40),
        "{}: \"{}\" is no number of pictures", file.source(), printable(text));
  return count;
}

std::vector<fs::path> pictures_of_set(const LoadedClassifier& classifier, const fs::path& dir) {
  std::vector<fs::path> paths = pictures_in(dir);
  const auto count = static_cast<int64_t>(paths.size()), size = classifier.model->config().hidden_size;
  check(count > size, "{} holds {}; a Fréchet distance on {} features needs more than {}", dir.string(),
        counted(count, "picture"), size, size);
  return paths;
}

}  // namespace

FolderStatistics folder_statistics(const LoadedClassifier& classifier, const fs::path& dir,
                                   const std::function<void(int64_t done, int64_t count)>& progress) {
  const ClassifierConfig& config = classifier.model->config();
  const std::vector<fs::path> paths = pictures_of_set(classifier, dir);
  const auto count = static_cast<int64_t>(paths.size());
  FolderStatistics result{FeatureStatistics(config.hidden_size)};
  result.resized = read_pictures(paths, config.input_size, [&](int64_t first, const Tensor& pictures) {
    result.features.add(classifier.model->features(pictures.to(classifier.device)).host());
    if (progress) progress(first + pictures.size(0), count);
  });
  return result;
}

void check_folder_can_be_seen(const LoadedClassifier& classifier, const fs::path& dir) {
  pictures_of_set(classifier, dir);
}

double folder_accuracy(const LoadedClassifier& classifier, const fs::path& dir) {
  const std::vector<fs::path> paths = pictures_in(dir);
  const std::vector<std::string>& names = classifier.class_names;
  std::vector<int64_t> labels;
  for (const fs::path& path : paths) {
    const auto name = std::ranges::find(names, path.parent_path().filename().string());
    check(name != names.end(), "{}: the classifier knows no class by the name of this picture's folder",
          path.string());
    labels.push_back(name - names.begin());
  }
  int64_t right = 0;
  read_pictures(paths, classifier.model->config().input_size, [&](int64_t first, const Tensor& pictures) {
    const Tensor features = classifier.model->features(pictures.to(classifier.device));
    const auto seen = likeliest(classifier.model->logits(features).host());
    for (size_t i = 0; i < seen.size(); ++i) right += seen[i] == labels[static_cast<size_t>(first) + i];
  });
  return static_cast<double>(right) / static_cast<double>(paths.size());
}

void save_statistics(const fs::path& path, const FeatureStatistics& statistics,
                     const LoadedClassifier& classifier) {
  const int64_t d = statistics.size();
  const std::vector<double> covariance = statistics.covariance();
  write_safetensors(
      path,
      {{"mean", Tensor::from<double>(statistics.mean(), {d})},
       {"covariance", Tensor::from<double>(covariance, {d, d})}},
      {{pictures_key, std::to_string(statistics.count())}, {classifier_key, classifier.fingerprint}});
}

FeatureStatistics load_statistics(const fs::path& path, const LoadedClassifier& classifier) {
  const auto file = SafetensorsFile::open(path);
  const int64_t d = classifier.model->config().hidden_size, count = count_of(file);
  const auto made_with = file.metadata().find(classifier_key);
  check(made_with != file.metadata().end() && made_with->second == classifier.fingerprint,
        "{}: these statistics are of another classifier's features", path.string());
  return {count, numbers_of(file, "mean", {d}), numbers_of(file, "covariance", {d, d})};
}

}  // namespace linnet
