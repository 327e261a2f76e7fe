#include "models/vae_blocks.h"

#include "ops/pixels.h"
#include "ops/wide_attention.h"

namespace linnet::vae {
namespace {

constexpr float norm_epsilon = 1e-6f;
constexpr int64_t band_bytes = 8 << 20;
constexpr size_t room_for_bands = 6 * band_bytes;  // a block has about so many of them at a time

int64_t row_bytes(const RowSource& x) {
  return x.shape[2] * x.shape[3] * static_cast<int64_t>(size_of(x.dtype));
}

// Calls band(begin, end) from the first row to the last.
template <class Band>
void for_bands(const RowSource& x, Band&& band) {
  const int64_t rows = std::max<int64_t>(8, band_bytes / row_bytes(x));
  for (int64_t begin = 0; begin < x.shape[1]; begin += rows) band(begin, std::min(begin + rows, x.shape[1]));
}

// Rows begin..end of x, and those around that a convolution looks at; and which zeros are still missing.
struct Surrounded {
  Tensor rows;
  ops::ConvWindow window;
};
Surrounded surround(const RowSource& x, const nn::Conv2d& conv, int64_t begin, int64_t end) {
  const int64_t reach = conv.reach(), from = std::max<int64_t>(0, begin - reach),
                to = std::min(x.shape[1], end + reach);
  return {x.rows(from, to), {1, from - (begin - reach), reach, end + reach - to, reach}};
}

// A picture whose rows are overwritten from the top on, of which the last few are still there as they were.
class RollingPicture {
 public:
  RollingPicture(Tensor picture, int64_t kept) : picture_(std::move(picture)), kept_(kept) {}

  /// Rows that may begin up to `kept` above what is overwritten.
  Tensor rows(int64_t begin, int64_t end) const {
    if (begin >= overwritten_) return ops::crop_rows(picture_, begin, end);
    Tensor result = Tensor::empty({1, end - begin, picture_.size(2), picture_.size(3)}, picture_.dtype(),
                                  picture_.device());
    const int64_t first = overwritten_ - saved_.size(1);
    ops::copy_rows(ops::crop_rows(saved_, begin - first, saved_.size(1)), result, 0);
    if (end > overwritten_)
      ops::copy_rows(ops::crop_rows(picture_, overwritten_, end), result, overwritten_ - begin);
    return result;
  }
  RowSource source() const {
    return {picture_.shape(), picture_.dtype(),
            [this](int64_t begin, int64_t end) { return rows(begin, end); }};
  }
  /// The next rows, up to end, to be overwritten; they are part of the picture.
  Tensor next(int64_t end) {
    saved_ = rows(std::max<int64_t>(0, end - kept_), end).clone();
    Tensor result = ops::crop_rows(picture_, overwritten_, end);
    overwritten_ = end;
    return result;
  }

 private:
  Tensor picture_, saved_;
  int64_t kept_, overwritten_ = 0;
};

// What may be written over: x itself if nobody else holds it.
Tensor own(const Tensor& x) { return x.shares_memory() || x.read_only() ? x.clone() : x; }

// Sums over the bands of mean and squared deviation, put together as by Chan, Golub and LeVeque (1983).
class MergedMoments {
 public:
  void add(const Tensor& given, double pixels) {
    const Tensor moments = given.host();
    device_ = given.device();
    if (sums_.empty()) sums_.resize(static_cast<size_t>(moments.numel()));
    const double both = pixels_ + pixels;
    for (size_t i = 0; i < sums_.size(); i += 2) {
      const double mean = moments.data<float>()[i], variance = moments.data<float>()[i + 1],
                   apart = mean - sums_[i];
      sums_[i] += apart * pixels / both;
      sums_[i + 1] += variance * pixels + apart * apart * pixels_ * pixels / both;
    }
    pixels_ = both;
  }
  Tensor done(const Shape& shape) const {
    Tensor result = Tensor::empty(shape);
    for (size_t i = 0; i < sums_.size(); i += 2) {
      result.mutable_data<float>()[i] = static_cast<float>(sums_[i]);
      result.mutable_data<float>()[i + 1] = static_cast<float>(sums_[i + 1] / pixels_);
    }
    return result.to(device_);
  }

 private:
  std::vector<double> sums_;
  double pixels_ = 0;
  Device device_;
};

}  // namespace

RowSource RowSource::of(const Tensor& picture) {
  return {picture.shape(), picture.dtype(),
          [picture](int64_t begin, int64_t end) { return ops::crop_rows(picture, begin, end); }};
}

RowSource upsampled(const RowSource& x, const nn::UpsampleConv& conv) {
  const Shape shape{1, 2 * x.shape[1], 2 * x.shape[2], x.shape[3]};
  return {shape, x.dtype, [x, &conv](int64_t begin, int64_t end) {
            const int64_t first = begin / 2, last = (end + 1) / 2;  // rows of x that these come of
            const bool at_top = first == 0, at_bottom = last == x.shape[1];
            const Tensor seen = x.rows(at_top ? 0 : first - 1, at_bottom ? last : last + 1);
            return ops::crop_rows(conv.forward(seen, at_top, at_bottom), begin - 2 * first, end - 2 * first);
          }};
}

RowSource normalised_conv(const RowSource& x, const nn::GroupNorm& norm, const Tensor& moments,
                          const nn::Conv2d& conv, DType out_dtype) {
  const Shape shape = x.shape.with_last(conv.weight.shape[0]);
  return {shape, out_dtype, [x, &norm, moments, &conv, out_dtype](int64_t begin, int64_t end) {
            Surrounded input = surround(x, conv, begin, end);
            const Tensor normalised = norm.apply(std::move(input.rows), moments, true);
            return conv.forward(normalised, input.window, out_dtype);
          }};
}

Tensor moments_of(const RowSource& x, const nn::GroupNorm& norm) {
  MergedMoments merged;
  for_bands(x, [&](int64_t begin, int64_t end) {
    merged.add(norm.moments(x.rows(begin, end)), static_cast<double>((end - begin) * x.shape[2]));
  });
  return merged.done({1, norm.groups, 2});
}

Tensor gather(const RowSource& x) {
  Tensor result;
  for_bands(x, [&](int64_t begin, int64_t end) {
    const Tensor band = x.rows(begin, end);
    if (!result.defined()) result = Tensor::empty(x.shape, x.dtype, band.device());
    ops::copy_rows(band, result, begin);
  });
  return result;
}

ResnetBlock::ResnetBlock(int64_t in, int64_t out, int64_t groups)
    : norm1_(groups, in, norm_epsilon), norm2_(groups, out, norm_epsilon), conv1_(in, out, 3),
      conv2_(out, out, 3) {
  if (in != out) shortcut_.emplace(in, out, 1);
}

Tensor ResnetBlock::forward(Tensor x) const {
  Tensor sum = shortcut_ ? shortcut_->forward(x) : own(x);
  Tensor h = norm1_.forward(std::move(x), true);
  h = conv1_.forward(h);
  h = norm2_.forward(std::move(h), true);
  return conv2_.add_to(std::move(sum), h);
}

RowSource ResnetBlock::middle(const RowSource& x) const {
  return normalised_conv(x, norm1_, moments_of(x, norm1_), conv1_, x.dtype);
}

// What the second convolution looks at for these rows, and the zeros that it still wants around.
Tensor ResnetBlock::normalised_rows(const RowSource& middle, const Tensor& moments, int64_t begin, int64_t end,
                                    ops::ConvWindow& window) const {
  Surrounded input = surround(middle, conv2_, begin, end);
  window = input.window;
  return norm2_.apply(std::move(input.rows), moments, true);
}

Tensor ResnetBlock::forward_in_bands(const RowSource& x) const {
  Tensor result = gather(middle(x));  // what lies between, to be overwritten
  RollingPicture picture(result, conv2_.reach());
  const RowSource h = picture.source();
  const Tensor moments = moments_of(h, norm2_);
  for_bands(h, [&](int64_t begin, int64_t end) {
    ops::ConvWindow window;
    const Tensor normalised = normalised_rows(h, moments, begin, end, window);
    const Tensor rows = x.rows(begin, end);
    Tensor sum = picture.next(end);
    ops::copy_rows(shortcut_ ? shortcut_->forward(rows) : rows, sum, 0);
    conv2_.add_to(std::move(sum), normalised, window);
  });
  return result;
}

Tensor ResnetBlock::forward_in_place(Tensor x, size_t memory) const {
  check(!shortcut_, "a block that changes the number of channels cannot work in place");
  RollingPicture picture(x, conv1_.reach() + conv2_.reach());
  RowSource h = middle(picture.source());
  if (2 * x.bytes() + room_for_bands <= memory) h = RowSource::of(gather(h));
  const Tensor moments = moments_of(h, norm2_);
  for_bands(h, [&](int64_t begin, int64_t end) {
    ops::ConvWindow window;
    const Tensor normalised = normalised_rows(h, moments, begin, end, window);
    conv2_.add_to(picture.next(end), normalised, window);
  });
  return x;
}

void ResnetBlock::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  norm1_.visit(prefix + "norm1.", visitor);
  conv1_.visit(prefix + "conv1.", visitor);
  norm2_.visit(prefix + "norm2.", visitor);
  conv2_.visit(prefix + "conv2.", visitor);
  if (shortcut_) shortcut_->visit(prefix + "conv_shortcut.", visitor);
}

AttentionBlock::AttentionBlock(int64_t channels, int64_t groups)
    : norm_(groups, channels, norm_epsilon), q_(channels, channels, 1), k_(channels, channels, 1),
      v_(channels, channels, 1), out_(channels, channels, 1) {}

Tensor AttentionBlock::forward(Tensor x) const {
  x = own(x);
  const Tensor h = norm_.forward(x, false);
  const Shape tokens{x.size(0), x.size(1) * x.size(2), x.size(3)};
  const Tensor mixed = ops::wide_attention(q_.forward(h).reshape(tokens), k_.forward(h).reshape(tokens),
                                           v_.forward(h).reshape(tokens));
  const Shape shape = x.shape();
  return out_.add_to(std::move(x), mixed.reshape(shape));
}

void AttentionBlock::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  norm_.visit(prefix + "group_norm.", visitor);
  q_.visit(prefix + "to_q.", visitor);
  k_.visit(prefix + "to_k.", visitor);
  v_.visit(prefix + "to_v.", visitor);
  out_.visit(prefix + "to_out.0.", visitor);
}

MidBlock::MidBlock(int64_t channels, int64_t groups, bool attention) {
  resnets_.assign(2, ResnetBlock(channels, channels, groups));
  if (attention) attention_.emplace(channels, groups);
}

Tensor MidBlock::forward(Tensor x) const {
  x = resnets_[0].forward(std::move(x));
  if (attention_) x = attention_->forward(std::move(x));
  return resnets_[1].forward(std::move(x));
}

void MidBlock::visit(const std::string& prefix, const nn::ParameterVisitor& visitor) {
  if (attention_) attention_->visit(prefix + "attentions.0.", visitor);
  for (size_t i = 0; i < resnets_.size(); ++i)
    resnets_[i].visit(fmt::format("{}resnets.{}.", prefix, i), visitor);
}

}  // namespace linnet::vae
