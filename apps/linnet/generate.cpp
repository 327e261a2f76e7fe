// linnet generate: pictures from classes and seeds.
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <random>

#include "core/parallel.h"
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

struct Options {
  std::vector<std::string> classes;
  std::string output, latents_output, noise, vae, memory = "4G";
  std::string model = "builtin", weights = "ema", dtype = "auto", sampler = "ddim", guided_channels = "3",
              clip = "auto";
  std::optional<int64_t> count;
  int64_t batch = 0, columns = 8, scale = 0;
  int steps = 50, threads = 0;
  double guidance_scale = 3.0;
  std::string seed;
  bool grid = false;
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
  request.seed = seed_from(options.seed);
  request.options.sampler = sampler_from_name(options.sampler);
  request.options.steps = options.steps;
  request.options.guidance_scale = static_cast<float>(options.guidance_scale);
  if (options.guided_channels != "3" && options.guided_channels != "all")
    throw UsageError(fmt::format("--cfg-channels is 3 or all, not \"{}\"", printable(options.guided_channels)));
  if (options.clip != "auto" && options.clip != "on" && options.clip != "off")
    throw UsageError(fmt::format("--clip is auto, on or off, not \"{}\"", printable(options.clip)));
  if (options.columns < 1 || options.scale < 0)
    throw UsageError("--columns is at least 1, and --scale at least 0");
  bytes_from(options.memory);
  check_request(request);
  return request;
}

void check_outputs(const Options& options) {
  if (options.output.empty() && options.latents_output.empty())
    throw UsageError("say where the picture goes: -o out.png");
  if (!options.output.empty()) {
    if (fs::path(options.output).extension() != ".png")
      throw UsageError(
          fmt::format("pictures are written as PNG: \"{}\" must end in .png", printable(options.output)));
    check_writable(options.output);
  }
  if (!options.latents_output.empty()) check_writable(options.latents_output);
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

// "out.png" → "out-0007.png", with as many digits as the count needs, at least four.
fs::path numbered(const fs::path& path, int64_t number, int64_t count) {
  const auto digits = std::max<size_t>(4, std::to_string(count).size());
  return path.parent_path() / fmt::format("{}-{:0{}}.png", path.stem().string(), number, digits);
}

// Takes finished samples and writes what was asked for.
class Writer {
 public:
  Writer(const Options& options, const PaintRequest& request, const PictureOrigin& origin, const DiT& model,
         const Vae* vae)
      : options_(options), request_(request), origin_(origin), model_(model), vae_(vae) {
    if (options.latents_output.empty()) return;
    const DiTConfig& c = model.config();
    latents_ = Tensor::empty({request.count, c.in_channels, c.input_size, c.input_size});
  }

  void take(int64_t first, const Tensor& samples) {
    const int64_t n = samples.size(0), each = samples.numel() / n;
    if (latents_.defined())
      std::copy_n(samples.data<float>(), samples.numel(), latents_.mutable_data<float>() + first * each);
    if (options_.output.empty()) return;
    for (int64_t i = 0; i < n; ++i) {
      const Tensor sample = samples.rows(i, i + 1);
      const Tensor picture = vae_ ? decode_samples(*vae_, sample, bytes_from(options_.memory)) : sample;
      const Image image = to_image(picture.reshape({3, picture.size(2), picture.size(3)}));
      if (options_.grid)
        sheet_.push_back(image);
      else
        write_one(first + i, image);
    }
  }

  void finish() {
    if (options_.grid && !options_.output.empty())
      write_png(options_.output,
                contact_sheet(sheet_, static_cast<int>(options_.columns), 4, static_cast<int>(options_.scale)),
                sheet_text(origin_, request_, model_));
    if (latents_.defined())
      write_safetensors(options_.latents_output, {{"latents", latents_}},
                        sheet_text(origin_, request_, model_));
  }

  /// "out.png", or "out-0001.png to out-0016.png"
  std::string what_was_written() const {
    std::string files;
    if (!options_.output.empty()) {
      files = path_of(0).string();
      if (!options_.grid && request_.count > 1)
        files += " to " + path_of(request_.count - 1).filename().string();
    }
    if (!options_.latents_output.empty()) files += (files.empty() ? "" : ", ") + options_.latents_output;
    return printable(files, 4096);
  }

 private:
  fs::path path_of(int64_t picture) const {
    const bool single = options_.grid || request_.count == 1;
    return single ? fs::path(options_.output) : numbered(options_.output, picture + 1, request_.count);
  }

  void write_one(int64_t picture, const Image& image) {
    const fs::path path = path_of(picture);
    const PictureText text = picture_text(origin_, request_, model_, picture);
    write_png(path, image, text);
    if (on_terminal() || request_.count == 1) return;
    fmt::print("{}  {}  seed {}\n", printable(path.string(), 4096), printable(text.at("class")),
               text.at("seed"));
    std::fflush(stdout);
  }

  const Options& options_;
  const PaintRequest& request_;
  const PictureOrigin& origin_;
  const DiT& model_;
  const Vae* vae_;  // none: the samples are pictures
  Tensor latents_;
  std::vector<Image> sheet_;
};

// Called after every step: the bar, and the good moment to stop.
class StepWatch {
 public:
  StepWatch(Progress& progress, const PaintRequest& request, int64_t batch)
      : progress_(progress), request_(request), batch_(batch) {}

  void next_batch() { first_ += batch_; }
  void operator()(const SamplingStep& step) {
    const int64_t here = std::min(batch_, request_.count - first_);
    // Work is counted in picture-steps, as the last batch may be smaller.
    const double done = static_cast<double>(first_ * step.count + here * (step.index + 1));
    const double total = static_cast<double>(request_.count * step.count);
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    const double per_step = elapsed * static_cast<double>(here) / done;
    std::string pictures;
    if (request_.count > 1) {
      const std::string last = here > 1 ? fmt::format("-{}", first_ + here) : std::string();
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
  int64_t batch_, first_ = 0;
  Clock::time_point start_ = Clock::now();
};

void run(const Options& options) {
  PaintRequest request = request_from(options);
  check_outputs(options);
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
  std::string files;
  {
    Progress progress;
    Writer writer(options, request, origin, model, vae.get());
    StepWatch watch(progress, request,
                    request.batch > 0 ? request.batch : default_batch(model.config(), request.count));
    request.options.on_step = [&watch](const SamplingStep& step) { watch(step); };
    paint(model, request, [&](int64_t first, const Tensor& samples) {
      writer.take(first, samples);
      watch.next_batch();
    });
    writer.finish();
    files = writer.what_was_written();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  fmt::print("{} picture{} in {}, {} each: {}\n", request.count, request.count == 1 ? "" : "s",
             duration(seconds), duration(seconds / static_cast<double>(request.count)), files);
}

}  // namespace

void add_generate(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("generate", "Paint pictures from classes and seeds");
  auto o = std::make_shared<Options>();
  verb->add_option("-c,--class", o->classes,
                   "What to paint: names or indices, with commas or repeated (default: every class in turn)")
      ->allow_extra_args(false)
      ->type_name("NAME");
  verb->add_option("-n,--count", o->count,
                   "Pictures in all, cycling through the classes (default: one of each class given, or 1)");
  verb->add_option("-o,--output", o->output,
                   "PNG file to write; several pictures are numbered: out-0001.png, out-0002.png, ...")
      ->type_name("FILE");
  verb->add_flag("-g,--grid", o->grid, "Write one sheet of all pictures instead");
  verb->add_option("--columns", o->columns, "Pictures in a row of the sheet")->capture_default_str();
  verb->add_option("--scale", o->scale,
                   "Enlarge pictures on the sheet so many times; 0: small ones to 96 pixels")
      ->capture_default_str();
  verb->add_option("-m,--model", o->model, "Model file, or builtin")->capture_default_str()->type_name("FILE");
  add_weights_option(*verb, o->weights);
  verb->add_option(
          "-s,--seed", o->seed,
          "Picture i is drawn from seed + i, as PyTorch draws from it (default: a random one, which is shown)")
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
  verb->add_option("--latents-out", o->latents_output,
                   "Also write the samples themselves, as tensor \"latents\" of a safetensors file")
      ->type_name("FILE");
  verb->footer("linnet generate -c red-star,blue-ring -n 16 --grid --seed 7 -o sheet.png");
  verb->callback([o] { run(*o); });
}

}  // namespace linnet::app
