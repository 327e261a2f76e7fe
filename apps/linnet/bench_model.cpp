// linnet bench model: one forward pass, its speed beside oneDNN's, its memory, and where its time goes.
#include <fmt/format.h>

#include <cmath>

#include "bench.h"
#include "bench_breakdown.h"
#include "bench_ceilings.h"
#include "bench_device.h"
#include "bench_random.h"
#include "diffusion/recorded.h"
#include "ops/matmul.h"

namespace linnet::app {
namespace {

struct Options : BenchOptions {
  std::string model = "LiT-XL/2", mixer;
  int64_t size = 256, batch = 2;
  bool no_breakdown = false;
};

struct Input {
  Tensor x, t, y;
};

Input make_input(const DiTConfig& config, int64_t batch) {
  Input input{random_tensor({batch, config.in_channels, config.input_size, config.input_size}, 1.0f),
              Tensor::full({batch}, 500.0f), Tensor::empty({batch}, DType::i64)};
  for (int64_t i = 0; i < batch; ++i) input.y.mutable_data<int64_t>()[i] = i % config.num_classes;
  return input;
}

// Weights and inputs are there before; what is left is activations.
size_t activation_bytes(const std::function<void()>& forward) {
  const size_t before = bench_memory().in_use;
  reset_bench_peak();
  forward();
  return bench_memory().peak - before;
}

Table model_facts(const Options& o, const DiTConfig& config, DiT& model, double flops) {
  Table table("model", "Model",
              {{"model", "model"},
               {"mixer", "mixer"},
               {"batch", "batch"},
               {"size", "pixels"},
               {"tokens", "tokens"},
               {"parameters_m", "M parameters", 2},
               {"gmacs", "GMACs a picture", 2},
               {"gemm_gflop", "GEMM GFLOP a pass", 1}});
  table.add({o.model, std::string(name_of(config.mixer)), static_cast<double>(o.batch),
             static_cast<double>(o.size), static_cast<double>(config.tokens()),
             static_cast<double>(nn::count_parameters(model)) * 1e-6,
             static_cast<double>(count_macs(config)) * 1e-9, flops * 1e-9});
  return table;
}

Table eight_bits(const Samples& int8, const Samples& floats, DType dtype, double difference) {
  Table table("int8", fmt::format("8 bits beside {}", name_of(dtype)),
              {{"other_best_ms", fmt::format("{} best ms", name_of(dtype)), 1},
               {"other_median_ms", "median ms", 1},
               {"faster", "8 bits faster by", 2},
               {"faster_median", "by medians", 2},
               {"difference", "relative difference of outputs", 4}});
  table.add({floats.best() * 1e3, floats.median() * 1e3, floats.best() / int8.best(),
             floats.median() / int8.median(), difference});
  return table;
}

// ‖a − b‖ / ‖b‖
double relative_difference(const Tensor& a, const Tensor& b) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double x = static_cast<double>(a.data<float>()[i]), y = static_cast<double>(b.data<float>()[i]);
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(difference / norm);
}

Table speed(const Whole& whole, double flops, size_t memory, const std::string& ceiling) {
  Table table("forward", "Forward pass",
              {{"best_ms", "best ms", 1},
               {"median_ms", "median ms", 1},
               {"rounds", "rounds"},
               {"gflops", "GEMM GFLOP/s", 1},
               {"ceiling_gflops", "ceiling GFLOP/s", 1},
               {"ratio", "% of ceiling", 1},
               {"ratio_median", "by medians", 1},
               {"activation_mb", "activations MB", 1},
               {"ceiling", "ceiling"}});
  const Ratio ratio = reached(whole.samples, flops, whole.matmul, whole.matmul_flops);
  table.add({whole.samples.best() * 1e3, whole.samples.median() * 1e3,
             static_cast<double>(whole.samples.seconds.size()), flops / whole.samples.best() * 1e-9,
             whole.matmul_flops / whole.matmul.best() * 1e-9, 100 * ratio.best, 100 * ratio.median,
             static_cast<double>(memory) * 1e-6, ceiling});
  return table;
}

void run(const Options& o) {
  const DiTConfig config = config_for(o.model, o.size, o.mixer);
  const DType dtype = o.product_dtype();
  Report report = begin_report(
      "model", o, {{"model", o.model}, {"mixer", name_of(config.mixer)}, {"size", o.size}, {"batch", o.batch}});
  const auto make = [&](DType products) {
    auto model = std::make_unique<DiT>(config);
    fill_module(*model);
    model->set_product_dtype(products);
    nn::freeze(*model);
    return model;
  };
  const std::unique_ptr<DiT> made = make(dtype);
  DiT& model = *made;
  const double flops = gemm_flops(config) * static_cast<double>(o.batch);
  report.facts(model_facts(o, config, model, flops));

  const Input input = make_input(config, o.batch);
  const auto forward = [&] { model.forward(input.x, input.t, input.y); };
  // As in sampling: on a GPU a pass is repeated, not put together anew.
  const Denoiser denoiser =
      recorded([&](const Tensor& x, const Tensor& t) { return model.forward(x, t, input.y); });
  const MatmulCeiling matmul(o.batch * config.tokens(), config.hidden_size, config.mlp_size(), dtype);
  const CopyCeiling copy;
  const auto operations = o.no_breakdown ? std::vector<Operation>{} : block_operations(config, o.batch, dtype);
  std::vector<Work> works{matmul.work(0.2), {.run = [&] { denoiser(input.x, input.t); }}, copy.work(0.05)};
  for (const Operation& operation : operations) works.push_back(inference_work(operation, 0.05));
  // A model in 8 bits is held against the same one in the fastest floating-point type.
  std::unique_ptr<DiT> floats;
  if (dtype == DType::i8) {
    floats = make(ops::fastest_product_dtype(bench_device()));
    works.push_back({.run = [&] { floats->forward(input.x, input.t, input.y); }});
  }
  const auto samples = interleave(o.budget, works);

  const Whole whole{samples[1], samples[0], samples[2], matmul.flops(), copy.bytes()};
  report.measured(speed(whole, flops, activation_bytes(forward), matmul.name()));
  if (floats)
    report.measured(eight_bits(samples[1], samples.back(), floats->product_dtype(),
                               relative_difference(model.forward(input.x, input.t, input.y).host(),
                                                   floats->forward(input.x, input.t, input.y).host())));
  if (o.no_breakdown) return report.save(o.json);
  std::vector<Part> parts;
  for (size_t i = 0; i < operations.size(); ++i) {
    const Operation& op = operations[i];
    parts.push_back({op.name, op.shape, op.calls, op.in_products ? op.flops : 0, op.bytes, samples[i + 3]});
  }
  report.facts(part_facts(parts));
  report.measured(breakdown(parts, whole));
  report.note(largest_gaps(parts, whole));
  report.save(o.json);
}

}  // namespace

void add_bench_model(const Verb& bench) {
  const Verb app =
      bench.add_subcommand("model", "One forward pass: time, share of oneDNN's peak, memory, breakdown");
  auto options = std::make_shared<Options>();
  app.add_option("--model", options->model, "LiT-XL/2, DiT-S/2, ...").capture_default_str();
  add_mixer_option(app, options->mixer);
  app.add_option("--size", options->size, "Side of the picture in pixels").capture_default_str();
  app.add_option("--batch", options->batch, "Pictures in one pass").in_range(1, 65536).capture_default_str();
  app.add_flag("--no-breakdown", options->no_breakdown, "Time only the whole");
  add_bench_options(app, *options, {"auto", "f32", "tf32", "bf16", "f16", "int8"});
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
