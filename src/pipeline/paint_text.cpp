#include "pipeline/paint_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "io/text.h"

namespace linnet {
namespace {

// Height and width of PixArt's bins in sixteenths of the base, from the widest to the square; the rest are
// these turned. The last four are of the model of 2048 pixels alone.
struct Bin {
  int height, width;
  bool tall_too = true, large_only = false;
};
constexpr Bin bins[] = {{8, 32},
                        {8, 29, false},
                        {9, 28, false},
                        {9, 27},
                        {9, 26, false},
                        {10, 25},
                        {10, 24},
                        {11, 23},
                        {11, 22},
                        {11, 21, false},
                        {12, 21},
                        {12, 20},
                        {13, 19},
                        {13, 18},
                        {14, 18},
                        {14, 17},
                        {15, 17},
                        {15, 16},
                        {16, 16, false},
                        {8, 31, true, true},
                        {8, 30, true, true},
                        {8, 29, true, true},
                        {9, 28, true, true},
                        {9, 26, true, true}};

// What guidance leads away from when it leads to `text`.
Tensor opposite_of(const Tensor& text, const PixArt& model, const TextPaintRequest& request) {
  return request.negative.defined() ? request.negative : model.null_text().states.rows(0, text.size(0));
}

}  // namespace

void take_states(TextPaintRequest& request, std::vector<Tensor> states, int64_t prompts) {
  if (static_cast<int64_t>(states.size()) > prompts) request.negative = states.back();
  states.resize(static_cast<size_t>(prompts));
  request.texts = std::move(states);
}

int64_t default_batch(const PixArtConfig& model, int64_t height, int64_t width) {
  const int64_t tokens = std::max<int64_t>(1, height / model.patch_size * (width / model.patch_size));
  return std::clamp<int64_t>(2048 / tokens, 1, 32);
}

void check_request(const TextPaintRequest& request, const PixArtConfig& model, bool with_negative) {
  check_options(request.options);
  if (request.count < 1 || request.count > most_pictures)
    throw UsageError(
        fmt::format("1 to {} pictures can be painted at a call, not {}", most_pictures, request.count));
  if (request.batch < 0) throw UsageError(fmt::format("{} pictures at once are impossible", request.batch));
  if (request.height <= 0 || request.width <= 0 || request.height % model.patch_size != 0 ||
      request.width % model.patch_size != 0)
    throw UsageError(fmt::format("latents of {} x {} cannot be cut into patches of {}", request.height,
                                 request.width, model.patch_size));
  const int64_t rows = request.height / model.patch_size, columns = request.width / model.patch_size;
  const int64_t own = model.sample_size / model.patch_size;
  if (nn::is_focused(model.mixer) && (rows != own || columns != own))
    throw UsageError(
        fmt::format("the mixer {} learned a position for each token of {} x {} and paints no other size",
                    nn::name_of(model.mixer), own, own));
  for (const int64_t side : model.kv_compression)
    if (rows < side || columns < side)
      throw UsageError(fmt::format("latents of {} x {} are too small: the model joins {} x {} tokens to one",
                                   request.height, request.width, side, side));
  if (request.options.guidance_scale != 1.0f && !with_negative && !model.null_caption)
    throw UsageError("this model has no embedding of no text: guidance needs an encoded negative prompt");
  if (!request.noise.defined()) return;
  const Shape wanted{request.count, model.in_channels, request.height, request.width};
  check(request.noise.shape() == wanted, "the noise has shape {}, these pictures need {}",
        to_string(request.noise.shape()), to_string(wanted));
}

Tensor paint_batch(const PixArt& model, const TextPaintRequest& request, int64_t first, int64_t end) {
  check(!request.texts.empty(), "there is no text to paint");
  std::vector<Tensor> shown, all;
  std::vector<uint64_t> seeds;
  for (int64_t i = first; i < end; ++i) {
    shown.push_back(request.texts[static_cast<size_t>(i) % request.texts.size()]);
    seeds.push_back(request.seed_of(i));
  }
  all = shown;
  if (request.options.guidance_scale != 1.0f)
    for (const Tensor& text : shown) all.push_back(opposite_of(text, model, request));
  const GenerateOptions& options = request.options;
  const auto told = [&](const std::vector<Tensor>& texts) -> Denoiser {
    TextStates joined = join(texts);
    joined.states = joined.states.to(options.device);
    return [&model, joined](const Tensor& x, const Tensor& t) { return model.forward(x, t, joined); };
  };
  const Tensor noise = request.noise.defined() ? request.noise.rows(first, end) : Tensor();
  return sample({told(shown), told(all)}, model.config().prediction,
                {model.config().in_channels, request.height, request.width}, seeds, options, noise);
}

bool has_bins(int64_t base) {
  constexpr int64_t bases[] = {256, 512, 1024, 2048};
  return std::ranges::find(bases, base) != std::end(bases);
}

SizeInPixels snap_size(const SizeInPixels& wanted, int64_t base, int64_t unit) {
  const auto rounded = [unit](int64_t side) { return std::max<int64_t>(1, (side + unit / 2) / unit) * unit; };
  if (!has_bins(base)) return {rounded(wanted.height), rounded(wanted.width)};
  const double ratio = static_cast<double>(wanted.height) / static_cast<double>(wanted.width);
  SizeInPixels nearest;
  std::pair closest(std::numeric_limits<double>::infinity(), 0.0);
  // PixArt looks for the nearest among ratios of two decimals, from the smallest on.
  const auto consider = [&](int64_t height, int64_t width) {
    const double bin = std::nearbyint(100.0 * static_cast<double>(height) / static_cast<double>(width)) / 100;
    const std::pair here(std::abs(bin - ratio), bin);
    if (here >= closest) return;
    closest = here;
    nearest = {height * base / 16, width * base / 16};
  };
  for (const Bin& bin : bins) {
    if (bin.large_only && base != 2048) continue;
    consider(bin.height, bin.width);
    if (bin.tall_too) consider(bin.width, bin.height);
  }
  return {rounded(nearest.height), rounded(nearest.width)};
}

SizeInPixels size_from_text(std::string_view text) {
  SizeInPixels size;
  const char *begin = text.data(), *end = begin + text.size();
  const auto width = std::from_chars(begin, end, size.width);
  const bool separated =
      width.ec == std::errc() && width.ptr != end && (*width.ptr == 'x' || *width.ptr == 'X');
  const auto height = separated ? std::from_chars(width.ptr + 1, end, size.height)
                                : std::from_chars_result{begin, std::errc::invalid_argument};
  const bool whole = height.ec == std::errc() && height.ptr == end;
  if (!whole || !is_size(size))
    throw UsageError(
        fmt::format("a size is width x height in pixels, such as 1024x768, not \"{}\"", printable(text)));
  return size;
}

}  // namespace linnet
