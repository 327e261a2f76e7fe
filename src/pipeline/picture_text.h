// How a picture was painted, as its text entries: enough to paint it again.
#pragma once

#include "io/image.h"
#include "models/dit.h"
#include "pipeline/paint_text.h"

namespace linnet {

/// What all pictures of one call share beside the request.
struct PictureOrigin {
  std::string software;     ///< "linnet 0.1.0"
  std::string model;        ///< "builtin", or the file's name
  std::string fingerprint;  ///< of its weights
  std::string noise;        ///< fingerprint of the given start noise; empty if drawn from the seed
  std::vector<std::string> class_names = {};
  int threads = 1;
  std::string vae = {};              ///< the autoencoder's name, if it is not in the model's folder
  std::string vae_fingerprint = {};  ///< of what decoded the latents; empty for pixels
  std::string memory = {};           ///< that its activations were limited to, as given
  bool raw_weights = false;          ///< of a training checkpoint, not their moving average
};

/// Entries of one picture.
ImageText picture_text(const PictureOrigin& origin, const PaintRequest& request, const DiT& model,
                       int64_t picture);
/// Entries of a sheet of all pictures: the first seed, the count, and the classes in turn.
ImageText sheet_text(const PictureOrigin& origin, const PaintRequest& request, const DiT& model);

/// What texts were painted, and how they were read.
struct TextOrigin {
  std::vector<std::string> prompts;  ///< picture i shows prompt i modulo how many there are
  std::string negative;
  std::string text_encoder, tokenizer;  ///< their names, if they are not in the model's folder
  std::string cleaning, unconditional;  ///< as given
  SizeInPixels size;
};
/// The same of pictures from texts.
ImageText picture_text(const PictureOrigin& origin, const TextOrigin& told, const TextPaintRequest& request,
                       const PixArtConfig& config, DType dtype, int64_t picture);
ImageText sheet_text(const PictureOrigin& origin, const TextOrigin& told, const TextPaintRequest& request,
                     const PixArtConfig& config, DType dtype);

/// The command that paints the picture again, quoted for bash as one printable line; empty if the entries are
/// not Linnet's.
std::string command_of(const ImageText& text);

}  // namespace linnet
