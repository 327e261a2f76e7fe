// What both kinds of model of the public interface share.
#pragma once

#include <linnet/linnet.h>

#include <exception>
#include <mutex>
#include <new>

#include "models/vae.h"
#include "pipeline/sampling.h"

namespace linnet::api {

/// "auto", "f32", "bf16", "int8" or "f16". Throws UsageError on others.
std::string_view name_of(Precision precision);

/// Throws UsageError when an autoencoder is given to a model of pixels.
void check_decodes_nothing(const std::filesystem::path& autoencoder);

/// The autoencoder for latents of so many channels, on that device, from the model's folder unless a path is
/// given; null for pixels. Throws UsageError when there is none, or one is given that has nothing to decode.
std::unique_ptr<Vae> decoder_for(int64_t channels, const std::filesystem::path& model,
                                 const std::filesystem::path& given, DType products, const Device& device);

/// A std::bad_alloc that a callback threw, on its way through the library.
struct CallersBadAlloc {
  std::exception_ptr exception;
};

/// What f gives. Where memory ends it throws OutOfMemory, as all that the library throws is its own; what
/// callbacks throw stays as it is.
template <class F>
auto without_bad_alloc(F f) {
  try {
    return f();
  } catch (const CallersBadAlloc& callers) {
    std::rethrow_exception(callers.exception);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory("out of memory");
  }
}

/// Where finished pictures go.
using TakePicture = std::function<void(Picture picture, int64_t index)>;

/// Both pass on what they are told, and throw Cancelled when the callback says so.
StepCallback watched_by(const std::function<bool(int step, int steps)>& on_step);
TakePicture given_to(const OnPicture& on_picture);

/// While there is one, this thread works for the library: with as many threads as set_thread_count() said,
/// which are the caller's number again afterwards, and, on a GPU, which records for one at a time, while no
/// other thread does.
class Turn {
 public:
  explicit Turn(const Device& device);
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  int callers_threads_, callers_dynamic_;
  std::unique_lock<std::recursive_mutex> lock_;  // callbacks may paint too
};

/// What a model holds. Throws UsageError if it has been moved to another.
template <class State>
State& held(const std::unique_ptr<State>& state) {
  if (!state) throw UsageError("this model was moved to another object");
  return *state;
}

/// Ends what a model holds, in its turn: on a GPU it may wait for work there, which spoils what another thread
/// records.
template <class State>
void end(std::unique_ptr<State>& state) noexcept {
  if (!state) return;
  const Turn turn(state->device);
  state.reset();
}

/// Of guidance, as the pipeline has it.
inline TimeInterval interval_of(const Timesteps& timesteps) { return {timesteps.from, timesteps.to}; }

/// Gives away the pictures of samples (n, c, h, w), of which the first has that index, decoded if there is an
/// autoencoder.
void give_pictures(const Tensor& samples, int64_t first, const Vae* vae, size_t memory,
                   const TakePicture& take);

/// All pictures that paint() gives to the function that it is called with.
template <class Paint>
std::vector<Picture> all_pictures(Paint paint) {
  std::vector<Picture> pictures;
  paint([&](Picture picture, int64_t) { pictures.push_back(std::move(picture)); });
  return pictures;
}

}  // namespace linnet::api
