#include "api/common.h"

#include <atomic>
#include <utility>

#include "core/gpu.h"
#include "core/parallel.h"
#include "io/file.h"
#include "io/image.h"
#include "pipeline/decode.h"

namespace linnet {
namespace {

// OpenMP keeps its number for each thread that calls it, and whoever embeds this may paint on any.
constexpr int not_said = -1;
std::atomic<int> wanted_threads = not_said;

}  // namespace

namespace api {

Turn::Turn(const Device& device) : callers_threads_(threads()), callers_dynamic_(omp_get_dynamic()) {
  static auto* const gpu_in_use = new std::recursive_mutex;  // never destroyed: a static model may outlive it
  if (device.is_gpu()) lock_ = std::unique_lock(*gpu_in_use);
  const int count = wanted_threads;
  set_threads(count == not_said ? threads() : count == 0 ? omp_get_num_procs() : count);
}

Turn::~Turn() {
  omp_set_num_threads(callers_threads_);
  omp_set_dynamic(callers_dynamic_);
}

std::string_view name_of(Precision precision) {
  constexpr std::string_view names[] = {"auto", "f32", "bf16", "int8", "f16"};
  const auto index = static_cast<size_t>(precision);
  if (index >= std::size(names)) throw UsageError(fmt::format("there is no precision of number {}", index));
  return names[index];
}

void check_decodes_nothing(const std::filesystem::path& autoencoder) {
  if (!autoencoder.empty()) throw UsageError("this model paints pixels: the autoencoder has nothing to decode");
}

std::unique_ptr<Vae> decoder_for(int64_t channels, const std::filesystem::path& model,
                                 const std::filesystem::path& given, DType products, const Device& device) {
  if (channels == 3) {
    check_decodes_nothing(given);
    return nullptr;
  }
  const bool inside = given.empty() && is_folder(model / "vae");
  if (given.empty() && !inside)
    throw UsageError(fmt::format("this model makes latents of {} channels and needs an autoencoder", channels));
  return load_decoder(inside ? model / "vae" : given, channels, products, device);
}

namespace {

// Throws Cancelled when the callback returns false, and tells its std::bad_alloc from the library's.
template <class Callback, class... Told>
void tell(const Callback& callback, Told&&... told) {
  try {
    if (!callback(std::forward<Told>(told)...)) throw Cancelled();
  } catch (const std::bad_alloc&) {
    throw CallersBadAlloc{std::current_exception()};
  }
}

}  // namespace

StepCallback watched_by(const std::function<bool(int step, int steps)>& on_step) {
  if (!on_step) return {};
  return [on_step](const SamplingStep& step) { tell(on_step, step.index + 1, step.count); };
}

TakePicture given_to(const OnPicture& on_picture) {
  if (!on_picture) throw UsageError("there is no function to give the pictures to");
  return [on_picture](Picture picture, int64_t index) { tell(on_picture, std::move(picture), index); };
}

void give_pictures(const Tensor& samples, int64_t first, const Vae* vae, size_t memory,
                   const TakePicture& take) {
  for (int64_t i = 0; i < samples.size(0); ++i) {
    const Tensor sample = samples.rows(i, i + 1);
    const Tensor picture = vae ? decode_samples(*vae, sample, memory) : sample.host();
    Image image = to_image(picture.reshape({picture.size(1), picture.size(2), picture.size(3)}));
    take({image.width, image.height, std::move(image.rgb)}, first + i);
  }
}

}  // namespace api

const char* version() { return LINNET_VERSION; }

bool has_device(const std::string& name) {
  return api::without_bad_alloc([&] {
    try {
      const Device device = device_from_name(name);
      return !device.is_gpu() || has_gpu(device);
    } catch (const UsageError&) {
      return false;
    }
  });
}

void set_thread_count(int count) {
  if (count < 0 || count > 1024)
    throw UsageError(fmt::format("the number of threads lies in 0..1024, not {}", count));
  wanted_threads = count;
}

}  // namespace linnet
