// --memory holds: what a process takes at most, measured by the system, stays within the least that Linnet says
// would do, with weights large enough that any of them twice, or left mapped, would be seen.
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "cli/command.h"
#include "cli/small_model.h"
#include "core/memory.h"
#include "io/safetensors.h"
#include "models/vae.h"
#include "store/pixart_file.h"
#include "store/t5_file.h"
#include "support/sanitizers.h"
#include "support/temporary_folder.h"

namespace linnet::test {
namespace {

namespace fs = std::filesystem;

constexpr size_t megabyte = size_t{1} << 20;

class MemoryBudget : public testing::Test {
 protected:
  void SetUp() override {
    if (with_address_sanitizer || with_thread_sanitizer)
      GTEST_SKIP() << "the sanitizer's own memory would be measured";
    fs::create_directories(folder_ / "model/tokenizer");
    fs::create_directories(folder_ / "model/transformer");
    fs::create_directories(folder_ / "model/vae");
    fs::create_directories(folder_ / "model/text_encoder");
    fs::copy_file(data_file("tokenizer/spiece.model"), folder_ / "model/tokenizer/spiece.model");
    write_text_encoder();
    write_transformer();
    write_vae();
    release_cached_memory();  // a new process begins with what its parent has, and that counts
  }

  // 50 MB in f32.
  void write_text_encoder() const {
    T5Config config;
    config.vocabulary = 60;
    config.width = 256;
    config.hidden = 1024;
    config.depth = 12;
    config.heads = 4;
    T5Encoder encoder(config);
    draw_all(encoder);
    save_t5(folder_ / "model/text_encoder", encoder, DType::f32);
  }

  // 90 MB in f32.
  void write_transformer() const {
    PixArtConfig config;
    config.sample_size = 32;
    config.hidden_size = 384;
    config.depth = 8;
    config.num_heads = config.num_cross_heads = 2;
    config.caption_channels = 256;
    config.caption_tokens = 20;
    config.null_caption = false;
    config.mixer = nn::Mixer::lit;
    PixArt model(config);
    draw_all(model);
    save_pixart(folder_ / "model/transformer/diffusion_pytorch_model.safetensors", model, DType::f32);
  }

  // 150 MB in f32.
  void write_vae() const {
    VaeConfig config;
    config.block_out_channels = {32, 128, 384, 512};
    config.layers_per_block = 1;
    Vae vae(config);
    draw_all(vae);
    NamedTensors tensors;
    for (const auto& [name, parameter] : nn::all_parameters(vae)) tensors.emplace_back(name, parameter->value);
    write_safetensors(folder_ / "model/vae/diffusion_pytorch_model.safetensors", tensors, {});
    std::ofstream(folder_ / "model/vae/config.json") << to_json(config);
  }

  // A bundle of the model.
  void quantize(const std::string& transformer) const {
    const Result result =
        run({"quantize", "model", "-o", transformer, "--transformer-dtype", transformer}, {folder_.path()});
    ASSERT_TRUE(succeeded(result));
    EXPECT_LE(result.peak / megabyte, 90u) << transformer;
  }

  Result generate(const Arguments& more) const {
    Arguments all = {"generate", "a star", "--steps", "1", "--seed", "5", "-o", "p.png", "--model"};
    all.insert(all.end(), more.begin(), more.end());
    return run(all, {folder_.path()});
  }

  // The least that Linnet says would do, in megabytes.
  size_t least(const Arguments& more) const {
    Arguments all = more;
    all.insert(all.end(), {"--memory", "1M"});
    const Result refused = generate(all);
    EXPECT_TRUE(failed(refused, 2, "at least "));
    return std::stoul(refused.err.substr(refused.err.find("at least ") + 9));
  }

  void expect_it_holds(const Arguments& more) const {
    const size_t smallest = least(more);
    for (const size_t budget : {smallest, smallest + smallest / 4}) {
      Arguments all = more;
      all.insert(all.end(), {"--memory", fmt::format("{}M", budget)});
      const Result painted = generate(all);
      ASSERT_TRUE(succeeded(painted));
      EXPECT_LE(painted.peak / megabyte, budget) << fmt::format("{}", fmt::join(more, " "));
    }
  }

  TemporaryFolder folder_;
};

TEST_F(MemoryBudget, OfWeightsInF32) {
  expect_it_holds({"model"});
  expect_it_holds({"model", "--dtype", "f32"});
  expect_it_holds({"model", "--dtype", "int8"});
}

TEST_F(MemoryBudget, OfABundleAndInMakingIt) {
  quantize("bf16");
  quantize("int8");
  expect_it_holds({"bf16"});
  expect_it_holds({"int8"});
  EXPECT_LT(least({"int8"}), least({"bf16"}));
}

// As the model is large enough for signals to meet its work.
TEST_F(MemoryBudget, AnInterruptedBundleLeavesNothing) {
  const auto before = listing(folder_.path());
  for (const int signal : {SIGINT, SIGTERM}) {
    Process process({"quantize", "model", "-o", "bundle"}, {folder_.path()});
    while (!fs::exists(folder_ / "bundle.partial") && !fs::exists(folder_ / "bundle")) ::usleep(100);
    process.send(signal);
    const Result result = process.wait();
    EXPECT_EQ(result.code, 128 + signal);
    EXPECT_EQ(result.err, "linnet: interrupted\n");
    EXPECT_EQ(listing(folder_.path()), before);
  }
}

}  // namespace
}  // namespace linnet::test
