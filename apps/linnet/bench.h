// linnet bench: what its sub-verbs share. One file a sub-verb: bench_model.cpp, bench_attention.cpp,
// bench_heads.cpp, bench_load.cpp, bench_ops.cpp, bench_train.cpp, bench_vae.cpp.
#pragma once

#include <string>
#include "arguments.h"

#include "bench_report.h"
#include "bench_timing.h"
#include "models/dit.h"

namespace linnet::app {

struct BenchOptions {
  Budget budget;
  int threads = 0;  ///< 0: all
  std::string dtype = "auto", device = "cpu";
  std::string json;

  /// The products' type, "auto" resolved.
  DType product_dtype() const;
};

/// dtypes: what --dtype may be. Without a GPU's (tf32, f16) the verb works on the CPU, and has no --device.
void add_bench_options(const Verb& app, BenchOptions& options,
                       std::vector<std::string> dtypes = {"auto", "f32", "tf32", "bf16", "f16"});
/// Of verbs that measure a preset: another mixer in place of its own.
void add_mixer_option(const Verb& app, std::string& mixer);

/// Sets the number of threads and begins the report with the machine. `settings` is an object, to which the
/// shared options are added. Says so when the machine is busy with something else.
Report begin_report(const std::string& name, const BenchOptions& options, nlohmann::ordered_json settings);

/// Throws UsageError on a side that no picture has: of far more, oneDNN's counts overflow.
void check_bench_size(int64_t pixels);

/// A preset on the latents of pictures of size × size pixels (8 pixels a latent value), with that mixer in
/// place of its own unless the name is empty. Throws UsageError.
DiTConfig config_for(const std::string& model, int64_t pixels, const std::string& mixer);

/// "88 % (median 86 %)"
std::string percent(const Ratio& ratio);

void add_bench_model(const Verb& bench);
void add_bench_attention(const Verb& bench);
void add_bench_heads(const Verb& bench);
void add_bench_load(const Verb& bench);
void add_bench_ops(const Verb& bench);
void add_bench_train(const Verb& bench);
void add_bench_vae(const Verb& bench);

}  // namespace linnet::app
