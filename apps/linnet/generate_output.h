// Where linnet generate's pictures go: one file, numbered files, a sheet, or a folder that can be gone on with.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/processes.h"
#include "io/image.h"
#include "models/vae.h"
#include "terminal.h"

namespace linnet::app {

struct OutputOptions {
  std::string output, latents, npz, memory, format, preview = "auto";
  std::optional<int> quality, preview_every;
  int64_t columns = 8, scale = 0;
  bool grid = false;

  /// Pictures go to a folder: what is there already is not painted again.
  bool to_folder() const;
  /// --memory, or as much as decoding takes on a CPU unless told otherwise.
  std::string decoding_memory() const { return memory.empty() ? "4G" : memory; }
  /// As a name's ending: ".png". That of the output, or of the files in a folder.
  std::string extension() const;
  /// The file of the first picture in a folder, or the output itself.
  std::filesystem::path first_file() const;
  /// "out.preview.png"; of a folder "samples.preview.png", beside it, as what is in it is looked at as a set.
  /// Processes that share a folder have one each.
  std::filesystem::path preview_file() const;
};

/// Throws UsageError on what makes no sense, Error when something cannot be written; makes the folder.
void prepare_outputs(const OutputOptions& options);

/// Throws Error when so many pictures of that size make a sheet that is too large, if a sheet is wanted, or
/// when a file of the output's format cannot be as large as what it is to hold.
void check_sizes(const OutputOptions& options, int64_t count, int64_t width, int64_t height);

/// Bytes for decoding a picture, as --memory says, or what it takes unless told otherwise; 0: as many as there
/// are. That is on a GPU, all of whose memory --memory limits (sampling_options()): what is too large for it is
/// decoded in bands.
size_t decoding_limit(const OutputOptions& options, const Device& device);

/// What is painted, as far as the files that show it are concerned.
struct PictureJob {
  int64_t count = 1;
  Shape sample;  ///< (c, h, w) of one picture as the model samples it
  std::function<ImageText(int64_t picture)> text_of;
  std::function<ImageText()> sheet_text;
  const char* title = "class";  ///< which entry of the text says in a word what a picture shows
};

/// Takes finished samples and writes what was asked for.
class PictureWriter {
 public:
  /// A sample (1, c, h, w) as the picture (1, 3, height, width) that it means; none: it is one.
  using Decode = std::function<Tensor(const Tensor& sample)>;
  /// All must outlive this. Throws UsageError when a picture would take the place of another output, and
  /// Error when its text does not fit into a file of its format.
  PictureWriter(const OutputOptions& options, const PictureJob& job, Decode decode);

  /// Throws Error when a picture is there that was painted otherwise: to be asked before what takes long.
  void check_what_is_there();
  /// Whether these pictures are this process's to paint and not there yet. Throws Error when there are others
  /// by their names.
  bool lacks(int64_t first, int64_t end, int64_t batch);
  /// The same when their turn has come: those that are there already are counted as kept.
  bool wants(int64_t first, int64_t end, int64_t batch);
  /// Samples of the pictures from first on; decoding them is shown.
  void take(int64_t first, const Tensor& samples, Progress& progress);
  void finish();

  int64_t painted() const { return painted_; }
  int64_t kept() const { return kept_; }
  /// Seconds that decoding has taken; nothing where nothing is decoded.
  std::optional<double> decoding() const { return decode_ ? std::optional(decoding_) : std::nullopt; }
  /// "out.png", or "out-0001.png to out-0016.png"
  std::string what_was_written() const;

 private:
  void check_pictures_places() const;
  void check_texts_fit() const;
  std::filesystem::path path_of(int64_t picture) const;
  bool is_ours(int64_t first, int64_t batch) const { return first / batch % share_.count == share_.index; }
  /// Whether it is there and whole. Throws Error when it was painted otherwise.
  bool is_there(int64_t picture);
  void write_one(int64_t picture, const Image& image) const;
  ImageText text_of_sheet() const;
  void write_sheet() const;
  void write_npz();

  const OutputOptions& options_;
  const PictureJob& job_;
  Decode decode_;
  const ProcessShare share_ = process_share();
  int64_t painted_ = 0, kept_ = 0;
  double decoding_ = 0;
  std::vector<bool> seen_;  // those in the folder that were looked at
  Tensor latents_;
  std::vector<Image> sheet_;
};

}  // namespace linnet::app
