// linnet bench heads: LiT's "free lunch": fewer heads mean more computation, and cost hardly any time, until
// the sums outgrow the projections (arXiv 2501.12976, section 4).
#include <fmt/format.h>

#include <set>

#include "bench.h"
#include "bench_ceilings.h"
#include "bench_plot.h"
#include "bench_random.h"
#include "io/file.h"

namespace linnet::app {
namespace {

using nn::Mixer;

struct Options : BenchOptions {
  std::vector<std::string> models{"S", "B", "L", "XL"};
  std::vector<int64_t> heads;
  int64_t size = 256, batch = 8;
  std::string mixer = "lit", plot;
};

// The model's mixers one after another. So few layers take turns that memory stays small, and so many that no
// cache holds their weights.
class Stack {
 public:
  Stack(const DiTConfig& config, int64_t heads) : depth_(config.depth), grid_(config.grid()) {
    constexpr int64_t layers = 4;
    for (int64_t i = 0; i < layers; ++i) {
      mixers_.push_back(nn::make_mixer(config.mixer, config.hidden_size, heads, config.tokens()));
      fill_module(*mixers_.back());
      nn::freeze(*mixers_.back());
    }
  }

  void forward(const Tensor& x) const {
    for (int64_t i = 0; i < depth_; ++i)
      mixers_[static_cast<size_t>(i) % mixers_.size()]->forward(x, grid_, grid_);
  }

 private:
  int64_t depth_, grid_;
  std::vector<std::unique_ptr<nn::TokenMixer>> mixers_;
};

// The published heads of both families, and the ends: from one head to two channels each.
std::vector<int64_t> heads_to_try(const Options& o, const std::string& model, const DiTConfig& config) {
  if (!o.heads.empty()) return o.heads;
  const int64_t width = config.hidden_size;
  const std::set<int64_t> chosen{
      1, 2, config.num_heads, dit_preset(fmt::format("DiT-{}/2", model)).num_heads, width / 4, width / 2};
  return {chosen.begin(), chosen.end()};
}

DiTConfig config_of(const Options& o, const std::string& model) {
  return config_for(fmt::format("LiT-{}/2", model), o.size, o.mixer);
}

Table facts(const Options& o) {
  Table table("stacks", fmt::format("Mixers of all layers, {} pixels", o.size),
              {{"model", "model"},
               {"width", "width"},
               {"layers", "layers"},
               {"heads", "heads"},
               {"gmacs", "GMACs a picture", 2},
               {"gemm_gflop", "GEMM GFLOP a batch", 1}});
  for (const std::string& model : o.models) {
    const DiTConfig config = config_of(o, model);
    const auto layers = static_cast<double>(config.depth);
    for (const int64_t heads : heads_to_try(o, model, config)) {
      if (heads <= 0 || config.hidden_size % heads != 0)
        throw UsageError(
            fmt::format("{} heads cannot share {}'s width of {} evenly", heads, model, config.hidden_size));
      const auto macs = nn::mixer_macs(config.mixer, config.hidden_size, heads, config.tokens());
      table.add({model, static_cast<double>(config.hidden_size), layers, static_cast<double>(heads),
                 layers * static_cast<double>(macs) * 1e-9,
                 layers * static_cast<double>(o.batch) *
                     nn::mixer_flops(config.mixer, config.hidden_size, heads, config.tokens()) * 1e-9});
    }
  }
  return table;
}

// Both panels of the plot; rings are the heads that LiT was published with.
std::vector<Panel> empty_panels(const Options& o) {
  return {{fmt::format("Computation of the {} mixers", o.mixer), "heads", "GMACs a picture", {}},
          {fmt::format("Latency, batch {}, {} pixels", o.batch, o.size), "heads", "ms", {}}};
}

void add_curves(const Options& o, const std::string& model, const std::vector<int64_t>& heads,
                const std::vector<double>& milliseconds, std::vector<Panel>& panels) {
  const DiTConfig config = config_of(o, model);
  Curve macs{model, {}, {}}, latency{model, {}, {}};
  for (size_t i = 0; i < heads.size(); ++i) {
    const auto count = static_cast<double>(heads[i]);
    macs.points.emplace_back(count, static_cast<double>(config.depth) * 1e-9 *
                                        static_cast<double>(nn::mixer_macs(config.mixer, config.hidden_size,
                                                                           heads[i], config.tokens())));
    latency.points.emplace_back(count, milliseconds[i]);
    if (heads[i] == config.num_heads) {
      macs.marked.push_back(i);
      latency.marked.push_back(i);
    }
  }
  panels[0].curves.push_back(std::move(macs));
  panels[1].curves.push_back(std::move(latency));
}

// All head counts of a model take turns, so that they can be compared with one another. Returns the best times.
std::vector<double> measure(const Options& o, const std::string& model, Table& table) {
  const DiTConfig config = config_of(o, model);
  const DType dtype = o.product_dtype();
  const auto all_heads = heads_to_try(o, model, config);
  const Tensor x = random_tensor({o.batch, config.tokens(), config.hidden_size}, 1.0f, dtype);
  const MatmulCeiling matmul(o.batch * config.tokens(), config.hidden_size, config.mlp_size(), dtype);
  std::vector<Work> works{matmul.work(0.1)};
  for (const int64_t heads : all_heads)
    works.push_back(
        {.run = [stack = std::make_shared<Stack>(config, heads), &x] { stack->forward(x); }, .least = 0.05});
  const auto samples = interleave(o.budget, works);
  double fastest = samples[1].best();
  for (size_t i = 1; i < samples.size(); ++i) fastest = std::min(fastest, samples[i].best());
  std::vector<double> milliseconds;
  for (size_t i = 0; i < all_heads.size(); ++i) {
    const Samples& s = samples[i + 1];
    milliseconds.push_back(s.best() * 1e3);
    const double flops = static_cast<double>(config.depth * o.batch) *
                         nn::mixer_flops(config.mixer, config.hidden_size, all_heads[i], config.tokens());
    table.add({model, static_cast<double>(all_heads[i]), s.best() * 1e3, s.median() * 1e3, s.best() / fastest,
               100 * reached(s, flops, samples[0], matmul.flops()).best,
               matmul.flops() / samples[0].best() * 1e-9});
  }
  return milliseconds;
}

void run(const Options& o) {
  if (!o.plot.empty()) check_writable(o.plot);
  if (!o.plot.empty() && !o.json.empty() && place_of_file(o.plot) == place_of_file(o.json))
    throw UsageError("--json and --plot would write one file");
  const Table stacks = facts(o);  // first, so that wrong heads are refused before anything is measured
  Report report = begin_report(
      "heads", o, {{"models", o.models}, {"mixer", o.mixer}, {"size", o.size}, {"batch", o.batch}});
  report.facts(stacks);
  Table table("heads", fmt::format("Latency of the mixers, batch {}", o.batch),
              {{"model", "model"},
               {"heads", "heads"},
               {"best_ms", "best ms", 1},
               {"median_ms", "median ms", 1},
               {"relative", "to the fastest", 2},
               {"ratio", "% of ceiling", 0},
               {"ceiling_gflops", "ceiling GFLOP/s", 0}});
  std::vector<Panel> panels = empty_panels(o);
  for (const std::string& model : o.models)
    add_curves(o, model, heads_to_try(o, model, config_of(o, model)), measure(o, model, table), panels);
  report.measured(table);
  report.save(o.json);
  if (!o.plot.empty()) write_text_file(o.plot, svg_plot(panels));
}

}  // namespace

void add_bench_heads(const Verb& bench) {
  const Verb app =
      bench.add_subcommand("heads", "The free-lunch study: computation and latency over the number of heads");
  auto options = std::make_shared<Options>();
  app.add_option("--models", options->models, "Sizes: S, B, L, XL").delimiter(',').capture_default_str();
  app.add_option("--heads", options->heads, "Numbers of heads; by default from 1 to half the width")
      .delimiter(',');
  app.add_option("--mixer", options->mixer, nn::known_mixers()).capture_default_str();
  app.add_option("--size", options->size, "Side of the picture in pixels").capture_default_str();
  app.add_option("--batch", options->batch, "Pictures at once").in_range(1, 65536).capture_default_str();
  app.add_option("--plot", options->plot, "Also draw computation and latency over heads, as this SVG file")
      .type_name("FILE");
  add_bench_options(app, *options);
  app.callback([options] { run(*options); });
}

}  // namespace linnet::app
