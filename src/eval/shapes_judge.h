// Says what a picture of the data set `shapes` shows, and whether it shows it well, by plain image analysis: no
// network, so the score cannot be fooled by what fools networks. Knows only clean pictures of one shape on a
// calm background; it is no classifier for anything else.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "io/image.h"
#include "io/shapes.h"

namespace linnet {

struct Verdict {
  bool found = false;  ///< one well-drawn shape in a known colour; shape and colour are a guess otherwise
  int shape = -1, colour = -1;  ///< -1: nothing to guess from
  float shape_confidence = 0;   ///< 0: as like another shape; 1: like no other
  float colour_confidence = 0;  ///< 0: halfway to another colour; 1: exactly the named one
  float iou = 0;                ///< agreement of the silhouette with the best-fitting ideal one, 0 to 1
  float unevenness = 0;         ///< root mean square colour variation inside the shape, in 0..1
  float clutter = 0;            ///< what lies about outside the shape, as a share of the shape's area
  float cx = 0, cy = 0, radius = 0, angle = 0;  ///< the fit, as in Scene

  int shapes_class() const { return found ? colour * shape_count + shape : -1; }
};

/// At least this good for `found`. Of several objects each is small, some 18 pixels across in a picture of 64:
/// there an edge half a pixel off, all round, costs a ring a quarter of its agreement.
constexpr float least_iou = 0.82f, least_iou_of_several = 0.75f, most_unevenness = 0.1f, most_clutter = 0.12f;

/// Judges one picture; pictures over 64 pixels are judged at about 64.
Verdict judge(const Image& image);

/// The same of each object in a picture of several, which do not touch; what is too small to be one is not
/// looked at. Pictures over 128 pixels are judged at about 128.
std::vector<Verdict> judge_objects(const Image& image);

struct ShapesScore {
  int64_t count = 0;
  int64_t correct = 0;  ///< found, and both shape and colour are what was asked for
  int64_t shape_correct = 0, colour_correct = 0, found = 0;
  std::array<int64_t, shapes_class_count> class_count{}, class_correct{};
  double mean_iou = 0;  ///< over all pictures

  double accuracy() const {
    return count == 0 ? 0.0 : static_cast<double>(correct) / static_cast<double>(count);
  }
};

/// Adds one picture that should show the class.
void add(ShapesScore& score, const Verdict& verdict, int asked_class);

/// The score as a JSON object: counts and shares overall, counts by class.
std::string to_json(const ShapesScore& score);

/// Judges every picture in a folder and its sub-folders. What was asked for is said by its text
/// entry "class", or the name of the folder, or the beginning of the file's name ("red-star-0001.png"). Throws
/// Error when there is no picture, or one that says none of these or cannot be read.
ShapesScore score_folder(const std::filesystem::path& dir);

}  // namespace linnet
