// linnet generate and forward with --device cuda.
#include "cli/gpu.h"
#include "cli/small_model.h"
#include "support/processor.h"

namespace linnet::test {
namespace {

bool says(const Result& result, const std::string& text) { return result.out.find(text) != std::string::npos; }

class GpuGenerate : public GpuCommand {
 protected:
  void SetUp() override {
    GpuCommand::SetUp();
    if (IsSkipped()) return;
    write_small_model(folder_ / "pixels");
    DiTConfig config = small_config();
    config.in_channels = 4;
    config.input_size = 8;
    write_small_model(folder_ / "latents", config, false);
    copy_text_model(folder_ / "model");
  }
  static Arguments generate(const Arguments& more) {
    return with({"generate", "--steps", "2", "--seed", "7", "--model"}, more);
  }
};

// What the products are in on the GPU, and on the CPU beside it, of a model of classes and of one of texts,
// whose encoder and autoencoder are in bf16 beside f16.
struct Types {
  std::string gpu, cpu, cpu_of_texts;
  double tolerance;
};
const Types all_types[] = {{"f32", "f32", "f32", 1e-4},
                           {"tf32", "f32", "f32", 1e-2},
                           {"bf16", "bf16", "bf16", 5e-2},
                           {"f16", "f32", "bf16", 5e-2},
                           {"int8", "int8", "int8", 5e-2}};

TEST_F(GpuGenerate, ClassesArePaintedInEveryType) {
  const Arguments wanted = generate({"../pixels", "-c", "red-star,5", "--latents-out", "l", "--dtype"});
  for (const Types& types : all_types) {
    SCOPED_TRACE(types.gpu);
    const Result result = on_gpu(with(wanted, {types.gpu}));
    ASSERT_TRUE(succeeded(result));
    EXPECT_TRUE(says(result, "products in " + types.gpu + " (")) << result.out;
    if (types.cpu == "bf16" && !ops::have_bf16_products()) continue;
    ASSERT_TRUE(succeeded(on_cpu(with(wanted, {types.cpu}))));
    EXPECT_LT(difference("l", "latents"), types.tolerance);
  }
}

TEST_F(GpuGenerate, TextsArePaintedInEveryType) {
  const Arguments wanted = generate({"../model", "two red stars", "a corgi", "--negative", "a moon",
                                     "--latents-out", "l", "-o", "p.png", "--dtype"});
  for (const Types& types : all_types) {
    SCOPED_TRACE(types.gpu);
    ASSERT_TRUE(succeeded(on_gpu(with(wanted, {types.gpu}))));
    // Encoder and autoencoder are in bf16 as the GPU's only where the CPU has instructions for it.
    if (types.cpu_of_texts != "f32" && ops::fastest_product_dtype() != DType::bf16) continue;
    ASSERT_TRUE(succeeded(on_cpu(with(wanted, {types.cpu_of_texts}))));
    EXPECT_LT(difference("l", "latents"), types.tolerance);
    EXPECT_LE(furthest("p-0002.png"), types.gpu == "f32" ? 1 : 40);
  }
}

TEST_F(GpuGenerate, APictureSaysHowItIsPaintedAgain) {
  for (const Types& types : all_types) {
    ASSERT_TRUE(succeeded(on_gpu(generate({"../pixels", "--dtype", types.gpu, "-o", "p.png"}))));
    const Result info = run({"info", "p.png"}, {folder_ / "cuda"});
    EXPECT_TRUE(says(info, "--dtype " + types.gpu + " --device cuda")) << info.out;
  }
}

TEST_F(GpuGenerate, LatentsAreDecodedThereAndPreviewsChangeNothing) {
  const Arguments wanted = generate({"../latents", "-c", "7", "--vae", "../model/vae", "--dtype", "f32", "-o"});
  ASSERT_TRUE(succeeded(on_gpu(with(wanted, {"p.png"}))));
  ASSERT_TRUE(succeeded(on_cpu(with(wanted, {"p.png"}))));
  EXPECT_LE(furthest("p.png"), 1);
  ASSERT_TRUE(succeeded(on_gpu(with(wanted, {"seen.png", "--preview-every", "1"}))));
  EXPECT_EQ(bytes("seen.png"), bytes("p.png"));
  EXPECT_EQ(listing(folder_ / "cuda"), (std::vector<std::string>{"p.png", "seen.png"}));
}

TEST_F(GpuGenerate, AFolderIsGoneOnWith) {
  const Arguments wanted = generate({"../pixels", "-n", "3", "--batch", "2", "--dtype", "f32", "-o", "p/"});
  ASSERT_TRUE(succeeded(on_gpu(wanted)));
  ASSERT_TRUE(succeeded(on_cpu(wanted)));
  for (const std::string& name : listing(folder_ / "cpu/p")) EXPECT_LE(furthest("p/" + name), 1) << name;
  const std::string first = bytes("p/000000.png");
  std::filesystem::remove(folder_ / "cuda/p/000000.png");
  const Result again = on_gpu(wanted);
  ASSERT_TRUE(succeeded(again));
  EXPECT_TRUE(says(again, "1 were there")) << again.out;
  EXPECT_EQ(bytes("p/000000.png"), first);
}

// More matrices than the card may hold, so that some or all of them visit it.
TEST_F(GpuGenerate, WhatTheCardDoesNotHoldVisitsIt) {
  DiTConfig config = small_config();
  config.hidden_size = 96;
  config.depth = 3;
  write_small_model(folder_ / "large", config);
  for (const std::string dtype : {"f32", "int8"}) {
    const Arguments wanted = generate({"../large", "--dtype", dtype, "-o"});
    ASSERT_TRUE(succeeded(on_gpu(with(wanted, {"whole.png"}))));
    // The second leaves half a megabyte to matrices, beside what is kept free for activations and libraries.
    for (const char* memory : {"16M", "257M"}) {
      ASSERT_TRUE(succeeded(on_gpu(with(wanted, {"part.png", "--memory", memory})))) << memory;
      EXPECT_EQ(read_image(folder_ / "cuda/part.png"), read_image(folder_ / "cuda/whole.png"))
          << dtype << " " << memory;
    }
  }
}

TEST_F(GpuGenerate, EncodedTextsAreKeptForTheirOwnType) {
  const auto encoded = [&](const char* dtype) {
    const Result result =
        on_gpu(generate({"../model", "a star", "--cache", "cache", "--dtype", dtype, "-o", "p.png"}));
    EXPECT_TRUE(succeeded(result));
    return result.out.substr(result.out.find("text: "), std::string("text: 2 of 2").size());
  };
  EXPECT_EQ(encoded("tf32"), "text: 2 of 2");
  EXPECT_EQ(encoded("tf32"), "text: 0 of 2");
  EXPECT_EQ(encoded("f32"), "text: 2 of 2");
}

TEST_F(GpuGenerate, WhatDoesNotFitIsOneSentenceAndNoFile) {
  const Arguments wanted[] = {generate({"../pixels", "-o", "p.png", "--latents-out", "l"}),
                              generate({"../latents", "--vae", "../model/vae", "-o", "p.png"}),
                              generate({"../pixels", "-n", "2", "-o", "p.webp", "--preview-every", "1"}),
                              generate({"../model", "a star", "-o", "p.png"})};
  for (const Arguments& arguments : wanted)
    EXPECT_TRUE(failed(on_gpu(with(arguments, {"--memory", "100K"})), 1, "the GPU is out of memory: "));
  EXPECT_TRUE(failed(on_gpu(with(wanted[0], {"--memory", "100K"})), 1,
                     "2.0 MiB more wanted, 0 bytes in use and 100.0 KiB free of the 100.0 KiB that --memory "
                     "allows; more of it helps, and fewer pictures at once take less"));
  EXPECT_TRUE(listing(folder_ / "cuda").empty());
}

TEST_F(GpuGenerate, WhatIsMissingIsNamed) {
  const Arguments wanted = generate({"../pixels", "-o", "p.png"});
  const auto refused = [&](const Arguments& more, int code, const std::string& sentence) {
    EXPECT_TRUE(failed(run_in(folder_ / "cuda", with(wanted, more)), code, sentence));
  };
  refused({"--device", "cuda:1"}, 1, "cuda:1 cannot be used: the only GPU of this machine is cuda:0");
  refused({"--device", "cuda:-1"}, 2, "a device is cpu, cuda or cuda:1 and so on, not \"cuda:-1\"");
  refused({"--device", "gpu"}, 2, "a device is cpu, cuda or cuda:1 and so on, not \"gpu\"");
  refused({"--device", "cuda", "--dtype", "int4"}, 2, "on a GPU also in f16 or tf32, not \"int4\"");
  for (const char* dtype : {"f16", "tf32"})
    refused({"--device", "cpu", "--dtype", dtype}, 2, std::string("products in ") + dtype + " are a GPU's");
  const auto with_library = [&](const std::string& library) {
    return run(with(wanted, {"--device", "cuda"}),
               {.folder = folder_ / "cuda", .environment = {{"LINNET_CUDA_LIBRARY", library}}});
  };
  EXPECT_TRUE(failed(with_library("/none/lib.so"), 1, "there is no /none/lib.so"));
  EXPECT_TRUE(failed(with_library(folder_ / "pixels"), 1, "pixels: "));
  EXPECT_TRUE(listing(folder_ / "cuda").empty());
}

struct Forward {
  std::string model, input, part;
  std::vector<std::string> outputs;
};

TEST_F(GpuCommand, ForwardRunsEveryPart) {
  copy_text_model(folder_ / "model");
  const auto file = [](const char* name) {
    return data_file(std::string("reference/") + name + ".safetensors");
  };
  const Forward rows[] = {
      {file("dit_lit.model"), file("dit_lit.io"), "transformer", {"out"}},
      {file("dit_focused.model"), file("dit_focused.io"), "transformer", {"out"}},
      {file("pixart_compressed.model"), file("pixart_compressed.io"), "transformer", {"out"}},
      {file("pixart_normed.model"), file("pixart_normed.io"), "transformer", {"out"}},
      {"../model/text_encoder", file("t5.io"), "text_encoder", {"last_hidden_state"}},
      {"../model/vae", file("vae_plain.io"), "vae.encoder", {"mean", "logvar"}},
      {"../model/vae", file("vae_plain.io"), "vae.decoder", {"sample"}}};
  for (const Forward& row : rows) {
    SCOPED_TRACE(row.model + " " + row.part);
    for (const std::string& dtype : product_names()) {
      const Arguments all = {"forward", row.model, row.input, "--part", row.part, "-o", "o", "--dtype", dtype};
      ASSERT_TRUE(succeeded(on_gpu(all)));
      ASSERT_TRUE(succeeded(on_cpu(all)));
      for (const std::string& name : row.outputs)
        EXPECT_LT(difference("o", name), dtype == "f32" ? 1e-4 : 3e-2) << name;
    }
  }
}

}  // namespace
}  // namespace linnet::test
