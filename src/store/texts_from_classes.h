// A text-to-image model that starts from one of classes, as PixArt-α does (Chen et al., arXiv 2310.00426,
// sections 2.2 and 2.3): it knows already how pictures look, and has only to learn what texts say of them.
#pragma once

#include <optional>
#include <vector>

#include "models/dit.h"
#include "models/pixart.h"
#include "store/inherit.h"
#include "store/weights.h"

namespace linnet {

/// What a model of classes does not say of one of texts.
struct TextsInPlaceOfClasses {
  int64_t caption_channels = 4096;  ///< as T5-XXL's states
  int64_t caption_tokens = 300;
  int64_t cross_heads = 0;  ///< 0: as many as softmax attention has at this width
  /// Pictures so many times larger, of as many patches: in the beginning a patch sees the means of squares of
  /// so many pixels a side, and paints such squares.
  int64_t enlarge = 1;
  bool fixed_variance = false;  ///< leave out the predicted variance
  /// What the model shall predict. Only of v, which at high noise is nearly −x₀, may it become x0.
  std::optional<Prediction> prediction;
};

/// The same transformer with texts in place of classes, and its own positions. Throws UsageError on what cannot
/// be.
PixArtConfig with_texts(const DiTConfig& classes, const TextsInPlaceOfClasses& texts);

/// Gives every learned tensor of the student, a with_texts, its value. Patches, attention, MLPs and output are
/// the class model's; the one adaLN is the mean of its blocks', and each block's table what its own differs by,
/// in the mean over timesteps and without a class. What knows of texts is drawn from the seed, and says nothing
/// yet. classes has the original's names (find_dit_weights); throws Error naming file and tensor when it is
/// not the model that its configuration says.
std::vector<Inherited> inherit_with_texts(PixArt& student, const Weights& classes, uint64_t seed);

}  // namespace linnet
