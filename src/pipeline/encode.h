// From a data set of pictures, with classes or texts, to cached latents and texts' states (io/latents.h), part
// by part: each shard is written when it is complete, and one that is there is not made again.
#pragma once

#include <functional>

#include "core/processes.h"
#include "io/latents.h"
#include "io/picture_set.h"
#include "models/pixart.h"
#include "models/vae.h"

namespace linnet {

struct EncodeOptions {
  int64_t size = 256;  ///< pictures are scaled and cropped to its square, as ADM and DiT do
  /// Instead to about as many pixels in the ratio of height to width that is nearest among PixArt's; size is
  /// 256, 512, 1024 or 2048.
  bool buckets = false;
  bool flip = false;  ///< encode the mirrored pictures too
  DType stored = DType::f16;
  int64_t batch = 8;
  Device device = {};       ///< where the autoencoder lies
  ProcessShare share = {};  ///< of several processes each makes every n-th shard
  /// Of pictures with texts: the states of some, and what names the encoder that gives them.
  std::function<std::vector<Tensor>(const std::vector<std::string>& texts)> encode_texts = {};
  std::string text_encoder = {};
  /// Before that, and at a resumed run too: how many of the data set's files were looked into to see whether it
  /// is that of before; may throw to stop.
  PictureSet::OnChecked on_checked = {};
  /// Pictures encoded or left out so far, and how many of them in this run and not in one before; may throw to
  /// stop. Told of shards that were there, too.
  std::function<void(int64_t done, int64_t now)> on_pictures = {};
};

struct EncodeResult {
  int64_t pictures = 0;             ///< in all of this process's shards
  int64_t shards = 0, written = 0;  ///< of this process, and those of them that were made now
  std::vector<std::string> broken;  ///< a sentence with its name for each, of these shards
};

/// Throws Error when the folder holds shards of other pictures or settings, UsageError on a size that the
/// autoencoder cannot take. vae_fingerprint says which weights it has.
EncodeResult encode_pictures(const Vae& vae, const std::string& vae_fingerprint, const PictureSet& pictures,
                             const std::filesystem::path& folder, const EncodeOptions& options);

}  // namespace linnet
