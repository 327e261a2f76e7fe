#include "generate_options.h"

#include <fmt/format.h>

#include <charconv>
#include <random>

#include "core/gpu.h"
#include "core/processes.h"
#include "device_argument.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "memory_argument.h"
#include "ops/reduce.h"
#include "pipeline/decode.h"
#include "terminal.h"

namespace linnet::app {

namespace fs = std::filesystem;

uint64_t seed_from(const std::string& text) {
  if (text.empty()) return std::random_device{}();
  uint64_t seed = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (problem != std::errc() || end != text.data() + text.size())
    throw UsageError(
        fmt::format("--seed is a whole number from 0 to 18446744073709551615, not \"{}\"", printable(text)));
  return seed;
}

uint64_t seed_of(const PaintOptions& options) {
  return options.seed.empty() && options.to_folder() ? 0 : seed_from(options.seed);
}

namespace {

TimeInterval interval_from(std::string_view text) {
  TimeInterval interval;
  const char* const end = text.data() + text.size();
  const auto from = std::from_chars(text.data(), end, interval.from);
  const bool goes_on = from.ec == std::errc() && from.ptr != end && *from.ptr == ':';
  const auto to = goes_on ? std::from_chars(from.ptr + 1, end, interval.to) : from;
  const auto is_timestep = [](float t) { return t >= 0 && t <= 999; };
  if (!goes_on || to.ec != std::errc() || to.ptr != end || !is_timestep(interval.from) ||
      !is_timestep(interval.to))
    throw UsageError(fmt::format("--cfg-interval is two timesteps from 0 to 999, such as 300:999, not \"{}\"",
                                 printable(text)));
  return interval;
}

}  // namespace

GenerateOptions sampling_options(const PaintOptions& options, const GenerateOptions& usual) {
  GenerateOptions result = usual;
  if (!options.sampler.empty()) result.sampler = sampler_from_name(options.sampler);
  if (options.steps) result.steps = *options.steps;
  if (options.guidance_scale) result.guidance_scale = static_cast<float>(*options.guidance_scale);
  const std::string& channels = options.guided_channels;
  if (!channels.empty() && channels != "3" && channels != "all")
    throw UsageError(fmt::format("--cfg-channels is 3 or all, not \"{}\"", printable(channels)));
  if (!options.guided_interval.empty()) result.guided = interval_from(options.guided_interval);
  if (options.clip != "auto" && options.clip != "on" && options.clip != "off")
    throw UsageError(fmt::format("--clip is auto, on or off, not \"{}\"", printable(options.clip)));
  if (options.clip != "auto") result.clip_x0 = options.clip == "on";
  check_options(result);
  result.device = open_device(options.device);
  // Before anything lies there: what a GPU has given once is not asked for again.
  if (result.device.is_gpu() && !options.memory.empty()) gpu().limit(bytes_from(options.memory));
  return result;
}

Tensor start_noise(const PaintOptions& options) {
  if (options.noise.empty()) return {};
  const auto file = SafetensorsFile::open(options.noise);
  Tensor noise = file.tensor("noise").to(DType::f32);
  check(ops::all_finite(noise), "{}: tensor 'noise' holds numbers that are not finite (NaN or infinite)",
        file.source());
  return noise;
}

fs::path vae_path(const PaintOptions& options) {
  if (!options.vae.empty()) return options.vae;
  const fs::path beside = fs::path(options.model) / "vae";
  return fs::is_directory(beside) ? beside : fs::path();
}

PictureWriter::Decode decoder(const Vae* vae, size_t memory) {
  if (!vae) return {};
  return [vae, memory](const Tensor& sample) { return decode_samples(*vae, sample, memory); };
}

std::string describe(const PictureWriter& writer, double seconds) {
  const int64_t n = writer.painted();
  std::string text =
      fmt::format("{}{} in {}", which_process(process_share()), counted(n, "picture"), duration(seconds));
  if (n > 0) text += fmt::format(", {} each", duration(seconds / static_cast<double>(n)));
  if (n > 0 && writer.decoding()) text += fmt::format("; decoding took {}", duration(*writer.decoding()));
  if (writer.kept() > 0) text += fmt::format(", {} were there", writer.kept());
  return text;
}

}  // namespace linnet::app
