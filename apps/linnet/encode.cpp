// linnet encode: pictures to cached latents, which a latent model is trained on.
#include "pipeline/encode.h"

#include <fmt/format.h>

#include <chrono>

#include "interrupt.h"
#include "io/text.h"
#include "model_argument.h"
#include "ops/matmul.h"
#include "store/vae_file.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string pictures, vae, output, dtype = "auto", stored = "f16";
  int64_t size = 256, batch = 8, shard = 1024;
  bool flip = false;
  int threads = 0;
};

DType stored_type(const std::string& name) {
  if (name == "f16") return DType::f16;
  if (name == "f32") return DType::f32;
  throw UsageError(fmt::format("latents are stored in f16 or f32, not \"{}\"", printable(name)));
}

// "312 of 20000, 1.4 pictures/s, 3 h 54 min left"
std::string describe(int64_t done, int64_t count, double seconds) {
  const double rate = static_cast<double>(done) / std::max(seconds, 1e-9);
  std::string text = count > 0 ? fmt::format("{} of {}", done, count) : fmt::format("{} pictures", done);
  text += fmt::format(", {:.3g} pictures/s", rate);
  if (count > 0 && done > 0)
    text += fmt::format(", {} left", duration(static_cast<double>(count - done) / rate));
  return text;
}

void list_broken(const std::vector<std::string>& broken) {
  constexpr size_t shown = 10;
  for (size_t i = 0; i < std::min(shown, broken.size()); ++i)
    fmt::print("left out: {}\n", printable(broken[i], 4000));
  if (broken.size() > shown) fmt::print("left out: {} more\n", broken.size() - shown);
}

void run(const Options& options) {
  EncodeOptions encode{options.size, options.flip, stored_type(options.stored), options.batch, {}};
  if (options.shard < 1) throw UsageError(fmt::format("{} pictures in a shard are impossible", options.shard));
  const DType dtype = ops::product_dtype_from_name(options.dtype);
  if (dtype == DType::i8) throw UsageError("an autoencoder works in f32 or bf16, not in 8 bits");
  use_threads(options.threads);
  const std::unique_ptr<Vae> vae = load_vae(options.vae);
  vae->set_product_dtype(dtype);
  const PictureSet pictures = PictureSet::open(options.pictures, options.shard);
  fmt::print("{}, {} shard{}; {}\n",
             pictures.count() > 0
                 ? fmt::format("{} pictures in {} classes", pictures.count(), pictures.class_names().size())
                 : "tar files",
             pictures.parts(), pictures.parts() == 1 ? "" : "s", describe_products(dtype));
  std::fflush(stdout);
  catch_interrupts();
  const auto start = Clock::now();
  EncodeResult result;
  {
    Progress progress;
    encode.on_pictures = [&](int64_t done) {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      progress.show(static_cast<double>(done), static_cast<double>(std::max(pictures.count(), done)),
                    describe(done, pictures.count(), seconds));
      end_if_interrupted();
    };
    result = encode_pictures(*vae, fingerprint(nn::all_parameters(*vae)), pictures, options.output, encode);
  }
  list_broken(result.broken);
  fmt::print("{} pictures in {} shard{}, {} of them new, {} left out: {}\n", result.pictures, result.shards,
             result.shards == 1 ? "" : "s", result.written, result.broken.size(), printable(options.output));
}

}  // namespace

void add_encode(const Verb& app) {
  const Verb verb = app.add_subcommand("encode", "Turn pictures into latents, to train a latent model on");
  auto o = std::make_shared<Options>();
  verb.add_option("pictures", o->pictures,
                  "Folder of class sub-folders with PNG, JPEG or WebP pictures, or of tar files with key.jpg "
                  "beside key.cls")
      .required();
  verb.add_option("--vae", o->vae, "Autoencoder: a diffusers folder or a file").required().type_name("PATH");
  verb.add_option("-o,--output", o->output, "Folder for the shards; what is there already is not made again")
      .required()
      .type_name("DIR");
  verb.add_option("--size", o->size, "Pictures are scaled and cropped to so many pixels a side")
      .capture_default_str();
  verb.add_flag("--flip", o->flip, "Encode each picture mirrored, too");
  verb.add_option("--shard", o->shard, "Pictures in a shard (of tar files, each makes one)")
      .capture_default_str();
  verb.add_option("--stored", o->stored, "Type of what is stored: f16 or f32")
      .capture_default_str()
      .type_name("NAME");
  verb.add_option("--batch", o->batch, "Pictures at once").capture_default_str();
  add_dtype_option(verb, o->dtype);
  add_threads_option(verb, o->threads);
  verb.footer("linnet encode imagenet/train --vae sd-vae-ft-ema --flip -o latents");
  verb.callback([o] { run(*o); });
}

}  // namespace linnet::app
