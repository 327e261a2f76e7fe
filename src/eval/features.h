// What a classifier sees in folders of pictures: the statistics of its features, which a Fréchet distance
// compares, and whether it names the pictures rightly.
#pragma once

#include "eval/frechet.h"
#include "eval/pictures.h"
#include "store/classifier_file.h"

namespace linnet {

struct FolderStatistics {
  FeatureStatistics features;
  int64_t resized = 0;  ///< pictures that were of another size than the classifier's
};
/// progress is called with the number of pictures done. Throws Error on a folder without pictures, or with no
/// more than there are features: their covariance would be singular.
FolderStatistics folder_statistics(const LoadedClassifier& classifier, const std::filesystem::path& dir,
                                   const std::function<void(int64_t done, int64_t count)>& progress = {});

/// Throws Error where folder_statistics() would before it looks at a picture.
void check_folder_can_be_seen(const LoadedClassifier& classifier, const std::filesystem::path& dir);

/// The share of pictures that the classifier takes for what their folder's name says. Throws Error naming a
/// picture whose folder is no class.
double folder_accuracy(const LoadedClassifier& classifier, const std::filesystem::path& dir);

/// Statistics as a safetensors file: "mean" and "covariance" in f64, the count, and which classifier's they
/// are.
void save_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics,
                     const LoadedClassifier& classifier);
/// Throws Error when the file holds none, or those of another classifier.
FeatureStatistics load_statistics(const std::filesystem::path& path, const LoadedClassifier& classifier);

}  // namespace linnet
