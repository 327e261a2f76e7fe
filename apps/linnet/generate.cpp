// linnet generate: pictures from classes and seeds.
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <random>

#include "core/parallel.h"
#include "generate_output.h"
#include "interrupt.h"
#include "io/sheet.h"
#include "io/text.h"
#include "memory_argument.h"
#include "model_argument.h"
#include "pipeline/classes.h"
#include "pipeline/decode.h"
#include "pipeline/picture_text.h"
#include "store/vae_file.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options : OutputOptions {
  std::vector<std::string> classes;
  std::string noise, vae;
  std::string model = "builtin", weights = "ema", dtype = "auto", sampler = "ddim", guided_channels = "3",
              clip = "auto";
  std::optional<int64_t> count;
  int64_t batch = 0;
  int steps = 50, threads = 0;
  double guidance_scale = 3.0;
  std::string seed;
};

uint64_t seed_from(const std::string& text) {
  if (text.empty()) return std::random_device{}();
  uint64_t seed = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (problem != std::errc() || end != text.data() + text.size())
    throw UsageError(
        fmt::format("--seed is a whole number from 0 to 18446744073709551615, not \"{}\"", printable(text)));
  return seed;
}

// What can be said without the model.
PaintRequest request_from(const Options& options) {
  PaintRequest request;
  request.count = options.count.value_or(1);  // unless more classes are given
  request.batch = options.batch;
  // A folder can be gone on with, which a seed that is drawn anew could not.
  request.seed = options.seed.empty() && options.to_folder() ? 0 : seed_from(options.seed);
  request.options.sampler = sampler_from_name(options.sampler);
  request.options.steps = options.steps;
  request.options.guidance_scale = static_cast<float>(options.guidance_scale);
  if (options.guided_channels != "3" && options.guided_channels != "all")
    throw UsageError(fmt::format("--cfg-channels is 3 or all, not \"{}\"", printable(options.guided_channels)));
  if (options.clip != "auto" && options.clip != "on" && options.clip != "off")
    throw UsageError(fmt::format("--clip is auto, on or off, not \"{}\"", printable(options.clip)));
  check_request(request);
  return request;
}

fs::path vae_path(const Options& options) {
  if (!options.vae.empty()) return options.vae;
  const fs::path beside = fs::path(options.model) / "vae";
  return fs::is_directory(beside) ? beside : fs::path();
}

// What decodes the model's samples, if they are latents and pictures are wanted: the one given, or that of the
// model's own folder.
std::unique_ptr<Vae> load_decoder(const Options& options, const DiT& model, DType dtype) {
  if (model.config().in_channels == 3) {
    if (!options.vae.empty()) throw UsageError("this model paints pixels: --vae has nothing to decode");
    return nullptr;
  }
  if (options.output.empty()) return nullptr;
  const fs::path path = vae_path(options);
  if (path.empty())
    throw UsageError(fmt::format(
        "this model makes latents of {} channels: name the autoencoder that decodes them with --vae, or "
        "write them with --latents-out FILE instead of -o",
        model.config().in_channels));
  std::unique_ptr<Vae> vae = load_vae(path);
  check_decodes(*vae, model.config().in_channels);
  vae->set_product_dtype(dtype == DType::f32 ? DType::f32 : ops::fastest_product_dtype());
  return vae;
}

// What follows from the model: classes, how many, clipping, channels.
void complete(PaintRequest& request, const Options& options, const LoadedModel& loaded, const Vae* vae) {
  const DiTConfig& config = loaded.model->config();
  const int64_t side = config.input_size * (vae ? vae->config().reduction() : 1);
  const bool pixels = config.in_channels == 3;
  for (const std::string& text : options.classes)
    if (text != "balanced")  // every class in turn
      for (const int64_t index : find_classes(text, loaded.class_names, config.num_classes))
        request.classes.push_back(index);
  if (!options.count) request.count = std::max<int64_t>(1, static_cast<int64_t>(request.classes.size()));
  request.options.clip_x0 = options.clip == "auto" ? pixels : options.clip == "on";
  request.options.guided_channels = options.guided_channels == "all" ? static_cast<int>(config.in_channels) : 3;
  if (!options.noise.empty())
    request.noise = SafetensorsFile::open(options.noise).tensor("noise").to(DType::f32);
  check_request(request, config);
  if (options.grid) layout_sheet(request.count, side, side, options.columns, 4, options.scale);
}

// Called after every step: the bar, and the good moment to stop.
class StepWatch {
 public:
  StepWatch(Progress& progress, const PaintRequest& request) : progress_(progress), request_(request) {}

  // Pictures first..end come next; of those before, some were there or are others' to paint.
  void begin_batch(int64_t first, int64_t end) {
    first_ = first;
    end_ = end;
    if (!started_) begun_at_ = first;
    started_ = true;
  }
  void operator()(const SamplingStep& step) {
    const int64_t here = end_ - first_, before = first_ - begun_at_, all = request_.count - begun_at_;
    // Work is counted in picture-steps, as the last batch may be smaller.
    const double done = static_cast<double>(before * step.count + here * (step.index + 1));
    const double total = static_cast<double>(all * step.count);
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    const double per_step = elapsed * static_cast<double>(here) / done;
    std::string pictures;
    if (request_.count > 1) {
      const std::string last = here > 1 ? fmt::format("-{}", end_) : std::string();
      pictures =
          fmt::format("{} {}{} of {}, ", here > 1 ? "pictures" : "picture", first_ + 1, last, request_.count);
    }
    progress_.show(done, total,
                   fmt::format("{}step {} of {}, {}/step, {} left", pictures, step.index + 1, step.count,
                               duration(per_step), duration(elapsed * (total - done) / done)));
    end_if_interrupted();
  }

 private:
  Progress& progress_;
  const PaintRequest& request_;
  int64_t first_ = 0, end_ = 0, begun_at_ = 0;
  bool started_ = false;
  Clock::time_point start_ = Clock::now();
};

// "16 pictures in 3.1 s, 194 ms each", and of a folder also how many were there.
std::string describe(const PictureWriter& writer, double seconds) {
  const int64_t n = writer.painted();
  std::string text = fmt::format("{} picture{} in {}", n, n == 1 ? "" : "s", duration(seconds));
  if (n > 0) text += fmt::format(", {} each", duration(seconds / static_cast<double>(n)));
  if (writer.kept() > 0) text += fmt::format(", {} were there", writer.kept());
  return text;
}

void run(const Options& options) {
  PaintRequest request = request_from(options);
  prepare_outputs(options);
  use_threads(options.threads);
  LoadedModel loaded = load_model(open_weights(options.model, options.weights));
  DiT& model = *loaded.model;
  const DType dtype = model.product_dtype_from_name(options.dtype);
  loaded.class_names = names_of_classes(std::move(loaded.class_names), model.config().num_classes);
  const std::unique_ptr<Vae> vae = load_decoder(options, model, dtype);
  complete(request, options, loaded, vae.get());
  model.set_product_dtype(dtype);
  nn::freeze(model);
  PictureOrigin origin{"linnet " LINNET_VERSION, short_name(options.model),
                       fingerprint(model),       "",
                       loaded.class_names,       threads()};
  origin.raw_weights = options.weights == "raw";
  if (vae) {
    origin.vae = short_name(vae_path(options).string());
    origin.vae_fingerprint = fingerprint(nn::all_parameters(*vae));
    origin.memory = options.memory;
  }
  if (request.noise.defined()) origin.noise = fingerprint(request.noise);

  fmt::print("{}: {}\n{}, {} steps, cfg {}, seed {}; {}\n", origin.model, describe_model(model.config()),
             options.sampler, options.steps, options.guidance_scale, request.seed, describe_products(dtype));
  std::fflush(stdout);
  catch_interrupts();
  const auto start = Clock::now();
  PictureWriter writer(options, request, origin, model, vae.get());
  {
    Progress progress;
    StepWatch watch(progress, request);
    request.options.on_step = [&watch](const SamplingStep& step) { watch(step); };
    const int64_t batch = request.batch > 0 ? request.batch : default_batch(model.config(), request.count);
    request.wanted = [&](int64_t first, int64_t end) {
      end_if_interrupted();
      const bool wanted = writer.wants(first, end, batch);
      if (wanted) watch.begin_batch(first, end);
      return wanted;
    };
    paint(model, request, [&](int64_t first, const Tensor& samples) { writer.take(first, samples); });
    writer.finish();
  }
  fmt::print("{}: {}\n", describe(writer, std::chrono::duration<double>(Clock::now() - start).count()),
             writer.what_was_written());
}

}  // namespace

void add_generate(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("generate", "Paint pictures from classes and seeds");
  auto o = std::make_shared<Options>();
  verb->add_option(
          "-c,--class,--classes", o->classes,
          "What to paint: names or indices, with commas or repeated (default: balanced, every class in turn)")
      ->allow_extra_args(false)
      ->type_name("NAME");
  verb->add_option("-n,--count", o->count,
                   "Pictures in all, cycling through the classes (default: one of each class given, or 1)");
  verb->add_option("-o,--output", o->output,
                   "Picture to write (.png, .jpg, .webp); several are numbered: out-0001.png, ... Or a folder, "
                   "samples/: what "
                   "is there is not painted again, and processes that mpirun starts share the work")
      ->type_name("FILE");
  verb->add_option("--format", o->format, "What the pictures in a folder are: png, jpg or webp")
      ->capture_default_str()
      ->type_name("NAME");
  verb->add_option("--quality", o->quality,
                   "Of JPEG, 1 to 100 (default: 95), or of a lossy WebP (default: lossless)");
  verb->add_flag("-g,--grid", o->grid, "Write one sheet of all pictures instead");
  verb->add_option("--columns", o->columns, "Pictures in a row of the sheet")->capture_default_str();
  verb->add_option("--scale", o->scale,
                   "Enlarge pictures on the sheet so many times; 0: small ones to 96 pixels")
      ->capture_default_str();
  verb->add_option("-m,--model", o->model, "Model file, or builtin")->capture_default_str()->type_name("FILE");
  add_weights_option(*verb, o->weights);
  verb->add_option("-s,--seed", o->seed,
                   "Picture i is drawn from seed + i, as PyTorch draws from it (default: a random one, which "
                   "is shown; of "
                   "a folder 0)")
      ->type_name("INT");
  verb->add_option("--steps", o->steps, "Sampling steps, 1 to 1000")->capture_default_str();
  verb->add_option("--sampler", o->sampler, "ddpm, ddim or dpm++")->capture_default_str()->type_name("NAME");
  verb->add_option("--cfg", o->guidance_scale, "Guidance scale; 1: none")->capture_default_str();
  verb->add_option("--cfg-channels", o->guided_channels,
                   "Channels that are guided: 3, as the released DiT, or all")
      ->capture_default_str()
      ->type_name("NAME");
  verb->add_option("--clip", o->clip,
                   "Keep predicted pictures in -1..1: on, off, or auto (on for pixels, not latents)")
      ->capture_default_str()
      ->type_name("NAME");
  add_dtype_option(*verb, o->dtype);
  verb->add_option("--batch", o->batch, "Pictures at once; 0: chosen by the model's size")
      ->capture_default_str();
  add_threads_option(*verb, o->threads);
  verb->add_option(
          "--vae", o->vae,
          "Autoencoder that decodes a latent model's samples: a diffusers folder or a file (default: the one "
          "in the model's folder)")
      ->type_name("PATH");
  verb->add_option(
          "--memory", o->memory,
          "Most that decoding may take beside its weights, such as 512M; 0: no limit. What does not fit is "
          "decoded in bands of rows: the same picture, but for rounding, in half as much time again")
      ->capture_default_str()
      ->type_name("BYTES");
  verb->add_option("--noise", o->noise, "Start from the tensor \"noise\" (n, c, h, w) of a safetensors file")
      ->type_name("FILE");
  verb->add_option("--latents-out", o->latents,
                   "Also write the samples themselves, as tensor \"latents\" of a safetensors file")
      ->type_name("FILE");
  verb->add_option(
          "--npz", o->npz,
          "When a folder's pictures are all there, also write them to one file, as ADM's evaluation takes them")
      ->type_name("FILE");
  verb->footer("linnet generate -c red-star,blue-ring -n 16 --grid --seed 7 -o sheet.png");
  verb->callback([o] { run(*o); });
}

}  // namespace linnet::app
