// linnet bench load: how long a model on disk takes until it can compute, and what it costs in memory. Weights
// are mapped, so that loading reads hardly any; what it would have read, the first forward pass does, which
// converts and packs them. All of it is the CPU's work. Files are in the system's page cache, into which an
// untimed round brings them.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <optional>

#include "bench.h"
#include "core/memory.h"
#include "io/text.h"
#include "model_argument.h"
#include "store/dit_file.h"

namespace linnet::app {
namespace {

using Clock = std::chrono::steady_clock;

struct Options : BenchOptions {
  std::string model, weights = "ema";

  Weights open() const { return find_dit_weights(open_file(model), choice_from_name(weights)); }
};

// A line such as "VmHWM:   123456 kB" of /proc/self/status, in bytes; nothing where there is none.
std::optional<double> process_memory(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return 1024 * std::stod(line.substr(key.size() + 1));
  return std::nullopt;
}

// From here on VmHWM is the peak since now; without the right to that, since the program began.
void reset_resident_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// Seconds of each phase, a sample a round.
struct Phases {
  Samples open, build, load, first, next;
};

struct Memory {
  size_t parameters = 0, tensors = 0, mapped = 0, copied = 0;
  std::optional<double> after_load, after_first, own;
};

struct Round {
  explicit Round(const Options& o) : options(o) {}

  // Runs f and appends its seconds.
  template <class F>
  void time(Samples& samples, F f) {
    const auto begin = Clock::now();
    f();
    samples.seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }

  void run(Phases& phases, Memory& memory) {
    release_cached_memory();
    reset_resident_peak();
    std::optional<Weights> weights;
    LoadedDiT loaded;
    time(phases.open, [&] { weights = options.open(); });
    time(phases.build, [&] { loaded = load_dit(*weights); });
    phases.load.seconds.push_back(phases.open.seconds.back() + phases.build.seconds.back());
    memory = count(loaded);
    memory.after_load = process_memory("VmHWM");

    DiT& model = *loaded.model;
    model.set_product_dtype(options.product_dtype());
    nn::freeze(model);
    const DiTConfig& c = model.config();
    const Tensor x = Tensor::zeros({1, c.in_channels, c.input_size, c.input_size}), t = Tensor::zeros({1});
    const Tensor y = Tensor::from(std::vector<int64_t>{0});
    time(phases.first, [&] { model.forward(x, t, y); });
    memory.after_first = process_memory("VmHWM");
    memory.own = process_memory("RssAnon");
    time(phases.next, [&] { model.forward(x, t, y); });
  }

  static Memory count(const LoadedDiT& loaded) {
    Memory memory;
    for (const auto& [name, parameter] : nn::learned_parameters(*loaded.model)) {
      ++memory.tensors;
      memory.parameters += static_cast<size_t>(parameter->value.numel());
      (parameter->value.read_only() ? memory.mapped : memory.copied) += parameter->value.bytes();
    }
    return memory;
  }

  const Options& options;
};

double megabytes(size_t bytes) { return static_cast<double>(bytes) * 1e-6; }
Cell megabytes(std::optional<double> bytes) { return bytes ? Cell(*bytes * 1e-6) : Cell(); }

Table facts(const Options& o, const Memory& memory) {
  Table table("weights", "Weights",
              {{"model", "model"},
               {"tensors", "tensors"},
               {"parameters_m", "M parameters", 2},
               {"mapped_mb", "mapped MB", 1},
               {"copied_mb", "copied MB", 1}});
  table.add({printable(short_name(o.model)), static_cast<double>(memory.tensors),
             static_cast<double>(memory.parameters) * 1e-6, megabytes(memory.mapped),
             megabytes(memory.copied)});
  return table;
}

Table times(const Phases& phases) {
  Table table("load", "Time", {{"phase", "phase"}, {"best_ms", "best ms", 1}, {"median_ms", "median ms", 1}});
  const auto add = [&](const char* name, const Samples& s) {
    table.add({name, s.best() * 1e3, s.median() * 1e3});
  };
  add("open: map, read and check names and shapes", phases.open);
  add("build: the model around its weights", phases.build);
  add("load: both", phases.load);
  add("first forward, one picture: converts and packs", phases.first);
  add("next forward", phases.next);
  Samples ready;
  for (size_t i = 0; i < phases.load.seconds.size(); ++i)
    ready.seconds.push_back(phases.load.seconds[i] +
                            std::max(0.0, phases.first.seconds[i] - phases.next.seconds[i]));
  add("load and packing: load + first - next", ready);
  return table;
}

Table memory_table(const Memory& memory) {
  Table table("memory", "Memory",
              {{"peak_after_load_mb", "peak resident after load MB", 1},
               {"peak_after_first_mb", "after first forward MB", 1},
               {"own_mb", "of which not the file's MB", 1}});
  table.add({megabytes(memory.after_load), megabytes(memory.after_first), megabytes(memory.own)});
  return table;
}

void run(const Options& o) {
  if (!o.json.empty()) check_keeps_model(o.json, o.model);
  o.open();  // first, so that what is no model is refused before anything is measured
  Report report = begin_report("load", o, {{"model", o.model}, {"weights", o.weights}});
  Memory memory;
  Phases warm_up, phases;
  Round round(o);
  round.run(warm_up, memory);
  report.facts(facts(o, memory));
  const auto begin = Clock::now();
  for (int i = 0; i == 0 || (i < o.budget.repeat &&
                             Clock::now() - begin < std::chrono::duration<double>(o.budget.seconds));
       ++i)
    round.run(phases, memory);
  report.measured(times(phases));
  report.measured(memory_table(memory));
  report.save(o.json);
}

}  // namespace

void add_bench_load(const Verb& bench) {
  const Verb app = bench.add_subcommand("load", "A model's way from the page cache to its first forward pass");
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "Weights of any kind that `linnet info` knows, or builtin")
      .required();
  add_weights_option(app, options->weights);
  add_bench_options(app, *options, {"auto", "f32", "bf16"});
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
