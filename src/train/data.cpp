#include "train/data.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/parallel.h"
#include "core/random.h"
#include "io/image.h"
#include "io/latents.h"
#include "io/resize.h"
#include "io/safetensors.h"

namespace linnet {
namespace {

constexpr int64_t diffusion_steps = 1000;

// Streams of random numbers that must not meet.
enum class Stream : uint64_t { order = 1, noise, dropout, flip, latent };

uint64_t stream_seed(int64_t seed, Stream stream, int64_t counter) {
  return mix(mix(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream)), static_cast<uint64_t>(counter));
}

// What a training on labelled pictures draws, whatever they are: order, mirror, noise, timestep and dropped
// classes, each a pure function of the seed and the step.
class LabelledData : public BatchSource {
 public:
  explicit LabelledData(const TrainConfig& config) : config_(config) {}

  Batch batch(int64_t step) const override {
    const int64_t n = config_.train.batch, side = config_.model.input_size, seed = config_.train.seed;
    Batch result;
    result.x0 = Tensor::empty({n, config_.model.in_channels, side, side});
    result.y = Tensor::empty({n}, DType::i64);
    const int64_t each = result.x0.numel() / n;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t counter = step * n + i;
      const bool flipped = config_.data.flip && mix(stream_seed(seed, Stream::flip, counter), 0) % 2 == 1;
      float* into = result.x0.mutable_data<float>() + i * each;
      const int64_t label = read(index_of(counter), counter, flipped, {into, static_cast<size_t>(each)});
      result.y.mutable_data<int64_t>()[i] = dropped(counter) ? config_.model.num_classes : label;
    }
    Generator generator(stream_seed(seed, Stream::noise, step));
    result.noise = generator.normal(result.x0.shape());
    result.t = Tensor::empty({n}, DType::i64);
    for (int64_t i = 0; i < n; ++i) result.t.mutable_data<int64_t>()[i] = draw_timestep(generator);
    return result;
  }

 protected:
  virtual int64_t count() const = 0;
  // One picture's values, and its class.
  virtual int64_t read(int64_t picture, int64_t counter, bool flipped, std::span<float> values) const = 0;

  const TrainConfig config_;

 private:
  int64_t draw_timestep(Generator& generator) const {
    const OptimizerConfig& train = config_.train;
    if (train.timesteps == "uniform") return static_cast<int64_t>(generator.below(diffusion_steps));
    float z = 0;
    generator.normal({&z, 1});
    const double share =
        1.0 / (1.0 + std::exp(-(train.timesteps_mean + train.timesteps_deviation * static_cast<double>(z))));
    return std::min<int64_t>(diffusion_steps - 1,
                             static_cast<int64_t>(share * static_cast<double>(diffusion_steps)));
  }

  bool dropped(int64_t counter) const {
    Generator generator(stream_seed(config_.train.seed, Stream::dropout, counter));
    return generator.uniform_double() < config_.model.class_dropout;
  }

  // Every epoch is a permutation of its own.
  int64_t index_of(int64_t counter) const {
    const int64_t n = count(), epoch = counter / n;
    if (epoch != epoch_) {
      order_ = permutation(n, stream_seed(config_.train.seed, Stream::order, epoch));
      epoch_ = epoch;
    }
    return order_[static_cast<size_t>(counter % n)];
  }

  mutable int64_t epoch_ = -1;  // of order_; batches are made on one thread
  mutable std::vector<int64_t> order_;
};

// A folder of class sub-folders (the ImageNet layout); classes are numbered in the order of their names.
class FolderData : public LabelledData {
 public:
  explicit FolderData(const TrainConfig& config) : LabelledData(config) {
    const std::filesystem::path root = config.data.path;
    const int64_t channels = config.model.in_channels;
    for (const auto& folder : class_folders(root)) {
      std::set<std::filesystem::path> files;
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.is_regular_file() && image_format(entry.path())) files.insert(entry.path());
      for (const auto& file : files) pictures_.push_back({file, static_cast<int64_t>(names_.size())});
      names_.push_back(folder.filename().string());
    }
    check(!pictures_.empty(), "{}: no PNG, JPEG or WebP pictures in class sub-folders here", root.string());
    check(channels == 3,
          "{}: pictures have 3 channels, but the model takes latents of {}: let `linnet encode` make them of "
          "these "
          "pictures, and train on its folder",
          root.string(), channels);
    const auto classes = static_cast<int64_t>(names_.size());
    check(classes == config.model.num_classes, "{} holds {} classes, the model is configured for {}",
          root.string(), classes, config.model.num_classes);
  }

  std::vector<std::string> class_names() const override { return names_; }

 protected:
  int64_t count() const override { return static_cast<int64_t>(pictures_.size()); }

  int64_t read(int64_t picture, int64_t, bool flipped, std::span<float> values) const override {
    const Picture& chosen = pictures_[static_cast<size_t>(picture)];
    Image image = center_crop(read_image(chosen.path), config_.model.input_size);
    if (flipped) image = flip_horizontal(image);
    const Tensor tensor = to_tensor({&image, 1});
    std::copy_n(tensor.data<float>(), tensor.numel(), values.data());
    return chosen.label;
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
  explicit LatentData(const TrainConfig& config)
      : LabelledData(config), latents_(LatentFolder::open(config.data.path)) {
    const DiTConfig& model = config.model;
    const Shape wanted{model.in_channels, model.input_size, model.input_size};
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

  int64_t read(int64_t picture, int64_t counter, bool flipped, std::span<float> values) const override {
    const Tensor noise =
        Generator(stream_seed(config_.train.seed, Stream::latent, counter)).normal(latents_.shape());
    latents_.draw(picture, flipped, noise.values<float>(), values);
    return latents_.label(picture);
  }

 private:
  LatentFolder latents_;
};

// Given (x0, t, noise, y), in the order of the file, over and over.
class ReplayData : public BatchSource {
 public:
  explicit ReplayData(const TrainConfig& config) : file_(SafetensorsFile::open(config.data.replay)) {
    const std::string& path = config.data.replay;
    const DiTConfig& model = config.model;
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
    return {at(x0_, pictures), at(noise_, pictures), at(t_, {n}), at(y_, {n})};
  }

 private:
  SafetensorsFile file_;
  Tensor x0_, noise_, t_, y_;
};

}  // namespace

std::vector<std::filesystem::path> class_folders(const std::filesystem::path& root) {
  check(std::filesystem::is_directory(root), "{}: there is no such folder of pictures", root.string());
  std::set<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(root))
    if (entry.is_directory()) folders.insert(entry.path());
  return {folders.begin(), folders.end()};
}

std::unique_ptr<BatchSource> open_data(const TrainConfig& config) {
  if (!config.data.replay.empty()) return std::make_unique<ReplayData>(config);
  if (is_latent_folder(config.data.path)) return std::make_unique<LatentData>(config);
  return std::make_unique<FolderData>(config);
}

Prefetcher::Prefetcher(const BatchSource& source, int64_t first)
    : source_(source), thread_([this, first] { run(first); }) {}

Prefetcher::~Prefetcher() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::run(int64_t step) {
  constexpr size_t ahead = 4;
  set_threads(1);  // this thread's loops must not compete with the training step's
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
