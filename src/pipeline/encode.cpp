#include "pipeline/encode.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/printable.h"
#include "io/file.h"
#include "io/image.h"
#include "io/resize.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "pipeline/paint_text.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

// Rows of a tensor that grows.
class Rows {
 public:
  explicit Rows(DType stored) : stored_(stored) {}

  // Throws Error when one is not finite, or has no place in the type: it would spoil whatever learns from it.
  void add(const Tensor& values) {
    if (values.size(0) == 0) return;
    check(ops::all_finite(values),
          "a picture's latents are not finite (NaN or infinite): the autoencoder's weights may be damaged, or "
          "the "
          "type of products too narrow for it (--dtype f32)");
    parts_.push_back(values.to(stored_));
    check(stored_ == DType::f32 || ops::all_finite(parts_.back().to(DType::f32)),
          "a picture's latents are too large for {}; --stored f32 holds them", name_of(stored_));
  }
  /// All of them, each of that shape, and none is left: a large shard is not to be in memory twice.
  Tensor take_all(const Shape& each) {
    std::vector<int64_t> extents{0};
    for (const Tensor& part : parts_) extents[0] += part.size(0);
    extents.insert(extents.end(), each.begin(), each.end());
    Tensor result = Tensor::empty(Shape(extents), stored_);
    auto* to = static_cast<char*>(result.mutable_raw());
    for (Tensor& part : parts_) {
      std::copy_n(static_cast<const char*>(part.raw()), part.bytes(), to);
      to += part.bytes();
      part = {};
    }
    parts_.clear();
    return result;
  }

 private:
  DType stored_;
  std::vector<Tensor> parts_;
};

// Pictures of one size, encoded batch by batch.
class Group {
 public:
  Group(const Vae& vae, const EncodeOptions& options)
      : vae_(vae), options_(options), mean_(options.stored), logvar_(options.stored),
        flipped_mean_(options.stored), flipped_logvar_(options.stored) {}

  void add(Image image, int64_t label, std::string caption) {
    waiting_.push_back(std::move(image));
    labels.push_back(label);
    captions.push_back(std::move(caption));
    if (static_cast<int64_t>(waiting_.size()) >= options_.batch) encode();
  }

  LatentGroup finish() {
    if (!waiting_.empty()) encode();
    LatentGroup group{mean_.take_all(each_), logvar_.take_all(each_), {}, {}};
    if (options_.flip) {
      group.flipped_mean = flipped_mean_.take_all(each_);
      group.flipped_logvar = flipped_logvar_.take_all(each_);
    }
    return group;
  }

  std::vector<int64_t> labels;  ///< in the order in which pictures came
  std::vector<std::string> captions;

 private:
  void encode() {
    encode(mean_, logvar_);
    if (options_.flip) {
      for (Image& image : waiting_) image = flip_horizontal(image);
      encode(flipped_mean_, flipped_logvar_);
    }
    waiting_.clear();
  }

  void encode(Rows& mean, Rows& logvar) {
    const LatentMoments moments = vae_.encode(to_tensor(waiting_).to(options_.device));
    each_ = {moments.mean.size(1), moments.mean.size(2), moments.mean.size(3)};
    mean.add(moments.mean.host());
    logvar.add(moments.logvar.host());
  }

  const Vae& vae_;
  const EncodeOptions& options_;
  std::vector<Image> waiting_;
  Shape each_;
  Rows mean_, logvar_, flipped_mean_, flipped_logvar_;
};

// Encodes one part.
class ShardMaker {
 public:
  ShardMaker(const Vae& vae, const EncodeOptions& options) : vae_(vae), options_(options) {}

  void take(StoredPicture picture) {
    waiting_.push_back(std::move(picture));
    if (static_cast<int64_t>(waiting_.size()) >= options_.batch) decode();
  }
  void leave_out(const std::string& name, const std::string& why) {
    add_broken(name, why);
    ++done_;
    report();
  }
  int64_t done() const { return done_; }
  void on_progress(std::function<void()> report) { report_ = std::move(report); }

  LatentShard finish(const std::vector<std::string>& class_names) {
    decode();
    LatentShard shard;
    std::vector<int64_t> labels;
    std::vector<std::string> captions;
    for (auto& [size, group] : groups_) {
      shard.groups.push_back(group.finish());
      labels.insert(labels.end(), group.labels.begin(), group.labels.end());
      captions.insert(captions.end(), group.captions.begin(), group.captions.end());
    }
    shard.labels = Tensor::from<int64_t>(labels);
    if (options_.encode_texts) add_texts(captions, shard);
    shard.class_names = class_names;
    shard.broken = broken_;
    return shard;
  }

 private:
  void add_broken(const std::string& name, const std::string& why) {
    const bool named = printable(why, SIZE_MAX).find(printable(name, SIZE_MAX)) != std::string::npos;
    broken_.push_back(named ? why : name + ": " + why);
  }

  void report() const {
    if (report_) report_();
  }

  Image prepared(const StoredPicture& picture) const {
    const Image image = read_image(picture.bytes, picture.name);
    if (!options_.buckets) return center_crop(image, options_.size);
    const SizeInPixels size = snap_size({image.height, image.width}, options_.size, vae_.config().reduction());
    return cover_crop(image, size.width, size.height);
  }

  // Broken pictures are found here, and left out.
  void decode() {
    std::vector<Image> images(waiting_.size());
    std::vector<std::string> problems(waiting_.size());
    parallel_for(static_cast<int64_t>(images.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) try {
          images[i] = prepared(waiting_[i]);
        } catch (const OutOfMemory&) {
          throw;
        } catch (const Error& error) {
          problems[i] = error.what();
        }
    });
    for (size_t i = 0; i < images.size(); ++i) {
      if (!problems[i].empty()) {
        add_broken(waiting_[i].name, problems[i]);
        continue;
      }
      const std::pair size(images[i].height, images[i].width);
      Group& group = groups_.try_emplace(size, vae_, options_).first->second;
      group.add(std::move(images[i]), waiting_[i].label, std::move(waiting_[i].caption));
    }
    done_ += static_cast<int64_t>(waiting_.size());
    waiting_.clear();
    report();
  }

  // Some at once: most of the time goes into reading a large encoder's weights.
  void add_texts(const std::vector<std::string>& captions, LatentShard& shard) const {
    constexpr size_t at_once = 128;
    shard.no_text = options_.encode_texts({""}).at(0).to(options_.stored);
    Rows states(options_.stored);
    ops::Offsets offsets{0};
    for (size_t i = 0; i < captions.size(); i += at_once) {
      const auto first = captions.begin() + static_cast<ptrdiff_t>(i);
      const auto last = first + static_cast<ptrdiff_t>(std::min(at_once, captions.size() - i));
      for (const Tensor& text : options_.encode_texts({first, last})) {
        states.add(text);
        offsets.push_back(offsets.back() + text.size(0));
      }
      report();
    }
    shard.states = states.take_all({shard.no_text.size(1)});
    shard.offsets = Tensor::from<int64_t>(offsets);
  }

  const Vae& vae_;
  const EncodeOptions& options_;
  std::vector<StoredPicture> waiting_;
  std::map<std::pair<int64_t, int64_t>, Group> groups_;  // by height and width
  std::vector<std::string> broken_;
  int64_t done_ = 0;
  std::function<void()> report_;
};

// A shard that is there must be of this very work.
LatentSummary read_own_summary(const fs::path& path, const LatentSettings& settings) {
  LatentSummary summary = read_latent_summary(path);
  check(agree(summary.settings, settings),
        "{}: it was encoded from other pictures, by another autoencoder or with other settings; choose another "
        "folder",
        path.string());
  return summary;
}

}  // namespace

EncodeResult encode_pictures(const Vae& vae, const std::string& vae_fingerprint, const PictureSet& pictures,
                             const fs::path& folder, const EncodeOptions& options) {
  const int64_t step = vae.config().reduction();
  if (options.size <= 0 || options.size % step != 0 || options.size > 8192)
    throw UsageError(fmt::format("pictures are encoded at a multiple of {} pixels, at most 8192, not {}", step,
                                 options.size));
  if (options.buckets && !has_bins(options.size))
    throw UsageError(
        fmt::format("there are ratios for pictures of 256, 512, 1024 and 2048 pixels, not {}", options.size));
  if (options.batch < 1) throw UsageError(fmt::format("{} pictures at once are impossible", options.batch));
  check_shards_of(folder, pictures.parts());
  const PictureSet::Fingerprints fingerprints = pictures.fingerprints(options.on_checked);
  const LatentSettings settings{vae_fingerprint,
                                fingerprints.files,
                                options.size,
                                options.flip,
                                vae.config().scaling_factor,
                                vae.config().shift_factor,
                                pictures.parts(),
                                options.buckets,
                                options.text_encoder,
                                std::string(name_of(options.stored)),
                                ops::name_of_products(vae.product_dtype(), options.device),
                                fingerprints.contents};
  EncodeResult result;
  make_folder(folder);
  int64_t handled = 0, now = 0;  // pictures of the shards before, and those of them that this run made
  for (int64_t part = options.share.index; part < settings.shards; part += options.share.count) {
    const fs::path path = shard_path(folder, part, settings.shards);
    if (!is_there(path)) {
      ShardMaker maker(vae, options);
      maker.on_progress([&] {
        if (options.on_pictures) options.on_pictures(handled + maker.done(), now + maker.done());
      });
      pictures.read(
          part, [&](StoredPicture picture) { maker.take(std::move(picture)); },
          [&](const std::string& name, const std::string& why) { maker.leave_out(name, why); });
      write_latent_shard(path, maker.finish(pictures.class_names()), settings);
      now += maker.done();
      ++result.written;
    }
    ++result.shards;
    const LatentSummary summary = read_own_summary(path, settings);
    result.pictures += summary.pictures;
    result.broken.insert(result.broken.end(), summary.broken.begin(), summary.broken.end());
    handled = result.pictures + std::ssize(result.broken);
    if (options.on_pictures) options.on_pictures(handled, now);
  }
  return result;
}

}  // namespace linnet
