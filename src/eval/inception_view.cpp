#include "eval/inception_view.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "core/parallel.h"
#include "core/random.h"
#include "eval/pictures.h"
#include "io/image.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "store/metadata.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

constexpr int64_t pictures_at_once = 16;
// The key is another one than before pictures were resized as by TensorFlow.
constexpr const char *inception_key = "linnet.inception.tensorflow", *score_key = "linnet.score";

// Calls on_batch with pictures of one size, (n, 3, height, width), in order.
void for_batches(const std::vector<fs::path>& paths,
                 const std::function<void(const Tensor& pictures)>& on_batch) {
  std::vector<Image> batch;
  const auto flush = [&] {
    if (!batch.empty()) on_batch(to_tensor(batch));
    batch.clear();
  };
  for (size_t first = 0; first < paths.size(); first += pictures_at_once) {
    std::vector<Image> images(std::min<size_t>(pictures_at_once, paths.size() - first));
    parallel_for(static_cast<int64_t>(images.size()), 1, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
        images[i] = read_image(paths[first + i]);
    });
    for (Image& image : images) {
      const bool alike = batch.empty() || (image.width == batch[0].width && image.height == batch[0].height);
      if (!alike || static_cast<int64_t>(batch.size()) == pictures_at_once) flush();
      batch.push_back(std::move(image));
    }
  }
  flush();
}

Tensor tensor_of(const SafetensorsFile& file, const char* name, DType dtype, const Shape& shape) {
  check(file.contains(name), "{}: tensor \"{}\" is missing: this is not what Inception saw", file.source(),
        name);
  Tensor tensor = file.tensor(name);
  check(tensor.dtype() == dtype && tensor.shape() == shape, "{}: tensor \"{}\" is {} of shape {}, not {} of {}",
        file.source(), name, name_of(tensor.dtype()), to_string(tensor.shape()), name_of(dtype),
        to_string(shape));
  return tensor;
}

FeatureStatistics statistics_of(const SafetensorsFile& file, const std::string& prefix, int64_t size,
                                int64_t count) {
  const Tensor mean = tensor_of(file, (prefix + "mean").c_str(), DType::f64, {size});
  const Tensor covariance = tensor_of(file, (prefix + "covariance").c_str(), DType::f64, {size, size});
  const auto m = mean.values<double>(), c = covariance.values<double>();
  for (const auto& numbers : {m, c})
    check(std::ranges::all_of(numbers, [](double value) { return std::isfinite(value); }),
          "{}: it holds values that are no numbers", file.source());
  return {count, {m.begin(), m.end()}, {c.begin(), c.end()}};
}

template <class Number>
Number number_of(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  check(found != file.metadata().end(), "{}: the metadata lack \"{}\": this is not what Inception saw",
        file.source(), key);
  Number number{};
  const std::string& text = found->second;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  check(problem == std::errc() && end == text.data() + text.size(), "{}: \"{}\" is no number", file.source(),
        printable(text));
  return number;
}

}  // namespace

namespace {

// Takes pictures as they come.
class Gatherer {
 public:
  Gatherer(const LoadedInception& inception, int64_t count, const OnPicturesSeen& progress)
      : inception_(inception), count_(count), progress_(progress) {
    view_.features = Tensor::empty({count, view_.pool.size()});
  }

  void add(const Tensor& pictures) {
    const Inception::Features seen = inception_.model->features(pictures.to(inception_.device));
    const Tensor pool = seen.pool.host();
    pool_.add(pool);
    spatial_.add(seen.spatial.host());
    score_.add(inception_.model->probabilities(seen.pool).host());
    std::copy_n(pool.data<float>(), pool.numel(),
                view_.features.mutable_data<float>() + view_.count * view_.pool.size());
    view_.count += pictures.size(0);
    if (progress_) progress_(view_.count, count_);
  }
  InceptionView done() {
    pool_.finish();
    spatial_.finish();
    view_.score = score_.value();
    return std::move(view_);
  }

 private:
  const LoadedInception& inception_;
  int64_t count_;
  const OnPicturesSeen& progress_;
  InceptionView view_;
  FeatureGatherer pool_{view_.pool}, spatial_{view_.spatial};  // a batch may be of one picture
  InceptionScore score_;
};

void check_array_of_pictures(const NpyArray& array, const std::string& file) {
  const Shape& shape = array.shape;
  check(array.dtype == DType::u8 && shape.rank() == 4 && shape[0] >= 2 && shape[3] == 3 && shape.numel() > 0 &&
            shape[1] <= max_image_side && shape[2] <= max_image_side && shape[1] * shape[2] <= max_image_pixels,
        "{}: array {} is {} of shape {}, not two pictures or more, (n, height, width, 3) of |u1", file,
        printable(array.name), printable(array.dtype_name), to_string(shape));
  check(!array.fortran_order,
        "{}: array {} is in Fortran's order, in which no picture lies in one piece: np.ascontiguousarray mends "
        "that",
        file, printable(array.name));
}

// Reads the pictures of an array (n, height, width, 3) of bytes.
InceptionView look_at_array(const LoadedInception& inception, const NpyArray& array, const ReadValues& read,
                            const std::string& file, const OnPicturesSeen& progress) {
  check_array_of_pictures(array, file);
  const Shape& shape = array.shape;
  Gatherer gatherer(inception, shape[0], progress);
  for (int64_t first = 0; first < shape[0]; first += pictures_at_once) {
    std::vector<Image> images;
    for (int64_t i = first; i < std::min(shape[0], first + pictures_at_once); ++i) {
      Image& image = images.emplace_back(
          Image{shape[2], shape[1], std::vector<uint8_t>(static_cast<size_t>(shape[1] * shape[2] * 3))});
      read(image.rgb.data(), image.rgb.size());
    }
    gatherer.add(to_tensor(images));
  }
  return gatherer.done();
}

// An array of that shape, in f64. It may be in Fortran's order: a mean has but one, and a covariance is the
// same in both.
std::vector<double> read_numbers(const NpyArray& array, const ReadValues& read, const Shape& shape,
                                 const std::string& file) {
  check(array.shape == shape && (array.dtype == DType::f64 || array.dtype == DType::f32),
        "{}: array {} is {} of shape {}, not <f8 or <f4 of {}", file, printable(array.name),
        printable(array.dtype_name), to_string(array.shape), to_string(shape));
  std::vector<double> result(static_cast<size_t>(shape.numel()));
  if (array.dtype == DType::f64) {
    read(result.data(), result.size() * sizeof(double));
  } else {
    std::vector<float> narrow(result.size());
    read(narrow.data(), narrow.size() * sizeof(float));
    std::copy(narrow.begin(), narrow.end(), result.begin());
  }
  check(std::ranges::all_of(result, [](double value) { return std::isfinite(value); }),
        "{}: array {} holds values that are no numbers", file, printable(array.name));
  return result;
}

std::vector<fs::path> pictures_of_set(const fs::path& dir) {
  std::vector<fs::path> paths = pictures_in(dir);
  check(paths.size() >= 2, "{} holds one picture; a distance between sets needs more", dir.string());
  return paths;
}

// The arrays that ADM's evaluation suite knows: pictures, and statistics of Inception's two layers. Others,
// such as the labels beside the pictures, are not looked at.
bool is_of_a_set(std::string_view name) {
  return name == "arr_0" || name == "mu" || name == "sigma" || name == "mu_s" || name == "sigma_s";
}

void check_says_something(bool says, const std::string& file) {
  check(says, "{}: it holds neither pictures (arr_0) nor statistics (mu and sigma)", file);
}

// In an order of no meaning: the Inception score is of parts of 5,000, which are not to be of a few classes
// each.
std::vector<fs::path> mixed(std::vector<fs::path> paths) {
  std::vector<fs::path> result;
  for (const int64_t i : permutation(static_cast<int64_t>(paths.size()), 0))
    result.push_back(std::move(paths[static_cast<size_t>(i)]));
  return result;
}

}  // namespace

InceptionView look_at_folder(const LoadedInception& inception, const fs::path& dir,
                             const OnPicturesSeen& progress) {
  const std::vector<fs::path> paths = mixed(pictures_of_set(dir));
  Gatherer gatherer(inception, static_cast<int64_t>(paths.size()), progress);
  for_batches(paths, [&](const Tensor& pictures) { gatherer.add(pictures); });
  return gatherer.done();
}

InceptionView look_at_npz(const LoadedInception& inception, const fs::path& path,
                          const OnPicturesSeen& progress) {
  const std::string file = printable(path.string(), 4096);
  InceptionView view;
  std::map<std::string, std::vector<double>> given;
  const int64_t d = view.pool.size(), s = view.spatial.size();
  const std::map<std::string, Shape> shapes{{"mu", {d}}, {"sigma", {d, d}}, {"mu_s", {s}}, {"sigma_s", {s, s}}};
  read_npz(path, is_of_a_set, [&](const NpyArray& array, const ReadValues& read) {
    if (array.name == "arr_0")
      view = look_at_array(inception, array, read, file, progress);
    else
      given[array.name] = read_numbers(array, read, shapes.at(array.name), file);
  });
  const int64_t count = std::max<int64_t>(view.count, 2);  // of given statistics it is not known, nor needed
  if (given.contains("mu") && given.contains("sigma")) view.pool = {count, given["mu"], given["sigma"]};
  if (given.contains("mu_s") && given.contains("sigma_s"))
    view.spatial = {count, given["mu_s"], given["sigma_s"]};
  check_says_something(view.pool.count() > 0, file);
  return view;
}

void check_folder_can_be_seen(const fs::path& dir) { pictures_of_set(dir); }

void check_npz_can_be_seen(const fs::path& path) {
  const std::string file = printable(path.string(), 4096);
  std::set<std::string> names;
  read_npz(path, is_of_a_set, [&](const NpyArray& array, const ReadValues&) {
    if (array.name == "arr_0") check_array_of_pictures(array, file);
    names.insert(array.name);
  });
  check_says_something(names.contains("arr_0") || (names.contains("mu") && names.contains("sigma")), file);
}

void save_view(const fs::path& path, const InceptionView& view, const LoadedInception& inception) {
  const int64_t d = view.pool.size(), s = view.spatial.size();
  check(view.features.defined(),
        "{}: the reference's statistics came without their pictures, as a file that says no more already",
        printable(path.string()));
  write_safetensors(path,
                    {{"mean", Tensor::from<double>(view.pool.mean(), {d})},
                     {"covariance", Tensor::from<double>(view.pool.covariance(), {d, d})},
                     {"spatial.mean", Tensor::from<double>(view.spatial.mean(), {s})},
                     {"spatial.covariance", Tensor::from<double>(view.spatial.covariance(), {s, s})},
                     {"features", view.features}},
                    {{inception_key, inception.fingerprint},
                     {pictures_key, std::to_string(view.count)},
                     {score_key, fmt::format("{}", view.score)}});
}

InceptionView load_view(const fs::path& path, const LoadedInception& inception) {
  const auto file = SafetensorsFile::open(path);
  const auto seen_with = file.metadata().find(inception_key);
  check(seen_with != file.metadata().end(), "{}: the metadata lack \"{}\": this is not what Inception saw",
        file.source(), inception_key);
  check(seen_with->second == inception.fingerprint, "{}: it was seen with other weights of Inception",
        file.source());
  const auto count = number_of<int64_t>(file, pictures_key);
  check(count >= 2 && count < (int64_t{1} << 32), "{}: {} is no number of pictures", file.source(), count);
  InceptionView view;
  view.pool = statistics_of(file, "", view.pool.size(), count);
  view.spatial = statistics_of(file, "spatial.", view.spatial.size(), count);
  view.features = tensor_of(file, "features", DType::f32, {count, view.pool.size()});
  view.score = number_of<double>(file, score_key);
  view.count = count;
  return view;
}

InceptionFigures compare(const InceptionView& samples, const InceptionView& reference,
                         const std::function<void(double share)>& progress) {
  InceptionFigures figures;
  figures.fid = frechet_distance(samples.pool, reference.pool);
  figures.score = samples.score;
  if (samples.spatial.count() > 0 && reference.spatial.count() > 0)
    figures.sfid = frechet_distance(samples.spatial, reference.spatial);
  const auto enough = [](const Tensor& features) {
    return features.defined() && features.size(0) > manifold_neighbours;
  };
  if (enough(samples.features) && enough(reference.features))
    figures.manifold = precision_recall(samples.features, reference.features, manifold_neighbours, progress);
  return figures;
}

}  // namespace linnet
