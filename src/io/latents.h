// Pictures encoded beforehand: a folder of shards, each a safetensors file with what a picture's latents are
// drawn from, so that training stays as random as with the autoencoder in the loop, and with each picture's
// class or the states of its text. Shards are mapped, not read.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace linnet {

class SafetensorsFile;

/// What all shards of a folder share.
struct LatentSettings {
  std::string autoencoder;                      ///< fingerprint of its weights
  std::string pictures;                         ///< fingerprint of the data set
  int64_t size = 256;                           ///< side of the pictures in pixels, or of a square as large
  bool flipped = false;                         ///< mirrored pictures are there too
  double scaling_factor = 1, shift_factor = 0;  ///< diffusion works on (latents − shift)·scaling
  int64_t shards = 1;                           ///< in all
  bool bucketed = false;                        ///< pictures keep about their ratio of height to width
  std::string text_encoder = {};  ///< fingerprint of its weights and what cut the texts; empty: there are none
  std::string stored = {};        ///< type of the latents, "f16" or "f32"; empty: not said
  std::string products = {};      ///< type of the autoencoder's products; empty: not said
  std::string contents = {};      ///< fingerprint of what is in the data set's files; empty: not said

  bool operator==(const LatentSettings&) const = default;
};

/// Whether latents of both may be of one encoding: what one does not say, as older ones do not of all, agrees
/// with anything.
bool agree(const LatentSettings& a, const LatentSettings& b);

/// Pictures of one size: tensors (n, c, h, w) of f16 or f32. The mirrored ones undefined without.
struct LatentGroup {
  Tensor mean, logvar, flipped_mean, flipped_logvar;
};

/// One shard's pictures, numbered on through its groups.
struct LatentShard {
  std::vector<LatentGroup> groups;
  Tensor labels;  ///< (n) i64; 0 of pictures with texts
  /// Texts' states one after the other, (all tokens, width) f16 or f32: picture i's are rows offsets[i] to
  /// offsets[i + 1] of (n + 1) i64. And those of no text, "". Undefined without texts.
  Tensor states = {}, offsets = {}, no_text = {};
  std::vector<std::string> class_names = {};  ///< to be written; empty if unknown
  std::vector<std::string> broken = {};       ///< the same: what was left out, and why
};

/// "latents-00003-of-00012.safetensors"
std::filesystem::path shard_path(const std::filesystem::path& folder, int64_t shard, int64_t shards);

/// Atomically. Bytes of the broken ones' names that are no UTF-8 become U+FFFD.
void write_latent_shard(const std::filesystem::path& path, const LatentShard& shard,
                        const LatentSettings& settings);
/// What a shard says of itself, without its latents.
struct LatentSummary {
  LatentSettings settings;
  int64_t pictures = 0;
  std::vector<std::string> broken;  ///< what was left out
};
/// Throws Error naming the file when it is no shard.
LatentSummary read_latent_summary(const std::filesystem::path& path);

/// True if there is a shard in the folder.
bool is_latent_folder(const std::filesystem::path& folder);
/// Throws Error if the folder holds shards of which, by their names, there are others than so many.
void check_shards_of(const std::filesystem::path& folder, int64_t shards);

class LatentFolder {
 public:
  /// Throws Error naming the file when a shard is missing, damaged, or does not go with the others.
  static LatentFolder open(const std::filesystem::path& folder);

  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  /// (c, h, w) of a picture.
  Shape shape(int64_t picture) const;
  /// Of every picture. Throws Error if they are of several sizes.
  Shape shape() const;
  bool flipped() const { return settings_.flipped; }
  bool has_texts() const { return !settings_.text_encoder.empty(); }
  int64_t text_width() const { return text_width_; }
  int64_t largest_label() const { return largest_label_; }
  const std::vector<std::string>& class_names() const { return class_names_; }

  int64_t label(int64_t picture) const;
  /// The states of a picture's text, or of no text: (tokens, text_width()) of the type in which the first shard
  /// has them, f16 or f32.
  Tensor text(int64_t picture) const;
  Tensor no_text() const;
  /// Draws a picture's latents as diffusion takes them, (mean + e^(logvar/2)·noise − shift)·scaling; noise and
  /// latents of shape(picture).numel().
  void draw(int64_t picture, bool flipped, std::span<const float> noise, std::span<float> latents) const;

 private:
  struct Place {
    int32_t shard, row;     // in the shard
    int32_t group, inside;  // and in one of its groups
  };
  void add(LatentShard shard, const std::string& source);
  void take_class_names(const SafetensorsFile& file);
  const LatentGroup& group_of(int64_t picture) const;

  LatentSettings settings_;
  int64_t text_width_ = 0;
  DType text_dtype_ = DType::f32;
  std::vector<LatentShard> shards_;
  std::vector<Place> places_;
  std::string class_names_text_;  // as the first shard that has them says them
  std::vector<std::string> class_names_;
  int64_t largest_label_ = -1;
};

}  // namespace linnet
