// linnet bench vae: an autoencoder of Stable Diffusion's shape, its speed beside oneDNN's convolution (a
// GPU's beside its fastest product), its memory.
#include <fmt/format.h>

#include "bench.h"
#include "bench_ceilings.h"
#include "bench_device.h"
#include "bench_random.h"
#include "memory_argument.h"
#include "models/vae.h"

namespace linnet::app {
namespace {

struct Options : BenchOptions {
  int64_t size = 1024;
  std::string memory = "0";
};

// Decoding and its ceiling in turn.
template <class Ceiling>
Table decoding(const Options& o, const std::function<void()>& decode, double flops, const Ceiling& ceiling) {
  const auto samples = interleave(o.budget, {ceiling.work(0.5), {.run = decode}});
  const size_t before = bench_memory().in_use;
  reset_bench_peak();
  decode();
  const size_t taken = bench_memory().peak - before;
  const Ratio ratio = reached(samples[1], flops, samples[0], ceiling.flops());
  Table table("decode", "Decoding",
              {{"best_ms", "best ms", 1},
               {"median_ms", "median ms", 1},
               {"rounds", "rounds"},
               {"gflops", "GFLOP/s", 1},
               {"ceiling_gflops", "ceiling GFLOP/s", 1},
               {"ratio", "% of ceiling", 1},
               {"ratio_median", "by medians", 1},
               {"activation_mb", "activations MB", 1},
               {"ceiling", "ceiling"}});
  table.add({samples[1].best() * 1e3, samples[1].median() * 1e3, static_cast<double>(samples[1].seconds.size()),
             flops / samples[1].best() * 1e-9, ceiling.flops() / samples[0].best() * 1e-9, 100 * ratio.best,
             100 * ratio.median, static_cast<double>(taken) * 1e-6, ceiling.name()});
  return table;
}

void run(const Options& o) {
  const VaeConfig config;  // Stable Diffusion's and SDXL's shape
  if (o.size <= 0 || o.size % config.reduction() != 0 || o.size > 8192)
    throw UsageError(
        fmt::format("the autoencoder takes pictures whose side is a multiple of {}, at most 8192, not {}",
                    config.reduction(), o.size));
  const size_t limit = bytes_from(o.memory);
  Report report = begin_report("vae", o, {{"size", o.size}, {"memory", o.memory}});
  Vae vae(config);
  fill_module(vae);
  nn::freeze(vae);
  vae.set_product_dtype(o.product_dtype());
  const int64_t side = o.size / config.reduction();
  const Tensor latents = random_tensor({1, config.latent_channels, side, side}, 1.0f);
  const double flops = decode_flops(config, side, side);
  Table facts("vae", "Decoder",
              {{"size", "pixels"}, {"tflop", "TFLOP a picture", 2}, {"whole_mb", "whole: activations MB", 1}});
  facts.add(
      {static_cast<double>(o.size), flops * 1e-12, static_cast<double>(vae.decode_memory(side, side)) * 1e-6});
  report.facts(facts);

  const DType dtype = o.product_dtype();
  const auto decode = [&] { vae.decode(latents, limit); };
  report.measured(bench_device().is_gpu() ? decoding(o, decode, flops, MatmulCeiling(1, 1, 1, dtype))
                                          : decoding(o, decode, flops, ConvCeiling(256, 512, dtype)));
  report.save(o.json);
}

}  // namespace

void add_bench_vae(const Verb& bench) {
  const Verb app = bench.add_subcommand("vae", "Decoding a picture: time, share of oneDNN's peak, memory");
  auto options = std::make_shared<Options>();
  app.add_option("--size", options->size, "Side of the picture in pixels").capture_default_str();
  app.add_option("--memory", options->memory, "Most that activations may take, such as 512M; 0: no limit")
      .capture_default_str()
      .type_name("BYTES");
  add_bench_options(app, *options);
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
