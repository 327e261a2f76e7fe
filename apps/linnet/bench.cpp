// linnet bench: the speed and memory of models, attention and operations, each beside the ceiling of this
// machine.
#include "bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "bench_device.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "core/printable.h"
#include "io/file.h"
#include "io/image.h"
#include "ops/matmul.h"
#include "verbs.h"

namespace linnet::app {
namespace {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name") && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  return "unknown";
}

// Threads that run or want to run, over the last minute.
double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

}  // namespace

DType BenchOptions::product_dtype() const {
  return ops::product_dtype_from_name(dtype, device_from_name(device));
}

void add_bench_options(const Verb& app, BenchOptions& options, std::vector<std::string> dtypes) {
  std::vector<std::string> of_gpu;
  std::ranges::copy_if(dtypes, std::back_inserter(of_gpu),
                       [](const std::string& dtype) { return dtype == "tf32" || dtype == "f16"; });
  const bool on_gpu = !of_gpu.empty();
  app.add_option("--seconds", options.budget.seconds, "Time for one measurement; each is made at least once")
      .in_range(0.001, 86400.0)
      .capture_default_str();
  app.add_option("--repeat", options.budget.repeat, "Most rounds of one measurement")
      .in_range(1, 1000000)
      .capture_default_str();
  app.add_option("--threads", options.threads, "Threads; 0: all").in_range(0, 4096).capture_default_str();
  app.add_option("--dtype", options.dtype,
                 fmt::format("Type of the products: {} (auto: the fastest here{})", fmt::join(dtypes, ", "),
                             on_gpu ? fmt::format("; {} on a GPU", fmt::join(of_gpu, " and ")) : ""))
      .one_of(dtypes)
      .capture_default_str();
  if (on_gpu)
    app.add_option("--device", options.device, "Where to work: cpu, cuda, cuda:1, ...").capture_default_str();
  app.add_option("--json", options.json, "Also write everything to this file");
}

void add_mixer_option(const Verb& app, std::string& mixer) {
  app.add_option("--mixer", mixer, "Token mixer in place of the model's own: " + nn::known_mixers())
      .type_name("NAME");
}

Report begin_report(const std::string& name, const BenchOptions& options, nlohmann::ordered_json settings) {
  if (!options.json.empty()) check_writable(options.json);
  if (options.threads > 0) set_threads(options.threads);
  const Device device = device_from_name(options.device);
  set_bench_device(device);
  const std::string chip = device.is_gpu() ? gpu().info.name : processor();
  const std::string engine = ops::matmul_engine_name(device);  // which names a GPU
  const std::string products = ops::name_of_products(options.product_dtype(), device);
  settings["dtype"] = products;
  settings["seconds"] = options.budget.seconds;
  settings["repeat"] = options.budget.repeat;
  const double load = load_average();
  const nlohmann::ordered_json machine = {
      {"processor", chip}, {"engine", engine}, {"threads", threads()}, {"load_before", load}};
  fmt::print("linnet bench {}: {}, {}, {} products\n", name, device.is_gpu() ? engine : chip + ", " + engine,
             counted(threads(), "thread"), products);
  Report report(name, machine, std::move(settings));
  if (load > 0.5 && !device.is_gpu())
    report.note(fmt::format(
        "This machine is busy (load {:.1f}): trust the ratios more than the times, and neither much.", load));
  return report;
}

void check_bench_size(int64_t pixels) {
  if (pixels > max_image_side)
    throw UsageError(fmt::format("pictures of {0}x{0} pixels are too large to be measured: {1} a side at most",
                                 pixels, max_image_side));
}

DiTConfig config_for(const std::string& model, int64_t pixels, const std::string& mixer) {
  DiTConfig config = dit_preset(model);
  if (!mixer.empty()) config.mixer = nn::mixer_from_name(mixer);
  const int64_t step = 8 * config.patch_size;
  check_bench_size(pixels);
  if (pixels <= 0 || pixels % step != 0)
    throw UsageError(
        fmt::format("a picture of {0}x{0} pixels does not divide into the patches of {1}; the size must be "
                    "a multiple of {2}",
                    pixels, model, step));
  config.input_size = pixels / 8;
  config.validate();
  return config;
}

std::string percent(const Ratio& ratio) {
  return fmt::format("{:.0f} % (median {:.0f} %)", 100 * ratio.best, 100 * ratio.median);
}

void add_bench(const Verb& app) {
  const Verb bench =
      app.add_subcommand("bench", "Measure speed and memory beside what this machine can do at most");
  bench.require_subcommand(1, 1);
  bench.footer(
      "A figure is only as good as the ceiling beside it: the product that oneDNN (on a GPU cuBLASLt) "
      "computes\n"
      "fastest, and a copy of memory, are measured in turn with the work. Ratios are of the best times, "
      "medians\n"
      "in brackets.");
  add_bench_model(bench);
  add_bench_attention(bench);
  add_bench_heads(bench);
  add_bench_load(bench);
  add_bench_ops(bench);
  add_bench_train(bench);
  add_bench_vae(bench);
}

}  // namespace linnet::app
