// Inception and the figures made of what it sees, against pytorch-fid and torch-fidelity (tests/reference).
#include <gtest/gtest.h>

#include "core/parallel.h"
#include "eval/inception_view.h"
#include "io/image.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/inception_weights.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

using test::refusal;
using test::relative_error;

const SafetensorsFile& dump() {
  static const auto file = SafetensorsFile::open(LINNET_TEST_DATA "/reference/inception.safetensors");
  return file;
}

const LoadedInception& inception() {
  static const LoadedInception loaded = [] {
    LoadedInception result{std::make_unique<Inception>(), "0123456789abcdef"};
    test::draw_inception(*result.model);
    return result;
  }();
  return loaded;
}

std::vector<Image> images_of(const std::string& name) {
  const Tensor pixels = dump().tensor(name);
  const int64_t each = pixels.numel() / pixels.size(0);
  std::vector<Image> images;
  for (int64_t i = 0; i < pixels.size(0); ++i) {
    const uint8_t* from = pixels.data<uint8_t>() + i * each;
    images.push_back({pixels.size(2), pixels.size(1), std::vector<uint8_t>(from, from + each)});
  }
  return images;
}

double number(const std::string& name, size_t index = 0) {
  const Tensor values = dump().tensor(name);
  return values.values<double>()[index];
}

void write_set(const std::filesystem::path& folder, const std::string& name) {
  std::filesystem::create_directories(folder);
  const std::vector<Image> images = images_of(name);
  for (size_t i = 0; i < images.size(); ++i) write_image(folder / fmt::format("{:03}.png", i), images[i]);
}

TEST(Inception, SeesWhatThePublicNetworkSees) {
  const Inception::Features seen = inception().model->features(to_tensor(images_of("pictures")));
  EXPECT_LT(relative_error(seen.first, dump().tensor("first")), 1e-5);
  EXPECT_LT(relative_error(seen.second, dump().tensor("second")), 1e-5);
  EXPECT_LT(relative_error(seen.third, dump().tensor("third")), 1e-5);
  EXPECT_LT(relative_error(seen.pool, dump().tensor("pool")), 1e-5);
  EXPECT_LT(relative_error(seen.spatial, dump().tensor("spatial")), 1e-5);
  EXPECT_LT(relative_error(inception().model->probabilities(seen.pool), dump().tensor("probabilities")), 1e-5);
}

TEST(Inception, RefusesWhatIsNoPicture) {
  EXPECT_THROW(inception().model->features(Tensor::zeros({1, 4, 8, 8})), Error);
  EXPECT_THROW(inception().model->features(Tensor::zeros({3, 8, 8})), Error);
}

class InceptionViews : public testing::Test {
 protected:
  InceptionViews() {
    write_set(folder_ / "one", "one");
    write_set(folder_ / "other", "other");
  }
  TemporaryFolder folder_;
};

TEST_F(InceptionViews, GiveThePublicFigures) {
  const InceptionView one = look_at_folder(inception(), folder_ / "one");
  InceptionView other = look_at_folder(inception(), folder_ / "other");
  save_view(folder_ / "other.safetensors", other, inception());
  other = load_view(folder_ / "other.safetensors", inception());  // the same as before
  EXPECT_EQ(one.count, 14);
  EXPECT_EQ(other.count, 11);
  const InceptionFigures figures = compare(one, other);
  EXPECT_NEAR(figures.fid, number("fid"), 1e-3 * number("fid"));
  ASSERT_TRUE(figures.sfid && figures.manifold);
  EXPECT_NEAR(*figures.sfid, number("sfid"), 1e-3 * number("sfid"));
  EXPECT_NEAR(figures.score - 1, number("score") - 1, 1e-3 * (number("score") - 1));
  EXPECT_NEAR(figures.manifold->precision, number("precision"), 1e-6);
  EXPECT_NEAR(figures.manifold->recall, number("recall"), 1e-6);
}

TEST_F(InceptionViews, AnNpzOfPicturesIsLikeTheirFolder) {
  const std::vector<Image> images = images_of("other");
  write_npz_pictures(folder_ / "other.npz", 11, 24, 24, [&](int64_t i, uint8_t* into) {
    const Image& image = images[static_cast<size_t>(i)];
    std::copy(image.rgb.begin(), image.rgb.end(), into);
  });
  const InceptionView folder = look_at_folder(inception(), folder_ / "other");
  const InceptionView npz = look_at_npz(inception(), folder_ / "other.npz");
  EXPECT_EQ(npz.count, 11);
  for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(npz.pool.mean()[i], folder.pool.mean()[i], 1e-6);
  EXPECT_NEAR(npz.score, folder.score, 1e-6);
  // A folder's are seen in another order, as the parts that the score is of would else be of a few classes
  // each.
  std::vector<int64_t> order;
  for (int64_t i = 0; i < 11; ++i)
    for (int64_t j = 0; j < 11; ++j)
      if (relative_error(folder.features.rows(i, i + 1), npz.features.rows(j, j + 1)) < 1e-5)
        order.push_back(j);
  EXPECT_EQ(order.size(), 11u);
  EXPECT_FALSE(std::ranges::is_sorted(order));
}

TEST_F(InceptionViews, StatisticsAloneGiveWhatTheyCan) {
  const LoadedInception& model = inception();
  EXPECT_NE(refusal([&] { look_at_npz(model, LINNET_TEST_DATA "/npz/numbers.npz"); }).find("neither pictures"),
            std::string::npos);
  // The covariance is in Fortran's order there, which is the same, and labels lie beside it.
  const std::filesystem::path file = LINNET_TEST_DATA "/npz/statistics.npz";
  check_npz_can_be_seen(file);
  const InceptionView statistics = look_at_npz(model, file);
  EXPECT_EQ(statistics.pool.mean(), std::vector<double>(2048, 1.0));
  const InceptionFigures figures = compare(look_at_folder(model, folder_ / "one"), statistics);
  EXPECT_GT(figures.fid, 0);
  EXPECT_FALSE(figures.sfid || figures.manifold);
}

TEST_F(InceptionViews, PicturesInFortransOrderAreRefused) {
  EXPECT_NE(refusal([] {
              check_npz_can_be_seen(LINNET_TEST_DATA "/npz/fortran_pictures.npz");
            }).find("array arr_0 is in Fortran's order"),
            std::string::npos);
}

TEST_F(InceptionViews, AFileOfOtherWeightsIsRefused) {
  InceptionView view;
  view.pool = FeatureStatistics(2, std::vector<double>(2048), std::vector<double>(2048 * 2048));
  view.spatial = FeatureStatistics(2, std::vector<double>(2023), std::vector<double>(2023 * 2023));
  view.features = Tensor::zeros({2, 2048});
  save_view(folder_ / "view", view, {nullptr, "other"});
  EXPECT_NE(refusal([&] { load_view(folder_ / "view", inception()); }).find("other weights"),
            std::string::npos);
  write_safetensors(folder_ / "none", {{"mean", Tensor::zeros({2})}});
  EXPECT_NE(refusal([&] { load_view(folder_ / "none", inception()); }).find("not what Inception saw"),
            std::string::npos);
}

TEST(Manifold, IsThePublicOne) {
  const Tensor one = dump().tensor("cloud.one"), other = dump().tensor("cloud.other");
  const PrecisionRecall found = precision_recall(one, other);
  EXPECT_NEAR(found.precision, number("cloud.figures", 0), 1e-6);
  EXPECT_NEAR(found.recall, number("cloud.figures", 1), 1e-6);
  EXPECT_GT(found.precision, 0.1);
  EXPECT_LT(found.precision, 0.95);  // else the test would see nothing
}

// More than one block of rows and of columns, against all distances at once.
TEST(Manifold, BlocksMakeNoDifference) {
  const auto points = [](int64_t n, uint64_t seed, float shift) {
    Tensor x = Generator(seed).normal({n, 3});
    for (float& v : std::span(x.mutable_data<float>(), static_cast<size_t>(x.numel()))) v += shift;
    return x;
  };
  const Tensor a = points(1100, 1, 0), b = points(4200, 2, 2);
  const auto distance = [](const Tensor& x, int64_t i, const Tensor& y, int64_t j) {
    double sum = 0;
    for (int64_t c = 0; c < 3; ++c) {
      const double apart =
          static_cast<double>(x.data<float>()[3 * i + c]) - static_cast<double>(y.data<float>()[3 * j + c]);
      sum += apart * apart;
    }
    return sum;
  };
  std::vector<double> radii(4200);
  parallel_for(4200, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::vector<double> all;
      for (int64_t j = 0; j < 4200; ++j) all.push_back(distance(b, i, b, j));
      std::nth_element(all.begin(), all.begin() + 3, all.end());
      radii[static_cast<size_t>(i)] = all[3];
    }
  });
  int inside = 0;
  for (int64_t i = 0; i < 1100; ++i) {
    bool any = false;
    for (int64_t j = 0; j < 4200 && !any; ++j) any = distance(a, i, b, j) <= radii[static_cast<size_t>(j)];
    inside += any;
  }
  double last = 0;
  const PrecisionRecall found = precision_recall(a, b, 3, [&](double share) { last = share; });
  EXPECT_NEAR(found.precision, inside / 1100.0, 2.5 / 1100);  // a point may lie on a ball's very edge
  EXPECT_NEAR(last, 1, 1e-12);
}

TEST(Manifold, RefusesSetsThatAreTooSmall) {
  EXPECT_THROW(precision_recall(Tensor::zeros({3, 2}), Tensor::zeros({9, 2})), Error);
  EXPECT_THROW(precision_recall(Tensor::zeros({9, 2}), Tensor::zeros({9, 3})), Error);
}

TEST(InceptionScore, OfCertainAndEvenGuessesIsTheNumberOfClasses) {
  InceptionScore score;
  Tensor certain = Tensor::zeros({8, 4});
  for (int64_t i = 0; i < 8; ++i) certain.mutable_data<float>()[i * 4 + i % 4] = 1;
  score.add(certain);
  EXPECT_NEAR(score.value(), 4, 1e-9);
}

// As ADM's suite has it: 2,500 pictures of each of two classes are a part, and one more is another.
TEST(InceptionScore, PartsAreOf5000Pictures) {
  Tensor pictures = Tensor::zeros({5001, 2});
  for (int64_t i = 0; i < 5001; ++i) pictures.mutable_data<float>()[i * 2 + i / 2500 % 2] = 1;
  InceptionScore score;
  score.add(pictures);
  EXPECT_NEAR(score.value(), (2.0 + 1.0) / 2, 1e-9);
}

TEST(InceptionScore, IsTheMeanOfItsParts) {
  Tensor same = Tensor::zeros({4, 2}), both = Tensor::zeros({4, 2});
  for (int64_t i = 0; i < 4; ++i) {
    same.mutable_data<float>()[i * 2] = 1;
    both.mutable_data<float>()[i * 2 + i % 2] = 1;
  }
  InceptionScore score(4);
  score.add(same);  // 1
  score.add(both);  // 2
  EXPECT_NEAR(score.value(), 1.5, 1e-9);
  EXPECT_THROW((void)InceptionScore().value(), Error);
}

}  // namespace
}  // namespace linnet
