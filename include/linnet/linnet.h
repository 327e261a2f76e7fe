// Linnet in a C++ program: load a model, paint pictures. This header and error.h are the whole public
// interface; they need nothing but the standard library. Link to the CMake target linnet::linnet.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <linnet/error.h>

namespace linnet {

/// "0.1.0": the version of the library that the program is linked to.
const char* version();

/// Whether a model can be loaded to a device, named as in ModelOptions::device, as far as can be told without
/// loading one; false of a name that is none. A process that has had a model on a GPU has that GPU alone.
bool has_device(const std::string& name);

/// Type of the large products. automatic: int8 if the file's weights are in 8 bits, else bf16 where the device
/// has instructions for it, else f32, or f16 on a GPU, which alone has it.
enum class Precision : uint8_t { automatic, f32, bf16, int8, f16 };

/// How a model of classes is loaded, and where it works.
struct ModelOptions {
  Precision precision = Precision::automatic;
  /// "cpu", "cuda" (an Nvidia GPU), "cuda:1" and so on. All models of a process that are on a GPU are on the
  /// same.
  std::string device = "cpu";
  /// What decodes the samples of a model of latents, a folder or a file; empty: the one in the model's folder.
  std::filesystem::path autoencoder = {};
};

/// The same of a text-to-image model.
struct TextModelOptions {
  Precision precision = Precision::automatic;
  std::string device = "cpu";  ///< as ModelOptions::device
  /// Its parts, folders or files; empty: those in the model's folder.
  std::filesystem::path text_encoder = {}, tokenizer = {}, autoencoder = {};
};

/// A finished picture: (height, width, 3) bytes, interleaved RGB.
struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

/// Timesteps of 0..999, both ends among them: 999 is all noise, 0 the picture.
struct Timesteps {
  float from = 0, to = 999;
};

/// What to paint. Equal requests on one machine with as many threads give equal bytes. Of a seed the low 32
/// bits count, as in PyTorch.
struct Request {
  std::vector<std::string>
      classes;                   ///< names or indices; picture i shows classes[i mod size]; empty: all in turn
  int64_t count = 0;             ///< pictures in all; 0: one of each class that is named, or one
  uint64_t seed = 0;             ///< picture i is drawn from seed + i
  std::string sampler = "ddim";  ///< "ddpm", "ddim" or "dpm++"
  int steps = 50;                ///< 1..1000 (dpm++: ..999)
  float guidance_scale = 3.0f;   ///< 1: none
  Timesteps guided = {};         ///< when there is guidance
  int64_t batch = 0;             ///< pictures at once; 0: chosen by the model's size

  /// Bytes that decoding a picture may take, beside the weights: what needs more is decoded in bands of rows,
  /// which have a least size, to the same picture but for rounding. 0: no limit. Not given: 4 GiB, on a GPU no
  /// limit but the card's.
  std::optional<size_t> decoding_memory = {};

  /// Called after every denoising step of every batch; return false to stop: paint() then throws Cancelled.
  std::function<bool(int step, int steps)> on_step = {};
};

/// What to paint from words.
struct TextRequest {
  std::vector<std::string> prompts;  ///< UTF-8 of at most 64 kB; picture i shows prompts[i mod size]
  std::string negative = {};         ///< what guidance leads away from
  int64_t count = 0;                 ///< pictures in all; 0: one of each prompt
  int64_t width = 0, height = 0;     ///< in pixels, the nearest that suits the model; both 0: its own size
  uint64_t seed = 0;                 ///< picture i is drawn from seed + i
  std::string sampler = "dpm++";     ///< "ddpm", "ddim" or "dpm++"
  int steps = 20;                    ///< 1..1000 (dpm++: ..999)

  /// 1: none. Not given: what suits the model, 4.5 of latents, 3 of pixels.
  std::optional<float> guidance_scale = {};
  /// When there is guidance. Not given: what suits the model, always of latents, {400, 999} of pixels.
  std::optional<Timesteps> guided = {};
  int64_t batch = 0;                                      ///< pictures at once; 0: chosen by their size
  std::optional<size_t> decoding_memory = {};             ///< as Request::decoding_memory
  std::function<bool(int step, int steps)> on_step = {};  ///< as Request::on_step
};

/// Takes a finished picture and its index, from 0 on in order; returns false to stop: paint() then throws
/// Cancelled.
using OnPicture = std::function<bool(Picture picture, int64_t index)>;

/// Thrown by paint() when a callback returned false.
class Cancelled : public Error {
 public:
  Cancelled() : Error("cancelled") {}
};

/// A model ready to paint. Movable, and the one that was moved from throws UsageError from then on. One model
/// may not paint on two threads at once. Several may, those on a GPU by turns.
class Model {
 public:
  /// A model of classes, DiT or LiT, in any file or folder that `linnet info` knows; a text-to-image model is a
  /// TextModel. Its weights are mapped, not read: while the model lives, nobody may write over its file or
  /// shorten it, which ends the process or changes the weights; replacing it by renaming another is safe.
  /// Throws Error when a file cannot be read or holds no such model, or when there is no such device;
  /// UsageError when it is a TextModel's, when latents lack an autoencoder, and when the two do not go
  /// together, as an autoencoder and a model of pixels.
  explicit Model(const std::filesystem::path& file, const ModelOptions& options = {});
  /// The small model that is part of the library, which paints pixels. Throws as the constructor does, and
  /// Error if the library was built without.
  static Model builtin(const ModelOptions& options = {});

  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  /// Names by index; empty if the model knows none. Those of ImageNet's thousand are known.
  const std::vector<std::string>& class_names() const;
  int64_t class_count() const;
  /// Side of the pictures in pixels.
  int64_t picture_size() const;

  /// Throws UsageError on a request that this model cannot fulfil, Error when what it paints is not finite,
  /// Cancelled when a callback returned false; what callbacks throw is passed on.
  std::vector<Picture> paint(const Request& request) const;
  /// The same of pictures that need not all be waited for, or kept: each is given away as soon as its batch is
  /// painted and it is decoded.
  void paint(const Request& request, const OnPicture& on_picture) const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// A text-to-image model ready to paint: PixArt or LiT, its text encoder, its tokenizer and its autoencoder.
/// Movable; threads as of Model.
class TextModel {
 public:
  /// A pipeline's folder as the Hub has it or `linnet quantize` writes it, or a transformer's file with its
  /// parts named. Weights are mapped, not read: files as of Model. Throws Error when a file cannot be read or
  /// holds no such model, or when there is no such device; UsageError or Error when parts are missing or do not
  /// go together.
  explicit TextModel(const std::filesystem::path& model, const TextModelOptions& options = {});
  /// The small model that is part of the library, and has its own parts. Throws as the constructor does, and
  /// Error if the library was built without.
  static TextModel builtin(const TextModelOptions& options = {});

  TextModel(TextModel&&) noexcept;
  TextModel& operator=(TextModel&&) noexcept;
  ~TextModel();

  /// Side in pixels of the pictures that it was made for.
  int64_t picture_size() const;

  /// Whether the model takes all of a prompt, of which it would else leave out the end. Throws Error on one
  /// that paint() does not take.
  bool fits(const std::string& prompt) const;

  /// Prompts that do not fit are cut. Throws UsageError on a request that this model cannot fulfil,
  /// Error on a prompt that is not UTF-8, holds a zero byte or is longer than 65,536 bytes and when what it
  /// paints is not finite, Cancelled when a callback returned false; what callbacks throw is passed on.
  std::vector<Picture> paint(const TextRequest& request) const;
  /// As Model's.
  void paint(const TextRequest& request, const OnPicture& on_picture) const;

 private:
  struct State;
  explicit TextModel(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// How many threads products and kernels use in every call into the library that begins from now on, in all
/// models and on whichever thread, 1..1024; 0: as many as the machine has. At first, as many as OpenMP gives
/// the thread that calls: those of the machine, unless OMP_NUM_THREADS or omp_set_num_threads say otherwise.
/// OpenMP's limits (OMP_THREAD_LIMIT) hold. The caller's own settings of OpenMP are what they were when a call
/// returns. A process that was forked after its parent had painted can paint on one thread alone, which GNU's
/// OpenMP does not tell: there, call set_thread_count(1) first. Throws UsageError on other numbers.
void set_thread_count(int count);

}  // namespace linnet
