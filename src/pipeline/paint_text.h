// Pictures from texts, batch by batch, as pipeline/paint.h makes them from classes.
#pragma once

#include "models/pixart.h"
#include "pipeline/paint.h"

namespace linnet {

struct TextPaintRequest {
  /// States (tokens, d) of each prompt; picture i shows text i modulo how many there are.
  std::vector<Tensor> texts;
  /// What guidance leads away from: one text, the negative prompt as it was encoded (diffusers), or, without
  /// one, the model's own embedding of no text, as many tokens of it as the prompt has (PixArt's own code).
  Tensor negative = {};
  int64_t height = 0, width = 0;  ///< of the latents
  int64_t count = 1;
  uint64_t seed = 0;  ///< picture i is drawn from seed + i
  int64_t batch = 0;  ///< pictures at once; 0: default_batch()
  Tensor noise = {};  ///< (count, c, h, w) start noise instead of the seeds'
  GenerateOptions options;

  uint64_t seed_of(int64_t picture) const { return seed + static_cast<uint64_t>(picture); }
};

/// Gives a request the states of so many prompts and, if there is one text more, of the negative one.
void take_states(TextPaintRequest& request, std::vector<Tensor> states, int64_t prompts);

/// The guidance scale that suits a model unless one is asked for, and when: 4.5 of latents, as PixArt's,
/// always. Of pixels 3, and not late: where nothing but edges is left to draw, it leads them and colours
/// astray.
inline float usual_guidance(const PixArtConfig& model) { return model.in_channels == 3 ? 3.0f : 4.5f; }
inline TimeInterval usual_interval(const PixArtConfig& model) {
  return model.in_channels == 3 ? TimeInterval{400, 999} : TimeInterval{};
}

/// Pictures at once unless told otherwise, however many there are.
int64_t default_batch(const PixArtConfig& model, int64_t height, int64_t width);

/// Throws UsageError on what this model cannot do. It looks at no text, so that nothing need be refused after
/// texts were encoded, which takes minutes; with_negative is whether there will be a negative one.
void check_request(const TextPaintRequest& request, const PixArtConfig& model, bool with_negative);

/// Samples (n, c, h, w) of pictures first to end, painted at once, on the options' device; the request is
/// checked. The same request gives the same values.
Tensor paint_batch(const PixArt& model, const TextPaintRequest& request, int64_t first, int64_t end);

/// The size in pixels nearest to the wanted one among those that PixArt was trained with: of about base × base
/// pixels, with the ratio of height to width that is nearest. base is 256, 512, 1024 or 2048; others are not
/// binned. Sides are multiples of `unit`.
struct SizeInPixels {
  int64_t height = 0, width = 0;
  bool operator==(const SizeInPixels&) const = default;
};
/// Whether there are such pictures.
inline bool is_size(const SizeInPixels& size) {
  constexpr int64_t most = 16384;
  return size.height >= 1 && size.width >= 1 && size.height <= most && size.width <= most;
}
/// Whether it is one of those bases.
bool has_bins(int64_t base);
SizeInPixels snap_size(const SizeInPixels& wanted, int64_t base, int64_t unit);
/// "1024x768", width first as people say it; throws UsageError.
SizeInPixels size_from_text(std::string_view text);

}  // namespace linnet
