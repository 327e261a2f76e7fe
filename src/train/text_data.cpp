// Pictures with texts: a folder of pictures with captions, or of latents with their texts' states.
#include <utility>

#include "io/captions.h"
#include "io/latents.h"
#include "io/text.h"
#include "pipeline/paint_text.h"
#include "pipeline/text_encoding.h"
#include "train/drawn_data.h"

namespace linnet {
namespace {

// Texts are cut into pieces when they come; whoever has the encoder makes states of them.
class TextFolderData : public DrawnData {
 public:
  TextFolderData(const TrainConfig& config, const ProcessShare& share)
      : DrawnData(config, share), model_(config.of_texts()), pictures_(read_captions(config.data.path)),
        tokenizer_(Tokenizer::open(config.text.tokenizer)) {
    check(model_.in_channels == 3,
          "{}: pictures have 3 channels, but the model takes latents of {}: let `linnet encode --captions` "
          "make them of these pictures, and train on its folder",
          config.data.path, model_.in_channels);
    for (const CaptionedPicture& picture : pictures_)
      check(picture.fault.empty(), "{}: {}", printable(picture.path.string(), 4096), picture.fault);
  }

 protected:
  int64_t count() const override { return static_cast<int64_t>(pictures_.size()); }

  void read(const Drawn& drawn, std::span<float> values) const override {
    read_pixels(pictures_[static_cast<size_t>(drawn.picture)].path, model_.sample_size, drawn.flipped, values);
  }

  void add_conditions(const std::vector<Drawn>& drawn, Batch& batch) const override {
    std::vector<std::string> texts;
    for (const Drawn& one : drawn) {
      const bool dropped = is_dropped(one.counter, config_.text.dropout);
      texts.push_back(dropped ? std::string() : pictures_[static_cast<size_t>(one.picture)].caption);
    }
    batch.ids = tokenize(tokenizer_, texts, model_.caption_tokens, Cleaning::lower).ids;
  }

 private:
  const PixArtConfig model_;
  const std::vector<CaptionedPicture> pictures_;
  const Tokenizer tokenizer_;
};

// Which pictures make up the batches of an epoch when every batch is of one shape: pictures come in the epoch's
// order, and a batch is full when so many of its shape have come. What is left of each shape is left out of
// this epoch.
std::vector<std::vector<int64_t>> batches_of(const std::vector<int64_t>& order,
                                             const std::function<Shape(int64_t)>& shape_of, int64_t size) {
  std::vector<std::vector<int64_t>> batches;
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> waiting;
  for (const int64_t picture : order) {
    const Shape shape = shape_of(picture);
    std::vector<int64_t>& batch = waiting[{shape[1], shape[2]}];
    batch.push_back(picture);
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(std::exchange(batch, {}));
  }
  return batches;
}

// Whether latents are as large as a model's square or one of its bins, which are sixteenths of the square's
// side however many pixels a latent stands for; of the largest base, which has all of them.
bool is_size_of(const PixArtConfig& model, int64_t height, int64_t width) {
  constexpr int64_t base = 2048;
  const SizeInPixels size{height * base / model.sample_size, width * base / model.sample_size};
  return snap_size(size, base, 1) == size;
}

// What `linnet encode --captions` made, of one size or of many.
class TextLatentData : public DrawnData {
 public:
  TextLatentData(const TrainConfig& config, const ProcessShare& share)
      : DrawnData(config, share), latents_(LatentFolder::open(config.data.path)) {
    const std::string& path = config.data.path;
    const PixArtConfig& model = config.of_texts();
    check(latents_.has_texts(), "{}: its pictures have classes, not texts: encode with --captions", path);
    check(latents_.text_width() == model.caption_channels,
          "{}: its texts' states are {} wide, the model takes {}", path, latents_.text_width(),
          model.caption_channels);
    const Shape some = latents_.shape(0);
    check(some[0] == model.in_channels, "{}: its latents have {} channels, the model takes {}", path, some[0],
          model.in_channels);
    for (int64_t i = 0; i < latents_.count(); ++i) {
      const Shape shape = latents_.shape(i);
      check(shape[1] % model.patch_size == 0 && shape[2] % model.patch_size == 0,
            "{}: latents of shape {} cannot be cut into patches of {}", path, to_string(shape),
            model.patch_size);
    }
    check(!config.data.flip || latents_.flipped(),
          "{}: there are no mirrored latents: encode with --flip, or train with data.flip=false", path);
    batches_ = plan(0);
    batches_an_epoch_ = static_cast<int64_t>(batches_.size());
    check(batches_an_epoch_ > 0, "{}: no size has as many pictures as a batch, {}", path, config.train.batch);
  }

  // Any size can be learned, so that another than the model's is no error. Of pictures that come, as many as
  // there are batches for come in an epoch.
  std::string remark() const override {
    const int64_t batch = config_.train.batch;
    const PixArtConfig& model = config_.of_texts();
    std::map<std::pair<int64_t, int64_t>, int64_t> sizes;
    for (int64_t i = 0; i < latents_.count(); ++i) ++sizes[{latents_.shape(i)[1], latents_.shape(i)[2]}];
    const auto [height, width] = sizes.begin()->first;
    if (sizes.size() == 1 && !is_size_of(model, height, width))
      return fmt::format(
          "all latents are {}x{}, but the model is configured for {}x{} (model.sample_size); encode with "
          "another --size unless it is to learn these",
          width, height, model.sample_size, model.sample_size);
    int64_t never = 0;
    for (const auto& [size, count] : sizes) never += count < batch ? count : 0;
    if (never == 0) return {};
    return fmt::format(
        "{} of {} are of sizes with fewer than a batch, {}, and never come; a smaller train.batch would take "
        "them",
        never, counted(latents_.count(), "picture"), batch);
  }

 protected:
  int64_t count() const override { return latents_.count(); }
  Shape shape_of(int64_t picture) const override { return latents_.shape(picture); }

  std::vector<int64_t> choose(int64_t step) const override {
    const int64_t epoch = step / batches_an_epoch_;
    if (epoch != epoch_) {
      batches_ = plan(epoch);
      epoch_ = epoch;
    }
    return batches_[static_cast<size_t>(step % batches_an_epoch_)];
  }

  void read(const Drawn& drawn, std::span<float> values) const override {
    const Tensor noise = latent_noise(drawn.counter, latents_.shape(drawn.picture));
    latents_.draw(drawn.picture, drawn.flipped, noise.values<float>(), values);
  }

  void add_conditions(const std::vector<Drawn>& drawn, Batch& batch) const override {
    std::vector<Tensor> texts;
    for (const Drawn& one : drawn) {
      const bool dropped = is_dropped(one.counter, config_.text.dropout);
      texts.push_back(dropped ? latents_.no_text() : latents_.text(one.picture));
    }
    batch.texts = join(texts);
  }

 private:
  std::vector<std::vector<int64_t>> plan(int64_t epoch) const {
    return batches_of(
        order(epoch), [this](int64_t i) { return latents_.shape(i); }, config_.train.batch);
  }

  LatentFolder latents_;
  int64_t batches_an_epoch_ = 0;
  mutable int64_t epoch_ = 0;  // of batches_
  mutable std::vector<std::vector<int64_t>> batches_;
};

}  // namespace

std::unique_ptr<BatchSource> open_text_data(const TrainConfig& config, const ProcessShare& share) {
  if (!config.data.replay.empty())
    throw UsageError("configuration: data.replay is for models of classes; give data.path");
  if (is_latent_folder(config.data.path)) {
    if (config.trains_text_encoder())
      throw UsageError(
          "configuration: latents bring their texts' states, so that no text encoder can be trained along; "
          "leave out text.tokenizer");
    return std::make_unique<TextLatentData>(config, share);
  }
  if (config.text.tokenizer.empty())
    throw UsageError(
        "configuration: a model of texts needs text.tokenizer, and text.encoder unless that is trained");
  return std::make_unique<TextFolderData>(config, share);
}

}  // namespace linnet
