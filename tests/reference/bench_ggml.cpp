// Times ggml's CPU backend on the models that Linnet is timed on: a whole forward pass with random weights, its
// output held against Linnet's. Built where CMake is given an installed ggml; scripts/bench-peers does that,
// and the timing.
//   bench_ggml --model LiT-XL/2 --dtype bf16 --threads 2 --json ggml.json
//   bench_ggml --model tests/data/reference/dit_lit.model.safetensors      a file's weights
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "bench_random.h"
#include "bench_timing.h"
#include "core/parallel.h"
#include "ggml_dit.h"
#include "store/dit_file.h"

namespace linnet::peer {
namespace {

struct Options {
  std::string model = "LiT-XL/2", dtype = "f32", json;
  int64_t batch = 2;
  int threads = 0;
  app::Budget budget;
};

struct Type {
  ggml_type type;
  double tolerance;  ///< relative; in f32 it is that of ggml's GELU, a table of f16
};

const std::map<std::string, Type> types = {
    {"f32", {GGML_TYPE_F32, 2e-3}}, {"f16", {GGML_TYPE_F16, 2e-2}}, {"bf16", {GGML_TYPE_BF16, 5e-2}}};

struct Inputs {
  Tensor x, t, y;
};

Inputs make_inputs(const DiTConfig& config, int64_t batch) {
  Inputs in{app::random_tensor({batch, config.in_channels, config.input_size, config.input_size}, 1.7f),
            Tensor::empty({batch}), Tensor::empty({batch}, DType::i64)};
  for (int64_t i = 0; i < batch; ++i) {
    in.t.mutable_data<float>()[i] = 500.0f + 37.0f * static_cast<float>(i);
    in.y.mutable_data<int64_t>()[i] = (3 + i) % config.num_classes;
  }
  return in;
}

/// A preset with random weights, or a file's model.
std::unique_ptr<DiT> make_model(const std::string& name) {
  if (std::filesystem::exists(name)) return load_dit(std::filesystem::path(name)).model;
  auto model = std::make_unique<DiT>(dit_preset(name));
  app::fill_module(*model);
  return model;
}

/// ‖a − b‖ / ‖b‖
double relative_difference(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "ggml's output is {}, Linnet's {}", to_string(a.shape()), to_string(b.shape()));
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double left = a.data<float>()[i], right = b.data<float>()[i];
    difference += (left - right) * (left - right);
    norm += right * right;
  }
  return std::sqrt(difference / norm);
}

struct Candidate {
  Attention attention;
  std::string name;
};

std::vector<Candidate> candidates(nn::Mixer mixer) {
  if (mixer != nn::Mixer::softmax) return {{Attention::products, std::string(name_of(mixer))}};
  return {{Attention::products, "softmax by products"}, {Attention::flash, "flash attention"}};
}

double seconds(GgmlDiT& peer) {
  const auto begin = std::chrono::steady_clock::now();
  peer.forward();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Tries each way of attention, leaves the fastest one planned, and says the largest difference from
/// `expected`.
std::pair<Candidate, double> plan_fastest(GgmlDiT& peer, nn::Mixer mixer, const Inputs& in,
                                          const Tensor& expected) {
  const std::vector<Candidate> ways = candidates(mixer);
  double difference = 0, least = INFINITY;
  Candidate fastest;
  for (const Candidate& way : ways) {
    peer.plan(way.attention, in.x, in.t, in.y);
    peer.forward();
    difference = std::max(difference, relative_difference(peer.output(), expected));
    if (const double time = seconds(peer); time < least) std::tie(least, fastest) = std::tie(time, way);
  }
  if (fastest.attention != ways.back().attention) peer.plan(fastest.attention, in.x, in.t, in.y);
  return {fastest, difference};
}

void run(const Options& o) {
  if (o.threads > 0) set_threads(o.threads);
  const auto [type, tolerance] = types.at(o.dtype);
  std::unique_ptr<DiT> model = make_model(o.model);
  const DiTConfig config = model->config();
  const Inputs in = make_inputs(config, o.batch);
  const Tensor expected = model->forward(in.x, in.t, in.y);
  GgmlDiT peer(*model, type, threads());
  model.reset();  // two copies of the weights are needed no longer

  const auto [way, difference] = plan_fastest(peer, config.mixer, in, expected);
  check(difference < tolerance, "ggml's output differs from Linnet's by {:.1e}, more than {:.1e}", difference,
        tolerance);
  const app::Samples samples = app::interleave(o.budget, {{.run = [&] { peer.forward(); }}})[0];

  const std::string engine = fmt::format("ggml {} ({}) {}", ggml_version(), ggml_commit(), peer.backends());
  fmt::print(
      "{} {} {}: best {:.1f} ms, median {:.1f} ms of {}; {}, {} threads; differs from Linnet's f32 by {:.1e}\n",
      o.model, o.dtype, way.name, samples.best() * 1e3, samples.median() * 1e3, samples.seconds.size(), engine,
      threads(), difference);
  if (o.json.empty()) return;
  std::ofstream(o.json) << nlohmann::ordered_json{{"engine", engine},
                                                  {"threads", threads()},
                                                  {"model", o.model},
                                                  {"dtype", o.dtype},
                                                  {"attention", way.name},
                                                  {"best_ms", samples.best() * 1e3},
                                                  {"median_ms", samples.median() * 1e3},
                                                  {"difference", difference}}
                               .dump(2)
                        << '\n';
}

}  // namespace
}  // namespace linnet::peer

int main(int argc, char** argv) {
  CLI::App app("Time ggml on a DiT or LiT");
  linnet::peer::Options o;
  app.add_option("--model", o.model, "LiT-XL/2, DiT-S/2, ..., or a model file")->capture_default_str();
  app.add_option("--dtype", o.dtype, "Of the blocks' matrices: f32, f16 or bf16")
      ->check(CLI::IsMember(linnet::peer::types))
      ->capture_default_str();
  app.add_option("--batch", o.batch)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--threads", o.threads, "0: all")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("--seconds", o.budget.seconds, "Start no further round after that time")
      ->capture_default_str();
  app.add_option("--repeat", o.budget.repeat, "Most rounds")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--json", o.json, "File to write the figures to");
  CLI11_PARSE(app, argc, argv);
  try {
    linnet::peer::run(o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_ggml: {}\n", error.what());
    return 1;
  }
}
