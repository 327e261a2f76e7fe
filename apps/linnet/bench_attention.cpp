// linnet bench attention: one self-attention module of each kind, projections included, over growing pictures.
#include <fmt/format.h>

#include <optional>

#include "bench.h"
#include "bench_ceilings.h"
#include "bench_device.h"
#include "bench_random.h"

namespace linnet::app {
namespace {

using nn::Mixer;

struct Options : BenchOptions {
  std::vector<std::string> mixers{"softmax", "linear", "lit"};
  int64_t width = 384, heads = 0, softmax_heads = 0, batch = 1;
  std::vector<int64_t> sizes{256, 512, 1024, 2048, 4096};
  double limit = 30;
};

// The heads that the published model of this width has.
int64_t preset_heads(const std::string& family, int64_t width) {
  for (const char* size : {"S", "B", "L", "XL"})
    if (const DiTConfig config = dit_preset(fmt::format("{}-{}/2", family, size)); config.hidden_size == width)
      return config.num_heads;
  throw UsageError(fmt::format(
      "no published model is {} wide (384, 768, 1024, 1152 are): give --heads and --softmax-heads", width));
}

void complete(Options& o) {
  if (o.heads == 0) o.heads = preset_heads("LiT", o.width);
  if (o.softmax_heads == 0) o.softmax_heads = preset_heads("DiT", o.width);
  for (const int64_t size : o.sizes) {
    check_bench_size(size);
    if (size <= 0 || size % 16 != 0)
      throw UsageError(fmt::format("a picture of {0}x{0} pixels does not divide into patches of 16", size));
  }
  std::ranges::sort(o.sizes);
}

struct Kind {
  Mixer mixer;
  int64_t heads;
};

std::vector<Kind> kinds_of(const Options& o) {
  std::vector<Kind> kinds;
  for (const std::string& name : o.mixers) {
    const Mixer mixer = nn::mixer_from_name(name);
    kinds.push_back({mixer, mixer == Mixer::softmax ? o.softmax_heads : o.heads});
  }
  return kinds;
}

std::shared_ptr<nn::TokenMixer> make_module(const Options& o, const Kind& kind, int64_t tokens) {
  std::shared_ptr<nn::TokenMixer> module = nn::make_mixer(kind.mixer, o.width, kind.heads, tokens);
  fill_module(*module);
  nn::freeze(*module);
  return module;
}

// What one size gave: nothing for a module that was left out.
struct Row {
  int64_t size = 0, tokens = 0;
  Samples matmul;
  double matmul_flops = 0;
  std::vector<std::optional<Samples>> samples;
  std::vector<size_t> memory;
};

// Softmax's best time; nothing if it was left out or not asked for.
std::optional<double> softmax_seconds(const std::vector<Kind>& kinds, const Row& row) {
  for (size_t i = 0; i < kinds.size(); ++i)
    if (kinds[i].mixer == Mixer::softmax && row.samples[i]) return row.samples[i]->best();
  return {};
}

size_t activation_bytes(const std::function<void()>& forward) {
  const size_t before = bench_memory().in_use;
  reset_bench_peak();
  forward();
  return bench_memory().peak - before;
}

// Judged by a smaller picture; softmax alone grows so fast that it may have to be left out.
bool too_long(const Options& o, std::optional<double> seconds, int64_t smaller, int64_t tokens) {
  if (!seconds) return true;
  const auto macs = [&](int64_t n) {
    return static_cast<double>(nn::mixer_macs(Mixer::softmax, o.width, o.softmax_heads, n));
  };
  return *seconds * macs(tokens) / macs(smaller) > o.limit;
}

Row measure(const Options& o, const std::vector<Kind>& kinds, int64_t size, const Row* previous) {
  const int64_t grid = size / 16, tokens = grid * grid;
  const DType dtype = o.product_dtype();
  const MatmulCeiling matmul(o.batch * tokens, o.width, 4 * o.width, dtype);
  const Tensor x = random_tensor({o.batch, tokens, o.width}, 1.0f, dtype);
  Row row{size, tokens, {}, matmul.flops(), {}, {}};
  std::vector<Work> works{matmul.work(0.1)};
  std::vector<size_t> chosen;
  for (size_t i = 0; i < kinds.size(); ++i) {
    row.samples.emplace_back();
    row.memory.push_back(0);
    if (kinds[i].mixer == Mixer::softmax && previous &&
        too_long(o, softmax_seconds(kinds, *previous), previous->tokens, tokens))
      continue;
    const auto run = [module = make_module(o, kinds[i], tokens), &x, grid] { module->forward(x, grid, grid); };
    works.push_back({.run = run, .least = 0.05});
    chosen.push_back(i);
  }
  const auto samples = interleave(o.budget, works);
  row.matmul = samples[0];
  for (size_t i = 0; i < chosen.size(); ++i) row.samples[chosen[i]] = samples[i + 1];
  for (size_t i = 0; i < chosen.size(); ++i) row.memory[chosen[i]] = activation_bytes(works[i + 1].run);
  return row;
}

// One quick run at a small size, for what is known of the first.
Row probe(Options o, const std::vector<Kind>& kinds) {
  o.budget = {0.0, 1};
  return measure(o, kinds, std::min<int64_t>(256, o.sizes.front()), nullptr);
}

Table facts(const Options& o, const std::vector<Kind>& kinds) {
  Table table("modules", fmt::format("Self-attention of width {}, batch {}", o.width, o.batch),
              {{"size", "pixels"},
               {"tokens", "tokens"},
               {"mixer", "mixer"},
               {"heads", "heads"},
               {"gmacs", "GMACs", 3},
               {"gemm_gflop", "GEMM GFLOP", 3}});
  const auto batch = static_cast<double>(o.batch);
  for (const int64_t size : o.sizes)
    for (const Kind& kind : kinds) {
      const int64_t tokens = size / 16 * (size / 16);
      table.add({static_cast<double>(size), static_cast<double>(tokens), std::string(nn::name_of(kind.mixer)),
                 static_cast<double>(kind.heads),
                 batch * static_cast<double>(nn::mixer_macs(kind.mixer, o.width, kind.heads, tokens)) * 1e-9,
                 batch * nn::mixer_flops(kind.mixer, o.width, kind.heads, tokens) * 1e-9});
    }
  return table;
}

Table figures(const Options& o, const std::vector<Kind>& kinds, const std::vector<Row>& rows) {
  Table table("attention", "Time and memory",
              {{"size", "pixels"},
               {"mixer", "mixer"},
               {"best_ms", "best ms", 2},
               {"median_ms", "median ms", 2},
               {"us_per_token", "µs a token", 3},
               {"activation_mb", "MB", 1},
               {"gflops", "GEMM GFLOP/s", 0},
               {"ceiling_gflops", "ceiling", 0},
               {"ratio", "% of ceiling", 0},
               {"speedup", "softmax is slower by", 2}});
  for (const Row& row : rows)
    for (size_t i = 0; i < kinds.size(); ++i) {
      const auto& [mixer, heads] = kinds[i];
      const Cell size = static_cast<double>(row.size), name = std::string(nn::name_of(mixer));
      const double ceiling = row.matmul_flops / row.matmul.best();
      if (!row.samples[i]) {
        table.add({size, name, {}, {}, {}, {}, {}, ceiling * 1e-9, {}, {}});
        continue;
      }
      const double best = row.samples[i]->best(), tokens = static_cast<double>(o.batch * row.tokens);
      const double flops = static_cast<double>(o.batch) * nn::mixer_flops(mixer, o.width, heads, row.tokens);
      const auto softmax = softmax_seconds(kinds, row);
      const Cell speedup = softmax ? Cell(*softmax / best) : Cell();
      table.add({size, name, best * 1e3, row.samples[i]->median() * 1e3, best / tokens * 1e6,
                 static_cast<double>(row.memory[i]) * 1e-6, flops / best * 1e-9, ceiling * 1e-9,
                 100 * flops / best / ceiling, speedup});
    }
  return table;
}

// The time per token of a linear module should not depend on the picture.
std::string flatness(const Options& o, const std::vector<Row>& rows, size_t module, std::string_view name) {
  double least = 0, most = 0;
  for (const Row& row : rows) {
    const double time = row.samples[module]->best() / static_cast<double>(o.batch * row.tokens);
    least = least == 0 ? time : std::min(least, time);
    most = std::max(most, time);
  }
  return fmt::format("{}: time per token from {} to {} pixels stays within {:.0f} %.", name, rows.front().size,
                     rows.back().size, 100 * (most / least - 1));
}

void run(Options o) {
  complete(o);
  const std::vector<Kind> kinds = kinds_of(o);
  const bool with_softmax =
      std::ranges::any_of(kinds, [](const Kind& kind) { return kind.mixer == Mixer::softmax; });
  Report report = begin_report(
      "attention", o,
      {{"mixers", o.mixers}, {"width", o.width}, {"batch", o.batch}, {"sizes", o.sizes}, {"limit", o.limit}});
  report.facts(facts(o, kinds));
  std::vector<Row> rows;
  std::vector<std::string> left_out;
  const Row first = probe(o, kinds);
  for (const int64_t size : o.sizes) {
    rows.push_back(measure(o, kinds, size, rows.empty() ? &first : &rows.back()));
    if (with_softmax && !softmax_seconds(kinds, rows.back()))
      left_out.push_back(fmt::format(
          "softmax at {} pixels is left out: one run would take more than {} s (--limit).", size, o.limit));
  }
  report.measured(figures(o, kinds, rows));
  for (const std::string& sentence : left_out) report.note(sentence);
  for (size_t i = 0; i < kinds.size() && rows.size() > 1; ++i)
    if (kinds[i].mixer != Mixer::softmax) report.note(flatness(o, rows, i, nn::name_of(kinds[i].mixer)));
  report.save(o.json);
}

}  // namespace

void add_bench_attention(const Verb& bench) {
  const Verb app =
      bench.add_subcommand("attention", "Self-attention modules over picture sizes: time, memory, ratios");
  auto options = std::make_shared<Options>();
  app.add_option("--mixers", options->mixers, "Some of " + nn::known_mixers())
      .delimiter(',')
      .capture_default_str();
  app.add_option("--width", options->width, "Channels").in_range(1, 16384).capture_default_str();
  app.add_option("--heads", options->heads, "Heads of all but softmax; 0: LiT's at this width")
      .in_range(0, 16384)
      .capture_default_str();
  app.add_option("--softmax-heads", options->softmax_heads, "Heads of softmax; 0: DiT's at this width")
      .in_range(0, 16384)
      .capture_default_str();
  app.add_option("--sizes", options->sizes, "Sides of the pictures in pixels")
      .delimiter(',')
      .capture_default_str();
  app.add_option("--batch", options->batch, "Pictures at once").in_range(1, 65536).capture_default_str();
  app.add_option("--limit", options->limit, "Leave softmax out where one run would take more seconds")
      .capture_default_str();
  add_bench_options(app, *options);
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
