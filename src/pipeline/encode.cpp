#include "pipeline/encode.h"

#include "core/parallel.h"
#include "io/image.h"
#include "io/resize.h"
#include "io/safetensors.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// Rows of a tensor that grows.
class Rows {
 public:
  explicit Rows(DType stored) : stored_(stored) {}

  void add(const Tensor& values) {
    if (values.size(0) > 0) parts_.push_back(values.to(stored_));
  }
  /// All, (n, c, h, w); each of that shape.
  Tensor joined(const Shape& each) const {
    int64_t rows = 0;
    for (const Tensor& part : parts_) rows += part.size(0);
    Tensor result = Tensor::empty({rows, each[0], each[1], each[2]}, stored_);
    auto* to = static_cast<char*>(result.mutable_raw());
    for (const Tensor& part : parts_) {
      std::copy_n(static_cast<const char*>(part.raw()), part.bytes(), to);
      to += part.bytes();
    }
    return result;
  }

 private:
  DType stored_;
  std::vector<Tensor> parts_;
};

// Encodes one part, batch by batch.
class ShardMaker {
 public:
  ShardMaker(const Vae& vae, const EncodeOptions& options)
      : vae_(vae), options_(options), mean_(options.stored), logvar_(options.stored),
        flipped_mean_(options.stored), flipped_logvar_(options.stored) {}

  void take(StoredPicture picture) {
    waiting_.push_back(std::move(picture));
    if (static_cast<int64_t>(waiting_.size()) >= options_.batch) encode();
  }
  void leave_out(const std::string& name, const std::string& why) {
    add_broken(name, why);
    ++done_;
    report();
  }
  int64_t done() const { return done_; }
  void on_progress(std::function<void()> report) { report_ = std::move(report); }

  LatentShard finish(const std::vector<std::string>& class_names) {
    encode();
    const int64_t side = options_.size / vae_.config().reduction();
    const Shape each{vae_.config().latent_channels, side, side};
    LatentShard shard{
        mean_.joined(each), logvar_.joined(each), {}, {}, Tensor::from<int64_t>(labels_), class_names, broken_};
    if (options_.flip) {
      shard.flipped_mean = flipped_mean_.joined(each);
      shard.flipped_logvar = flipped_logvar_.joined(each);
    }
    return shard;
  }

 private:
  void add_broken(const std::string& name, const std::string& why) {
    broken_.push_back(why.find(name) == std::string::npos ? name + ": " + why : why);
  }

  void report() const {
    if (report_) report_();
  }

  // Broken pictures are found here, and left out.
  std::vector<Image> decode() {
    std::vector<Image> images(waiting_.size());
    std::vector<std::string> problems(waiting_.size());
    parallel_for(static_cast<int64_t>(images.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) try {
          images[i] = center_crop(read_image(waiting_[i].bytes, waiting_[i].name), options_.size);
        } catch (const OutOfMemory&) {
          throw;
        } catch (const Error& error) {
          problems[i] = error.what();
        }
    });
    std::vector<Image> good;
    for (size_t i = 0; i < images.size(); ++i) {
      if (problems[i].empty()) {
        good.push_back(std::move(images[i]));
        labels_.push_back(waiting_[i].label);
      } else {
        add_broken(waiting_[i].name, problems[i]);
      }
    }
    return good;
  }

  void encode() {
    if (waiting_.empty()) return;
    std::vector<Image> images = decode();
    if (!images.empty()) {
      add(images, mean_, logvar_);
      if (options_.flip) {
        for (Image& image : images) image = flip_horizontal(image);
        add(images, flipped_mean_, flipped_logvar_);
      }
    }
    done_ += static_cast<int64_t>(waiting_.size());
    waiting_.clear();
    report();
  }

  void add(const std::vector<Image>& images, Rows& mean, Rows& logvar) const {
    const LatentMoments moments = vae_.encode(to_tensor(images));
    mean.add(moments.mean);
    logvar.add(moments.logvar);
  }

  const Vae& vae_;
  const EncodeOptions& options_;
  std::vector<StoredPicture> waiting_;
  Rows mean_, logvar_, flipped_mean_, flipped_logvar_;
  std::vector<int64_t> labels_;
  std::vector<std::string> broken_;
  int64_t done_ = 0;
  std::function<void()> report_;
};

// A shard that is there must be of this very work.
bool already_there(const fs::path& path, const LatentSettings& settings) {
  if (!fs::exists(path)) return false;
  check(read_latent_settings(path) == settings,
        "{}: it was encoded from other pictures, by another autoencoder or with other settings; choose another "
        "folder",
        path.string());
  return true;
}

}  // namespace

EncodeResult encode_pictures(const Vae& vae, const std::string& vae_fingerprint, const PictureSet& pictures,
                             const fs::path& folder, const EncodeOptions& options) {
  const int64_t step = vae.config().reduction();
  if (options.size <= 0 || options.size % step != 0 || options.size > 8192)
    throw UsageError(fmt::format("pictures are encoded at a multiple of {} pixels, at most 8192, not {}", step,
                                 options.size));
  if (options.batch < 1) throw UsageError(fmt::format("{} pictures at once are impossible", options.batch));
  const LatentSettings settings{vae_fingerprint, pictures.fingerprint(),      options.size,
                                options.flip,    vae.config().scaling_factor, vae.config().shift_factor,
                                pictures.parts()};
  EncodeResult result;
  result.shards = settings.shards;
  fs::create_directories(folder);
  int64_t before = 0;
  for (int64_t part = 0; part < settings.shards; ++part) {
    const fs::path path = shard_path(folder, part, settings.shards);
    if (!already_there(path, settings)) {
      ShardMaker maker(vae, options);
      maker.on_progress([&] {
        if (options.on_pictures) options.on_pictures(before + maker.done());
      });
      pictures.read(
          part, [&](StoredPicture picture) { maker.take(std::move(picture)); },
          [&](const std::string& name, const std::string& why) { maker.leave_out(name, why); });
      write_latent_shard(path, maker.finish(pictures.class_names()), settings);
      before += maker.done();
      ++result.written;
    }
    const auto file = SafetensorsFile::open(path);
    result.pictures += file.entry("labels").shape.numel();
    for (std::string& picture : read_broken_pictures(path)) result.broken.push_back(std::move(picture));
  }
  return result;
}

}  // namespace linnet
