// The public interface, as an embedding program sees it: only <linnet/linnet.h> is included for it.
#include <linnet/linnet.h>

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <new>
#include <thread>

#include <sys/resource.h>
#include <unistd.h>

#include "core/parallel.h"
#include "gpu/support.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "nn/parameter.h"
#include "pipeline/generate.h"
#include "store/model_file.h"
#include "support/processor.h"
#include "support/refusal.h"
#include "support/sanitizers.h"
#include "support/temporary_folder.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;
using ops::test::the_gpu;

class PublicInterface : public testing::Test {
 protected:
  PublicInterface() {
    DiTConfig config = test::tiny_dit_of_pixels();
    config.mixer = nn::Mixer::lit;
    DiT dit(config);
    nn::initialize(dit, 1);
    save_model(file, dit, DType::bf16, {{"linnet.classes", R"(["red-star","blue-ring","moon"])"}});
    request.steps = 3;
  }
  TemporaryFolder folder;
  std::filesystem::path file = folder.path() / "model.safetensors";
  Request request;
};

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

TEST_F(PublicInterface, WhatOnStepThrowsIsPassedOn) {
  request.on_step = [](int, int) -> bool { throw std::bad_alloc(); };
  EXPECT_THROW(Model(file).paint(request), std::bad_alloc);
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
  save_model(file, dit, DType::f32, {});
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

// At the value that differs most.
int furthest(const std::vector<Picture>& a, const std::vector<Picture>& b) {
  if (a.size() != b.size()) return 256;
  int most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].rgb.size(); ++k)
      most = std::max(most, std::abs(int{a[i].rgb[k]} - int{b[i].rgb.at(k)}));
  return most;
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
  const LoadedModel loaded = load_model(file);
  loaded.model->visit("", [](const std::string&, nn::Parameter& parameter) {
    if (parameter.learned()) parameter.value = Tensor::full(parameter.shape, NAN);
  });
  save_model(file, *loaded.model, DType::f32);
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
  save_model(latent, dit, DType::bf16);
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

class TextInterface : public testing::Test {
 protected:
  TextInterface() {
    copy("pixart_pipeline", "transformer", "diffusion_pytorch_model.safetensors");
    copy("vae_plain", "vae", "diffusion_pytorch_model.safetensors");
    copy("t5", "text_encoder", "model.safetensors");
    fs::create_directories(model / "tokenizer");
    fs::copy_file(LINNET_TEST_DATA "/tokenizer/spiece.model", model / "tokenizer/spiece.model");
    request.prompts = {"a red star", "two moons"};
    request.steps = 2;
  }
  void copy(const std::string& name, const char* part, const char* file) const {
    const fs::path weights = fmt::format("{}/reference/{}.model.safetensors", LINNET_TEST_DATA, name);
    fs::create_directories(model / part);
    fs::copy_file(weights, model / part / file);
    std::ofstream(model / part / "config.json") << SafetensorsFile::open(weights).metadata().at("config");
  }
  TemporaryFolder folder;
  fs::path model = folder.path() / "model";
  TextRequest request;
};

TEST_F(TextInterface, PaintsEachPromptInItsTurn) {
  const TextModel text(model);
  EXPECT_EQ(text.picture_size(), 32);
  const auto two = text.paint(request);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_NE(two[0].rgb, two[1].rgb);
  EXPECT_EQ(text.paint({.prompts = {"a red star"}, .steps = 2}).size(), 1u);
  request.count = 3;
  request.batch = 1;
  const auto three = text.paint(request);
  ASSERT_EQ(three.size(), 3u);
  EXPECT_EQ(three[2].rgb.size(), 32u * 32u * 3u);
  request.width = 60;
  request.height = 30;
  const auto wide = text.paint(request).front();
  EXPECT_EQ(wide.width, 64);
  EXPECT_EQ(wide.height, 32);
}

TEST_F(TextInterface, TextsAreLoweredAndANegativeOneLeadsAway) {
  const TextModel text(model);
  const auto painted = [&](const std::string& prompt, const std::string& negative) {
    TextRequest one = request;
    one.prompts = {prompt};
    one.negative = negative;
    return text.paint(one).front().rgb;
  };
  const auto plain = painted("a red star", "");
  EXPECT_EQ(painted(" A Red STAR", ""), plain);
  EXPECT_NE(painted("a red star", "two moons"), plain);
}

TEST_F(TextInterface, PaintsOnAGpuWhatItPaintsOnTheCpu) {
  LINNET_NEED_GPU();
  const auto expected = TextModel(model, {.precision = Precision::f32}).paint(request);
  const TextModel text(model, {.precision = Precision::f32, .device = "cuda"});
  EXPECT_LE(furthest(text.paint(request), expected), 1);
  for (const Precision precision : {Precision::automatic, Precision::int8, Precision::f16})
    EXPECT_EQ(TextModel(model, {.precision = precision, .device = "cuda"}).paint(request).size(), 2u)
        << static_cast<int>(precision);
  request.on_step = [](int step, int) { return step < 1; };
  EXPECT_THROW(text.paint(request), Cancelled);
}

TEST_F(TextInterface, TakesPartsFromElsewhere) {
  const auto inside = TextModel(model).paint(request).front().rgb;
  for (const char* part : {"text_encoder", "tokenizer", "vae"}) fs::rename(model / part, folder.path() / part);
  EXPECT_THROW(TextModel{model}, UsageError);
  const TextModelOptions parts{.text_encoder = folder / "text_encoder",
                               .tokenizer = folder / "tokenizer",
                               .autoencoder = folder / "vae"};
  EXPECT_EQ(TextModel(model, parts).paint(request).front().rgb, inside);
}

TEST_F(TextInterface, SaysWhatIsWrongAndStopsWhenTold) {
  const TextModel text(model, {.precision = Precision::f32});
  TextRequest other = request;
  other.prompts = {};
  EXPECT_THROW(text.paint(other), UsageError);
  other.prompts = {"caf\xe9"};
  EXPECT_THROW(text.paint(other), Error);
  other.prompts = {std::string(65537, 'a')};
  test::expect_refused("65537 bytes", [&] { text.paint(other); });
  other = request;
  other.negative = std::string(65537, 'a');
  test::expect_refused("65537 bytes", [&] { text.paint(other); });
  other = request;
  other.height = -1;
  EXPECT_THROW(text.paint(other), UsageError);
  other = request;
  other.steps = 0;
  EXPECT_THROW(text.paint(other), UsageError);
  other = request;
  other.on_step = [](int step, int) { return step < 1; };
  EXPECT_THROW(text.paint(other), Cancelled);
}

TEST(BuiltinTextModel, PaintsInItsOwnSizeAndGuidance) {
  const TextModel model = TextModel::builtin();
  EXPECT_EQ(model.picture_size(), 64);
  const auto painted = [&](std::optional<float> scale, std::optional<Timesteps> guided) {
    return model.paint({.prompts = {"a red circle"}, .steps = 3, .guidance_scale = scale, .guided = guided})
        .front();
  };
  const Picture usual = painted({}, {});
  EXPECT_EQ(usual.width, 64);
  EXPECT_EQ(painted(3, Timesteps{400, 999}).rgb, usual.rgb);
  EXPECT_EQ(painted(3, {}).rgb, usual.rgb) << "each has what suits the model by itself";
  EXPECT_EQ(painted({}, Timesteps{400, 999}).rgb, usual.rgb);
  EXPECT_NE(painted({}, Timesteps{}).rgb, usual.rgb);
  EXPECT_NE(painted(0, {}).rgb, usual.rgb) << "0 is a scale as others are";
}

}  // namespace
}  // namespace linnet
