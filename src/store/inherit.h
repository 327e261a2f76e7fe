// Weight inheritance (LiT, arXiv 2501.12976, section 3.2): a linear model starts from a converged DiT or
// PixArt. Everything but the attention is copied; the attention starts afresh, or takes over what is asked for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/dit.h"
#include "models/pixart.h"
#include "store/weights.h"

namespace linnet {

/// Which of the teacher's attention projections are copied too.
struct AlsoInherit {
  bool q = false, k = false, v = false, o = false;
};

/// "", or any of the letters q, k, v, o, each once: "qkv", "kv", "v", "q", "o". Throws UsageError on others.
AlsoInherit also_inherit_from_name(std::string_view name);

/// What became of one of the student's tensors.
struct Inherited {
  std::string tensor;
  std::string source;  ///< the teacher's tensor, and where in it; empty: started afresh
};

/// The teacher's configuration with another attention: what the student of an inheritance is. What a PixArt
/// adds to softmax attention stays only with that.
DiTConfig student_of(const DiTConfig& teacher, nn::Mixer mixer, int64_t heads);
PixArtConfig student_of(const PixArtConfig& teacher, nn::Mixer mixer, int64_t heads);

/// Gives every learned tensor of the student its value: the teacher's, or one drawn from the seed. teacher has
/// the original's names (find_dit_weights, find_pixart_weights); what it has in 8 bits becomes floats. Throws
/// Error naming tensor and both shapes where they differ, and when the teacher is deeper than the student.
std::vector<Inherited> inherit(DiT& student, const Weights& teacher, AlsoInherit also, uint64_t seed);
/// The attention is the one over the picture's tokens; that over the text is copied.
std::vector<Inherited> inherit(PixArt& student, const Weights& teacher, AlsoInherit also, uint64_t seed);

}  // namespace linnet
