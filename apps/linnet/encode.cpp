// linnet encode: pictures to cached latents, which a latent model is trained on.
#include "pipeline/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "device_argument.h"
#include "interrupt.h"
#include "io/file.h"
#include "io/text.h"
#include "model_argument.h"
#include "ops/matmul.h"
#include "pipeline/memory_plan.h"
#include "pipeline/text_encoding.h"
#include "store/bundle.h"
#include "store/parameters.h"
#include "store/t5_file.h"
#include "store/vae_file.h"
#include "terminal.h"
#include "verbs.h"

namespace linnet::app {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string pictures, vae, output, dtype = "auto", device = "cpu", stored = "f16", text_encoder, tokenizer,
                                     cleaning = "lower";
  int64_t size = 256, batch = 8, shard = 1024, text_tokens = 300;
  bool flip = false, captions = false, buckets = false;
  int threads = 0;
};

DType stored_type(const std::string& name) {
  if (name == "f16") return DType::f16;
  if (name == "f32") return DType::f32;
  throw UsageError(fmt::format("latents are stored in f16 or f32, not \"{}\"", printable(name)));
}

// "312 of 20000, 1.4 pictures/s, 3 h 54 min left"; of shards that were there already, no more than "312 of
// 20000"
std::string describe(int64_t done, int64_t now, int64_t count, double seconds) {
  const double rate = static_cast<double>(now) / std::max(seconds, 1e-9);
  std::string text = count > 0 ? fmt::format("{} of {}", done, count) : fmt::format("{} pictures", done);
  if (now == 0) return text;
  text += fmt::format(", {:.3g} pictures/s", rate);
  if (count > 0) text += fmt::format(", {} left", duration(static_cast<double>(count - done) / rate));
  return text;
}

void list_broken(const std::vector<std::string>& broken) {
  constexpr size_t shown = 10;
  for (size_t i = 0; i < std::min(shown, broken.size()); ++i)
    fmt::print("left out: {}\n", printable(broken[i], 4000));
  if (broken.size() > shown) fmt::print("left out: {} more\n", broken.size() - shown);
}

// Texts' states by an encoder that stays mapped, whatever its size.
void add_text_encoder(const Options& options, EncodeOptions& encode) {
  if (options.text_encoder.empty() || options.tokenizer.empty())
    throw UsageError("--captions needs --text-encoder and --tokenizer");
  if (options.text_tokens < 1)
    throw UsageError(fmt::format("{} tokens of a text are none", options.text_tokens));
  const Cleaning cleaning = cleaning_from_name(options.cleaning);
  const auto tokenizer = std::make_shared<Tokenizer>(Tokenizer::open(options.tokenizer));
  const std::shared_ptr<T5Encoder> encoder = load_t5(options.text_encoder);
  check_belongs(*tokenizer, printable(options.tokenizer), encoder->config());
  encoder->set_product_dtype(ops::wide_product_dtype_from_name(options.dtype, encode.device));
  encode.text_encoder =
      fmt::format("{} in {}, tokenizer {:016x}, {} tokens, {}", quick_fingerprint(*encoder),
                  ops::name_of_products(encoder->product_dtype(), encode.device),
                  nn::hash_name(read_tokenizer_file(options.tokenizer)), options.text_tokens, options.cleaning);
  place(*encoder, encode.device, std::max(tokens_at_once, options.text_tokens));
  encode.encode_texts = [=, limit = options.text_tokens](const std::vector<std::string>& texts) {
    return encode_each(*encoder, tokenize(*tokenizer, texts, limit, cleaning).ids, &forget_mapped_pages);
  };
}

std::string describe(const PictureSet& pictures, bool captions) {
  if (pictures.count() == 0) return "tar files";
  if (captions) return counted(pictures.count(), "picture") + " with texts";
  return fmt::format("{} in {}", counted(pictures.count(), "picture"),
                     counted(static_cast<int64_t>(pictures.class_names().size()), "class"));
}

// What is encoded of a tar file is in memory until the file ends, and is lost when the run is stopped before.
void say_tars_are_large(const PictureSet& pictures) {
  constexpr uintmax_t large = uintmax_t{4} << 30;
  uintmax_t largest = 0;
  size_t count = 0;
  for (const std::filesystem::path& tar : pictures.tars()) {
    std::error_code problem;
    const uintmax_t bytes = std::filesystem::file_size(tar, problem);
    if (problem || bytes <= large) continue;
    largest = std::max(largest, bytes);
    ++count;
  }
  if (count == 0) return;
  fmt::print(
      "{} larger than 4 GB, up to {:.3g} GB: each makes one shard, which is in memory whole and is begun "
      "anew after a stop; tar files of some thousands of pictures are better\n",
      count == 1 ? "one tar file is" : fmt::format("{} tar files are", count),
      static_cast<double>(largest) / (1 << 30));
}

// How many pictures this process handles, about, as it makes only some of the shards; 0 of tar files, of which
// it is not known how many they hold.
int64_t expected_count(const PictureSet& pictures, const ProcessShare& share) {
  if (share.count == 1) return pictures.count();
  const int64_t shards = (pictures.parts() - share.index + share.count - 1) / share.count;
  return pictures.count() * shards / pictures.parts();
}

void run(const Options& options) {
  EncodeOptions encode;
  encode.size = options.size;
  encode.buckets = options.buckets;
  encode.flip = options.flip;
  encode.stored = stored_type(options.stored);
  encode.batch = options.batch;
  if (options.shard < 1) throw UsageError(fmt::format("{} pictures in a shard are impossible", options.shard));
  check_folder_writable(options.output);
  encode.device = open_device(options.device);
  encode.share = process_share();
  const DType dtype = options.dtype == "auto" ? ops::fastest_wide_product_dtype(encode.device)
                                              : ops::product_dtype_from_name(options.dtype, encode.device);
  if (dtype == DType::i8) throw UsageError("an autoencoder works in f32 or bf16, not in 8 bits");
  use_threads(options.threads);
  const std::unique_ptr<Vae> vae = load_vae(options.vae);
  vae->set_product_dtype(dtype);
  say_scaling(options.vae);
  if (options.captions) add_text_encoder(options, encode);
  const PictureSet pictures = PictureSet::open(
      options.pictures, options.shard, options.captions ? PictureNotes::captions : PictureNotes::classes);
  if (encode.share.index == 0) {
    fmt::print("{}, {}; {}\n", describe(pictures, options.captions), counted(pictures.parts(), "shard"),
               describe_products(dtype, encode.device));
    say_tars_are_large(pictures);
  }
  std::fflush(stdout);
  catch_interrupts();
  auto start = Clock::now();
  EncodeResult result;
  {
    Progress progress;
    const int64_t count = expected_count(pictures, encode.share);
    encode.on_checked = [&](int64_t done, int64_t files) {
      progress.show(static_cast<double>(done), static_cast<double>(files),
                    fmt::format("checking {} of {}", done,
                                counted(files, pictures.count() > 0 ? "picture" : "tar file")));
      start = Clock::now();  // checking says nothing of how fast pictures are encoded
      end_if_interrupted();
    };
    encode.on_pictures = [&](int64_t done, int64_t now) {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      const std::string text = describe(done, now, count, seconds);
      if (count == 0)
        progress.stage(text);
      else
        progress.show(static_cast<double>(done), static_cast<double>(count), text);
      end_if_interrupted();
    };
    const std::string weights = fingerprint(nn::all_parameters(*vae));
    nn::move_to(*vae, encode.device);
    result = encode_pictures(*vae, weights, pictures, options.output, encode);
  }
  list_broken(result.broken);
  fmt::print("{}{} in {}, {} of them new, {} left out: {}\n", which_process(encode.share),
             counted(result.pictures, "picture"), counted(result.shards, "shard"), result.written,
             result.broken.size(), printable(options.output));
}

}  // namespace

void add_encode(const Verb& app) {
  const Verb verb = app.add_subcommand("encode", "Turn pictures into latents, to train a latent model on");
  auto o = std::make_shared<Options>();
  verb.add_option("pictures", o->pictures,
                  "Folder of class sub-folders with PNG, JPEG or WebP pictures, or of tar files with key.jpg "
                  "beside key.cls; with --captions, a folder with captions.jsonl or with a .txt beside each "
                  "picture, or "
                  "tar files with key.txt")
      .required();
  const Argument captions =
      verb.add_flag("--captions", o->captions, "Pictures have texts, which are encoded too");
  verb.add_option("--text-encoder", o->text_encoder, "T5 encoder of the texts, a folder or a file")
      .type_name("PATH")
      .needs(captions);
  verb.add_option("--tokenizer", o->tokenizer, "SentencePiece model, or the folder that holds it")
      .type_name("PATH")
      .needs(captions);
  verb.add_option("--text-tokens", o->text_tokens, "Longer texts are cut: 300 of PixArt-Σ, 120 of α")
      .capture_default_str()
      .needs(captions);
  verb.add_option("--cleaning", o->cleaning, "Of texts, as linnet generate's")
      .capture_default_str()
      .type_name("NAME")
      .needs(captions);
  verb.add_flag(
      "--buckets", o->buckets,
      "Keep about each picture's ratio of height to width, one of those that PixArt was trained with");
  verb.add_option("--vae", o->vae, "Autoencoder: a diffusers folder or a file").required().type_name("PATH");
  verb.add_option("-o,--output", o->output,
                  "Folder for the shards; what is there already is not made again, and processes that mpirun "
                  "starts share the work")
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
  verb.add_option(
          "--dtype", o->dtype,
          "Type of products: f32, bf16, on a GPU also f16 and tf32, or auto: what the device does fastest")
      .capture_default_str()
      .type_name("NAME");
  add_device_option(verb, o->device);
  add_threads_option(verb, o->threads);
  verb.footer("linnet encode imagenet/train --vae sd-vae-ft-ema --flip -o latents");
  verb.callback([o] { run(*o); });
}

}  // namespace linnet::app
