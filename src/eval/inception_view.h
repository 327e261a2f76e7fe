// What Inception sees in a set of pictures: everything that ADM's figures are computed from, gathered in one
// pass, and kept in a file so that a reference needs to be looked at only once.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "eval/frechet.h"
#include "eval/inception_score.h"
#include "eval/manifold.h"
#include "store/inception_file.h"

namespace linnet {

struct InceptionView {
  FeatureStatistics pool{2048}, spatial{2023};
  Tensor features;    ///< (n, 2048) f32: the pool features themselves; undefined of statistics alone
  double score = 0;   ///< Inception's; 0 if unknown
  int64_t count = 0;  ///< pictures; 0 if unknown
};

/// Called with the number of pictures done, and of all.
using OnPicturesSeen = std::function<void(int64_t done, int64_t count)>;

/// The pictures of a folder and its sub-folders, in the order of their paths and at their own sizes; or those
/// of an .npz file ("arr_0": (n, height, width, 3) bytes), as ADM's suite takes them, whose own statistics
/// ("mu", "sigma", "mu_s", "sigma_s"), where it has them, are taken instead of the pictures'. Throws Error on
/// fewer than two pictures, or naming one that cannot be read.
InceptionView look_at_folder(const LoadedInception& inception, const std::filesystem::path& dir,
                             const OnPicturesSeen& progress = {});
InceptionView look_at_npz(const LoadedInception& inception, const std::filesystem::path& path,
                          const OnPicturesSeen& progress = {});

/// Throw Error where these would before they look at a picture: a wrong name is best said before another set is
/// looked at, which may take an hour.
void check_folder_can_be_seen(const std::filesystem::path& dir);
void check_npz_can_be_seen(const std::filesystem::path& path);

/// As a safetensors file, atomically.
void save_view(const std::filesystem::path& path, const InceptionView& view, const LoadedInception& inception);
/// Throws Error when the file holds none, or one seen with other weights.
InceptionView load_view(const std::filesystem::path& path, const LoadedInception& inception);

/// ADM's figures, of samples against a reference; precision and recall only where both sides' features are
/// there, of more than manifold_neighbours pictures each, and the spatial distance only where both sides'
/// statistics are.
struct InceptionFigures {
  double fid = 0, score = 0;
  std::optional<double> sfid;
  std::optional<PrecisionRecall> manifold;
};
InceptionFigures compare(const InceptionView& samples, const InceptionView& reference,
                         const std::function<void(double share)>& progress = {});

}  // namespace linnet
