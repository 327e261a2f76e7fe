#include "train/data.h"

#include <algorithm>

#include "core/parallel.h"
#include "io/latents.h"
#include "io/picture_set.h"
#include "io/safetensors.h"
#include "train/drawn_data.h"

namespace linnet {
namespace {

// Pictures that have a class each.
class LabelledData : public DrawnData {
 public:
  LabelledData(const TrainConfig& config, const ProcessShare& share)
      : DrawnData(config, share), model_(config.of_classes()) {}

 protected:
  virtual int64_t label(int64_t picture) const = 0;

  void add_conditions(const std::vector<Drawn>& drawn, Batch& batch) const override {
    batch.y = Tensor::empty({static_cast<int64_t>(drawn.size())}, DType::i64);
    for (size_t i = 0; i < drawn.size(); ++i)
      batch.y.mutable_data<int64_t>()[i] =
          is_dropped(drawn[i].counter, model_.class_dropout) ? model_.num_classes : label(drawn[i].picture);
  }

  const DiTConfig model_;
};

// A folder of class sub-folders (the ImageNet layout); classes are numbered in the order of their names.
class FolderData : public LabelledData {
 public:
  FolderData(const TrainConfig& config, const ProcessShare& share) : LabelledData(config, share) {
    const std::filesystem::path root = config.data.path;
    const int64_t channels = model_.in_channels;
    for (const auto& [name, pictures] : pictures_by_class(root)) {
      for (const auto& file : pictures) pictures_.push_back({file, static_cast<int64_t>(names_.size())});
      names_.push_back(name);
    }
    check(!pictures_.empty(), "{}: no PNG, JPEG or WebP pictures in class sub-folders here", root.string());
    check(channels == 3,
          "{}: pictures have 3 channels, but the model takes latents of {}: let `linnet encode` make them of "
          "these "
          "pictures, and train on its folder",
          root.string(), channels);
    const auto classes = static_cast<int64_t>(names_.size());
    check(classes == model_.num_classes, "{} holds {} classes, the model is configured for {}", root.string(),
          classes, model_.num_classes);
  }

  std::vector<std::string> class_names() const override { return names_; }

 protected:
  int64_t count() const override { return static_cast<int64_t>(pictures_.size()); }

  int64_t label(int64_t picture) const override { return pictures_[static_cast<size_t>(picture)].label; }

  void read(const Drawn& drawn, std::span<float> values) const override {
    read_pixels(pictures_[static_cast<size_t>(drawn.picture)].path, model_.input_size, drawn.flipped, values);
  }

 private:
  struct Picture {
    std::filesystem::path path;
    int64_t label;
  };

  std::vector<Picture> pictures_;
  std::vector<std::string> names_;
};

// What `linnet encode` made; each time that a picture comes, its latents are drawn anew.
class LatentData : public LabelledData {
 public:
  LatentData(const TrainConfig& config, const ProcessShare& share)
      : LabelledData(config, share), latents_(LatentFolder::open(config.data.path)) {
    const DiTConfig& model = model_;
    const Shape wanted = picture_shape(config.model);
    check(!latents_.has_texts(), "{}: its pictures have texts, not classes: set model.kind=pixart",
          config.data.path);
    check(latents_.shape() == wanted, "{}: its latents have shape {}, the model takes {}", config.data.path,
          to_string(latents_.shape()), to_string(wanted));
    check(latents_.largest_label() < model.num_classes,
          "{}: it holds class {}, the model is configured for {} classes", config.data.path,
          latents_.largest_label(), model.num_classes);
    const auto names = static_cast<int64_t>(latents_.class_names().size());
    check(names == 0 || names == model.num_classes, "{} holds {} classes, the model is configured for {}",
          config.data.path, names, model.num_classes);
    check(!config.data.flip || latents_.flipped(),
          "{}: there are no mirrored latents: encode with --flip, or train with data.flip=false",
          config.data.path);
  }

  std::vector<std::string> class_names() const override { return latents_.class_names(); }

 protected:
  int64_t count() const override { return latents_.count(); }

  int64_t label(int64_t picture) const override { return latents_.label(picture); }

  void read(const Drawn& drawn, std::span<float> values) const override {
    const Tensor noise = latent_noise(drawn.counter, latents_.shape(drawn.picture));
    latents_.draw(drawn.picture, drawn.flipped, noise.values<float>(), values);
  }

 private:
  LatentFolder latents_;
};

// Given (x0, t, noise, y), in the order of the file, over and over.
class ReplayData : public BatchSource {
 public:
  ReplayData(const TrainConfig& config, const ProcessShare& share)
      : share_(share), file_(SafetensorsFile::open(config.data.replay)) {
    const std::string& path = config.data.replay;
    const DiTConfig& model = config.of_classes();
    for (const char* name : {"x0", "t", "noise", "y"})
      check(file_.contains(name), "{}: tensor \"{}\" is missing; a replay file holds x0, t, noise and y", path,
            name);
    x0_ = file_.tensor("x0").to(DType::f32);
    noise_ = file_.tensor("noise").to(DType::f32);
    t_ = file_.tensor("t");
    y_ = file_.tensor("y");
    check(x0_.shape().rank() == 5 && x0_.size(0) > 0,
          "{}: x0 has shape {}, not (steps, batch, channels, height, width)", path, to_string(x0_.shape()));
    const Shape wanted{x0_.size(0), config.train.batch, model.in_channels, model.input_size, model.input_size};
    check(x0_.shape() == wanted, "{}: x0 has shape {}, the configuration wants {}", path,
          to_string(x0_.shape()), to_string(wanted));
    const Shape labels{x0_.size(0), config.train.batch};
    check(noise_.shape() == wanted && t_.shape() == labels && y_.shape() == labels &&
              t_.dtype() == DType::i64 && y_.dtype() == DType::i64,
          "{}: noise, t and y do not go with x0 (noise like x0; t and y {} of i64)", path, to_string(labels));
    const int64_t rows = model.num_classes + (model.null_class() ? 1 : 0);
    for (int64_t i = 0; i < t_.numel(); ++i) {
      check(t_.data<int64_t>()[i] >= 0 && t_.data<int64_t>()[i] < diffusion_steps,
            "{}: timestep {} lies outside 0..999", path, t_.data<int64_t>()[i]);
      check(y_.data<int64_t>()[i] >= 0 && y_.data<int64_t>()[i] < rows, "{}: class {} lies outside 0..{}", path,
            y_.data<int64_t>()[i], rows - 1);
    }
  }

  Batch batch(int64_t step) const override {
    const int64_t i = step % x0_.size(0), n = x0_.size(1);
    const auto at = [&](const Tensor& all, const Shape& shape) { return all.rows(i, i + 1).reshape(shape); };
    const Shape pictures{n, x0_.size(2), x0_.size(3), x0_.size(4)};
    const int64_t own = n / share_.count;
    return part_of({at(x0_, pictures), at(noise_, pictures), at(t_, {n}), at(y_, {n})}, share_.index * own,
                   (share_.index + 1) * own);
  }

 private:
  const ProcessShare share_;
  SafetensorsFile file_;
  Tensor x0_, noise_, t_, y_;
};

void check_share(const OptimizerConfig& train, const ProcessShare& share) {
  if (train.batch % (share.count * train.accumulate) == 0) return;
  throw UsageError(
      fmt::format("configuration: a batch of {} cannot be shared by {} processes{}", train.batch, share.count,
                  train.accumulate == 1 ? "" : fmt::format(" that gather it in {} parts", train.accumulate)));
}

}  // namespace

Batch part_of(const Batch& batch, int64_t begin, int64_t end) {
  const auto rows = [&](const Tensor& all) { return all.defined() ? all.rows(begin, end) : all; };
  Batch part{rows(batch.x0), rows(batch.noise), rows(batch.t), rows(batch.y)};
  if (batch.texts.count() > 0) part.texts = batch.texts.part(begin, end);
  if (!batch.ids.empty()) part.ids = {batch.ids.begin() + begin, batch.ids.begin() + end};
  return part;
}

std::unique_ptr<BatchSource> open_data(const TrainConfig& config, const ProcessShare& share) {
  check_share(config.train, share);
  if (is_of_texts(config.model)) return open_text_data(config, share);
  if (!config.data.replay.empty()) return std::make_unique<ReplayData>(config, share);
  if (is_latent_folder(config.data.path)) return std::make_unique<LatentData>(config, share);
  return std::make_unique<FolderData>(config, share);
}

Prefetcher::Prefetcher(const BatchSource& source, int64_t first, int threads) : source_(source) {
  try {
    thread_ = std::thread([this, first, threads] { run(first, threads); });
  } catch (const std::system_error& error) {
    fail("cannot begin a thread that reads the data: {}", error.code().message());
  }
}

Prefetcher::~Prefetcher() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::run(int64_t step, int threads) {
  constexpr size_t ahead = 4;
  set_threads(threads);  // of this thread's loops only
  try {
    for (;; ++step) {
      Batch batch = source_.batch(step);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || ready_.size() < ahead; });
      if (stop_) return;
      ready_.push_back(std::move(batch));
      changed_.notify_all();
    }
  } catch (...) {
    const std::scoped_lock lock(mutex_);
    error_ = std::current_exception();
    changed_.notify_all();
  }
}

Batch Prefetcher::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || error_; });
  if (ready_.empty()) std::rethrow_exception(error_);
  Batch batch = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  return batch;
}

}  // namespace linnet
