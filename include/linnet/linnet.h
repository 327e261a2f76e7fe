// Linnet in a C++ program: load a model, paint pictures. This header and error.h are the whole public
// interface; they need nothing but the standard library. Link to the CMake target linnet::linnet.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <linnet/error.h>

namespace linnet {

/// Type of the large products. automatic: int8 if the file's weights are in 8 bits, else bf16 where the CPU has
/// instructions for it, else f32.
enum class Precision : uint8_t { automatic, f32, bf16, int8 };

/// A finished picture: (height, width, 3) bytes, interleaved RGB.
struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

/// What to paint. Equal requests on one machine with as many threads give equal bytes.
struct Request {
  std::vector<std::string>
      classes;                   ///< names or indices; picture i shows classes[i mod size]; empty: all in turn
  int64_t count = 1;             ///< pictures in all
  uint64_t seed = 0;             ///< picture i is drawn from seed + i
  std::string sampler = "ddim";  ///< "ddpm", "ddim" or "dpm++"
  int steps = 50;                ///< 1..1000 (dpm++: ..999)
  float guidance_scale = 3.0f;   ///< 1: none
  int64_t batch = 0;             ///< pictures at once; 0: chosen by the model's size
  size_t memory = size_t{4} << 30;  ///< most bytes that decoding latents may take beside weights; 0: no limit

  /// Called after every denoising step of every batch; return false to stop: paint() then throws Cancelled.
  std::function<bool(int step, int steps)> on_step = {};
};

/// Thrown by Model::paint when on_step said so.
class Cancelled : public Error {
 public:
  Cancelled() : Error("cancelled") {}
};

/// A model ready to paint. Movable; one model may not paint on two threads at once.
class Model {
 public:
  /// A model of any kind that `linnet info` knows; its weights are mapped, not read. A model of latents needs
  /// the autoencoder that decodes them, a folder or a file; by default the one in the model's folder. Throws
  /// Error when a file cannot be read or holds no such model, UsageError when the two do not go together.
  explicit Model(const std::filesystem::path& file, Precision precision = Precision::automatic,
                 const std::filesystem::path& autoencoder = {});
  /// The small model that is part of the library.
  static Model builtin(Precision precision = Precision::automatic);

  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;
  ~Model();

  /// Names by index; empty if the model knows none. Those of ImageNet's thousand are known.
  const std::vector<std::string>& class_names() const;
  int64_t class_count() const;
  /// Side of the pictures in pixels.
  int64_t picture_size() const;

  /// Throws UsageError on a request that this model cannot fulfil, Cancelled when on_step returned false.
  std::vector<Picture> paint(const Request& request) const;

 private:
  struct State;
  explicit Model(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// How many threads products and kernels use from now on, in all models; at first, as many as the machine has.
void set_thread_count(int count);

}  // namespace linnet
