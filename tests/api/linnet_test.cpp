// The public interface, as an embedding program sees it: only <linnet/linnet.h> is included for it.
#include <linnet/linnet.h>

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <new>
#include <thread>

#include <sys/resource.h>
#include <unistd.h>

#include "api/pictures.h"
#include "core/parallel.h"
#include "gpu/support.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "nn/parameter.h"
#include "pipeline/generate.h"
#include "store/dit_file.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/sanitizers.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

using ops::test::the_gpu;
using test::furthest;

class PublicInterface : public testing::Test {
 protected:
  PublicInterface() {
    DiTConfig config = test::tiny_dit_of_pixels();
    config.mixer = nn::Mixer::lit;
    DiT dit(config);
    nn::initialize(dit, 1);
    save_dit(file, dit, DType::bf16, {{"linnet.classes", R"(["red-star","blue-ring","moon"])"}});
    request.steps = 3;
  }
  TemporaryFolder folder;
  std::filesystem::path file = folder.path() / "model.safetensors";
  Request request;
};

TEST(Library, TellsItsVersion) { EXPECT_STREQ(version(), LINNET_VERSION); }

TEST(Library, TellsWhichDevicesThereAre) {
  EXPECT_TRUE(has_device("cpu"));
  for (const char* none : {"", "gpu", "cuda:", "cuda:-1"}) EXPECT_FALSE(has_device(none)) << none;
  const bool was_open = gpu_is_open(), has_gpu = has_device("cuda");
  EXPECT_EQ(gpu_is_open(), was_open) << "to ask is not to choose";
  EXPECT_FALSE(has_device("cuda:1000"));
  LINNET_NEED_GPU();
  EXPECT_TRUE(has_gpu);
  EXPECT_TRUE(has_device("cuda"));
  EXPECT_FALSE(has_device("cuda:1")) << "a process works on one GPU";
}

TEST(Library, HasNoGpuWithoutItsLibrary) {
  if (gpu_is_open()) GTEST_SKIP() << "not run: this process has a GPU";
  const char* const variable = "LINNET_CUDA_LIBRARY";
  const char* const set = std::getenv(variable);
  const std::string before = set ? set : "";
  ::setenv(variable, "/nowhere", 1);
  EXPECT_FALSE(has_device("cuda"));
  set ? ::setenv(variable, before.c_str(), 1) : ::unsetenv(variable);
}

TEST_F(PublicInterface, TellsWhatAModelKnows) {
  const Model model(file);
  EXPECT_EQ(model.class_names(), (std::vector<std::string>{"red-star", "blue-ring", "moon"}));
  EXPECT_EQ(model.class_count(), 3);
  EXPECT_EQ(model.picture_size(), 16);
}

// While there is one, the process may have but a little more memory than it has.
class LittleMemory {
 public:
  LittleMemory() {
    ::getrlimit(RLIMIT_AS, &before_);
    size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit limit{pages * static_cast<size_t>(::getpagesize()) + (1 << 20), before_.rlim_max};
    ::setrlimit(RLIMIT_AS, &limit);
  }
  ~LittleMemory() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

// Here already the list of what the pictures show is too long.
TEST_F(PublicInterface, WhereMemoryEndsItThrowsItsOwnError) {
  if (test::with_address_sanitizer || test::with_thread_sanitizer) GTEST_SKIP() << "which needs memory itself";
  const auto ends_it = [](const auto& model, auto wanted) {
    wanted.steps = 1;
    wanted.count = wanted.batch = 1;
    model.paint(wanted);
    wanted.count = wanted.batch = 1'000'000;
    const LittleMemory little;
    EXPECT_THROW(model.paint(wanted), OutOfMemory);
  };
  ends_it(Model(file), request);
  ends_it(TextModel::builtin(), TextRequest{.prompts = {"a red star"}});
}

TEST_F(PublicInterface, WhatCallbacksThrowIsPassedOn) {
  const Model model(file);
  EXPECT_THROW(model.paint(request, [](const Picture&, int64_t) -> bool { throw std::bad_alloc(); }),
               std::bad_alloc);
  request.on_step = [](int, int) -> bool { throw std::bad_alloc(); };
  EXPECT_THROW(model.paint(request), std::bad_alloc);
}

TEST_F(PublicInterface, GivesEachPictureAwayWhenItsBatchIsPainted) {
  const Model model(file);
  request.count = 3;
  request.batch = 2;
  request.steps = 2;
  std::vector<Picture> pictures;
  EXPECT_EQ(test::order_of(model, request, pictures), "ss01ss2");
  const auto together = model.paint(request);
  ASSERT_EQ(pictures.size(), together.size());
  for (size_t i = 0; i < together.size(); ++i) EXPECT_EQ(pictures[i].rgb, together[i].rgb) << i;
}

TEST_F(PublicInterface, EndsAtThePictureThatIsSaidToBeTheLast) {
  const Model model(file);
  request.count = 3;
  request.batch = 1;
  int64_t seen = 0;
  EXPECT_THROW(model.paint(request, [&](const Picture&, int64_t) { return ++seen < 2; }), Cancelled);
  EXPECT_EQ(seen, 2);
  test::expect_refused("no function", [&] { model.paint(request, OnPicture()); });
}

TEST_F(PublicInterface, PaintsAsManyPicturesAsWanted) {
  request.classes = {"red-star", "2"};
  request.count = 5;
  request.batch = 2;
  const auto pictures = Model(file).paint(request);
  ASSERT_EQ(pictures.size(), 5u);
  for (const Picture& picture : pictures) {
    EXPECT_EQ(picture.width, 16);
    EXPECT_EQ(picture.rgb.size(), 16u * 16u * 3u);
  }
}

TEST_F(PublicInterface, PaintsOneOfEachClassThatIsNamed) {
  const Model model(file);
  EXPECT_EQ(model.paint(request).size(), 1u);
  request.classes = {"red-star", "2", "moon"};
  EXPECT_EQ(model.paint(request).size(), 3u);
  request.count = 2;
  EXPECT_EQ(model.paint(request).size(), 2u);
  request.count = -1;
  EXPECT_THROW(model.paint(request), UsageError);
}

TEST_F(PublicInterface, EqualRequestsGiveEqualBytesAndSeedsDiffer) {
  const Model model(file);
  const auto first = model.paint(request).front().rgb;
  EXPECT_EQ(model.paint(request).front().rgb, first);
  request.seed = 1;
  EXPECT_NE(model.paint(request).front().rgb, first);
}

// Of weights that predict something: clipped, and guided when it was said.
TEST_F(PublicInterface, PaintsWhatTheRestOfTheLibraryPaints) {
  DiT dit(test::tiny_dit_of_pixels());
  for (const auto& [name, parameter] : nn::learned_parameters(dit)) {
    Generator generator(nn::hash_name(name));
    parameter->init = nn::Init::normal(0.2f);
    nn::draw(*parameter, generator);
  }
  save_dit(file, dit, DType::f32, {});
  nn::freeze(dit);
  request.classes = {"2"};
  request.seed = 7;
  request.guided = {300, 800};
  GenerateOptions options;
  options.steps = 3;
  options.guided = {300, 800};
  const Model model(file, {.precision = Precision::f32});
  const auto unlike = [&] {
    const Tensor sample = generate(dit, {2}, {7}, options);
    const Image expected = to_image(sample.reshape({3, 16, 16}));
    const Picture found = model.paint(request).front();
    int largest = 0;
    for (size_t i = 0; i < expected.rgb.size(); ++i)
      largest = std::max(largest, std::abs(expected.rgb[i] - found.rgb[i]));
    return largest;
  };
  EXPECT_LE(unlike(), 1);
  options.clip_x0 = false;
  EXPECT_GT(unlike(), 1);
  options.clip_x0 = true;
  options.guided = {};
  EXPECT_GT(unlike(), 1);
}

TEST_F(PublicInterface, PaintsInEveryPrecision) {
  const auto exact = Model(file, {.precision = Precision::f32}).paint(request).front().rgb;
  std::vector<Precision> others{Precision::automatic, Precision::int8};
  if (ops::have_bf16_products()) others.push_back(Precision::bf16);
  for (const Precision precision : others) {
    const auto other = Model(file, {.precision = precision}).paint(request).front().rgb;
    int64_t difference = 0;
    for (size_t i = 0; i < exact.size(); ++i) difference += std::abs(int{exact[i]} - int{other[i]});
    EXPECT_LT(difference, 2 * static_cast<int64_t>(exact.size())) << static_cast<int>(precision);
  }
}

TEST_F(PublicInterface, SaysThatThisProcessorHasNoProductsInBf16) {
  if (ops::have_bf16_products()) GTEST_SKIP() << "not run: this processor has products in bf16";
  test::expect_refused("no products in bf16", [&] { Model(file, {.precision = Precision::bf16}); });
}

TEST_F(PublicInterface, PaintsOnAGpuWhatItPaintsOnTheCpu) {
  LINNET_NEED_GPU();
  request.count = 3;
  request.batch = 2;
  const auto expected = Model(file, {.precision = Precision::f32}).paint(request);
  EXPECT_LE(furthest(Model(file, {.precision = Precision::f32, .device = "cuda"}).paint(request), expected), 1);
  for (const Precision precision : {Precision::automatic, Precision::bf16, Precision::int8, Precision::f16})
    EXPECT_LE(furthest(Model(file, {.precision = precision, .device = "cuda"}).paint(request), expected), 8)
        << static_cast<int>(precision);
  request.on_step = [](int step, int) { return step < 2; };
  EXPECT_THROW(Model(file, {.precision = Precision::f32, .device = "cuda"}).paint(request), Cancelled);
}

TEST_F(PublicInterface, TheProcessStaysOnOneGpu) {
  LINNET_NEED_GPU();
  test::expect_refused("a process works on one GPU, and this one on cuda:0",
                       [&] { Model(file, {.device = "cuda:1"}); });
  EXPECT_THROW(Model(file, {.device = "gpu"}), UsageError);
  EXPECT_THROW(Model(file, {.precision = Precision::f16}), UsageError);  // which a CPU has not
}

TEST_F(PublicInterface, TheNumberOfThreadsHoldsOnWhicheverThread) {
  const int usual = threads();
  set_thread_count(1);
  int seen = 0;
  request.on_step = [&](int, int) {
    seen = threads();
    return true;
  };
  const Model model(file);
  std::thread([&] { model.paint(request); }).join();
  EXPECT_EQ(seen, 1);
  set_thread_count(usual);
  std::thread([&] { model.paint(request); }).join();
  EXPECT_EQ(seen, usual);
}

TEST_F(PublicInterface, TheCallersOwnNumberOfThreadsIsAsBefore) {
  const int usual = threads();
  omp_set_num_threads(2);
  set_thread_count(3);
  int seen = 0;
  const Model model(file);
  EXPECT_EQ(threads(), 2);
  request.on_step = [&](int step, int) {
    seen = threads();
    return step < 2;
  };
  EXPECT_THROW(model.paint(request), Cancelled);
  EXPECT_EQ(seen, 3);
  EXPECT_EQ(threads(), 2);
  set_thread_count(0);
  EXPECT_THROW(model.paint(request), Cancelled);
  EXPECT_EQ(seen, omp_get_num_procs());
  EXPECT_EQ(threads(), 2);
  EXPECT_THROW(set_thread_count(-1), UsageError);
  EXPECT_THROW(set_thread_count(1025), UsageError);
  omp_set_num_threads(usual);
  set_thread_count(usual);
}

// oneDNN leaves out the parts of threads that OpenMP does not give it, so Linnet must not ask for them.
TEST_F(PublicInterface, FewerThreadsThanAskedForPaintTheSame) {
  const int usual = threads();
  const Model model = Model::builtin({.precision = Precision::int8});
  request.steps = 2;
  request.classes = {"0"};
  omp_set_num_threads(1);
  const auto right = model.paint(request).front().rgb;
  omp_set_num_threads(4);
  omp_set_dynamic(1);
  EXPECT_EQ(model.paint(request).front().rgb, right) << "their number is dynamic";
  EXPECT_TRUE(omp_get_dynamic()) << "as the caller has it";
  omp_set_dynamic(0);
  const int levels = omp_get_max_active_levels();
  omp_set_max_active_levels(0);
  EXPECT_EQ(model.paint(request).front().rgb, right) << "no level of them";
  omp_set_max_active_levels(levels);
  omp_set_num_threads(usual);
}

TEST_F(PublicInterface, AModelThatWasMovedSaysSo) {
  Model model(file);
  Model& itself = model;
  model = std::move(itself);
  EXPECT_EQ(model.paint(request).size(), 1u);
  const Model other = std::move(model);
  EXPECT_THROW(model.paint(request), UsageError);
  EXPECT_THROW(model.class_names(), UsageError);
  EXPECT_EQ(other.paint(request).size(), 1u);
}

TEST_F(PublicInterface, CanBeCancelledAtAnyStep) {
  int seen = 0;
  request.on_step = [&](int step, int steps) {
    EXPECT_EQ(steps, 3);
    seen = step;
    return step < 2;
  };
  EXPECT_THROW(Model(file).paint(request), Cancelled);
  EXPECT_EQ(seen, 2);
}

TEST_F(PublicInterface, SaysWhatIsWrong) {
  request.classes = {"red-stra"};
  try {
    Model(file).paint(request);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("red-star"), std::string::npos);
  }
  request.classes = {};
  request.steps = 0;
  EXPECT_THROW(Model(file).paint(request), UsageError);
  EXPECT_THROW(Model(folder.path() / "none.safetensors"), Error);
  std::ofstream(folder.path() / "broken.safetensors") << "not a model";
  EXPECT_THROW(Model(folder.path() / "broken.safetensors"), Error);
}

TEST_F(PublicInterface, APictureThatIsNotFiniteIsRefused) {
  const LoadedDiT loaded = load_dit(file);
  loaded.model->visit("", [](const std::string&, nn::Parameter& parameter) {
    if (parameter.learned()) parameter.value = Tensor::full(parameter.shape, NAN);
  });
  save_dit(file, *loaded.model, DType::f32);
  test::expect_refused("not finite", [&] { Model(file).paint(request); });
}

TEST_F(PublicInterface, ALatentModelPaintsThroughItsAutoencoder) {
  DiTConfig config;
  config.input_size = 8;
  config.hidden_size = 32;
  config.depth = 1;
  config.num_heads = 2;
  config.mixer = nn::Mixer::lit;
  DiT dit(config);
  nn::initialize(dit, 1);
  const auto latent = folder.path() / "latent.safetensors";
  save_dit(latent, dit, DType::bf16);
  const std::filesystem::path weights = LINNET_TEST_DATA "/reference/vae_plain.model.safetensors";
  std::filesystem::create_directories(folder / "vae");
  std::filesystem::copy_file(weights, folder / "vae/diffusion_pytorch_model.safetensors");
  std::ofstream(folder / "vae/config.json") << SafetensorsFile::open(weights).metadata().at("config");

  EXPECT_THROW(Model{latent}, UsageError);
  const Model model(latent, {.precision = Precision::f32, .autoencoder = folder / "vae"});
  EXPECT_EQ(model.picture_size(), 32);
  EXPECT_EQ(model.class_names().at(207), "golden retriever");
  request.classes = {"golden retriever"};
  const auto whole = model.paint(request);
  ASSERT_EQ(whole.size(), 1u);
  EXPECT_EQ(whole[0].width, 32);
  EXPECT_EQ(whole[0].rgb.size(), 32u * 32u * 3u);

  LINNET_NEED_GPU();
  const Model there(latent, {.precision = Precision::f32, .device = "cuda", .autoencoder = folder / "vae"});
  EXPECT_EQ(there.picture_size(), 32);
  EXPECT_LE(furthest(there.paint(request), whole), 1);
}

TEST(BuiltinModel, PaintsOnAGpuWhatItPaintsOnTheCpu) {
  LINNET_NEED_GPU();
  Request request;
  request.steps = 1;
  EXPECT_LE(furthest(Model::builtin({.precision = Precision::f32, .device = "cuda"}).paint(request),
                     Model::builtin({.precision = Precision::f32}).paint(request)),
            1);
}

}  // namespace
}  // namespace linnet
