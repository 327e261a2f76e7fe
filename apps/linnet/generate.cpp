// linnet generate: pictures from classes or texts, whichever the model takes.
#include <fmt/format.h>

#include "device_argument.h"
#include "generate_options.h"
#include "io/file.h"
#include "io/text.h"
#include "model_argument.h"
#include "store/t5_file.h"
#include "store/transformer_file.h"
#include "store/vae_file.h"
#include "verbs.h"

namespace linnet::app {
namespace {

// Parts of a model that are often beside it: whatever was asked of them, they do not paint.
void refuse_parts(const Weights& file) {
  const auto refuse = [&](const char* what, const char* option) {
    throw Error(
        fmt::format("{} holds {}, which does not paint by itself: it is for {}", file.source(), what, option));
  };
  if (holds_t5(file)) refuse("a text encoder", "--text-encoder");
  if (holds_vae(file)) refuse("an autoencoder", "--vae");
}

// What is written last would destroy what the pictures were made of.
void check_outputs_keep_inputs(const PaintOptions& options) {
  for (const std::string& output : {options.to_folder() ? "" : options.output, options.latents, options.npz}) {
    if (output.empty()) continue;
    for (const std::string& part : {options.model, options.vae, options.text_encoder, options.tokenizer})
      if (!part.empty()) check_keeps_model(output, part);
    for (const std::string& input : {options.prompt_file, options.noise}) check_keeps(output, input);
  }
}

void run(PaintOptions options) {
  const bool texts = !options.prompts.empty() || !options.prompt_file.empty();
  if (options.model == "builtin" && texts) options.model = builtin_text;
  const Weights file = open_file(options.model);
  check_outputs_keep_inputs(options);
  say_scheduler(file);
  const Choice choice = choice_from_name(options.weights);
  if (holds_pixart(file, choice)) return paint_texts(options, file);
  refuse_parts(file);
  check(holds_dit(file, choice), "{}: this is no model that Linnet paints with (DiT, LiT or PixArt)",
        file.source());
  paint_classes(options, file);
}

void add_what_to_paint(const Verb& verb, PaintOptions& o) {
  verb.begin_group("What to paint");
  verb.add_option("prompt", o.prompts,
                  "What to paint, in words: one text, or several, for a text-to-image model")
      .as_they_stand()
      .type_name("TEXT");
  verb.add_option("--prompts", o.prompt_file, "File with one text a line").type_name("FILE");
  verb.add_option(
          "-c,--class,--classes", o.classes,
          "What to paint: names or indices, with commas or repeated (default: balanced, every class in turn)")
      .one_each()
      .type_name("NAME");
  verb.add_option("-n,--count", o.count,
                  "Pictures in all, cycling through the texts or classes (default: one of each given, or 1)");
  verb.add_option("-m,--model", o.model,
                  "Model file or folder, or builtin: the model of classes inside the program, or with texts "
                  "that of texts")
      .capture_default_str()
      .type_name("FILE");
  add_weights_option(verb, o.weights);
  verb.add_option(
          "--vae", o.vae,
          "Autoencoder that decodes a latent model's samples: a diffusers folder or a file (default: the one "
          "in the model's folder)")
      .type_name("PATH");
}

void add_texts(const Verb& verb, PaintOptions& o) {
  verb.begin_group("Texts");
  verb.add_option("--negative", o.negative, "Text that guidance leads away from").type_name("TEXT");
  verb.add_option(
          "--unconditional", o.unconditional,
          "What guidance leads away from: text, the negative one encoded (diffusers), or null, the model's "
          "embedding of no text (PixArt's own code)")
      .capture_default_str()
      .type_name("NAME");
  verb.add_option("--size", o.size,
                  "Pixels, such as 1024x768: the nearest that suits the model is taken (default: the "
                  "model's own)")
      .type_name("WxH");
  verb.add_option("--text-encoder", o.text_encoder,
                  "T5 encoder, a folder or a file, also the training checkpoint that it was trained along "
                  "with (default: in the model's folder)")
      .type_name("PATH");
  verb.add_option("--tokenizer", o.tokenizer,
                  "SentencePiece model, or the folder that holds it (default: in the model's folder)")
      .type_name("PATH");
  verb.add_option("--cleaning", o.cleaning,
                  "Of texts: lower (small letters, as diffusers) or strip (as PixArt's own code)")
      .capture_default_str()
      .type_name("NAME");
  verb.add_option("--cache", o.cache,
                  "Folder in which encoded texts are kept, so that they are not encoded again")
      .type_name("DIR");
}

void add_sampling(const Verb& verb, PaintOptions& o) {
  verb.begin_group("Sampling");
  verb.add_option(
          "-s,--seed", o.seed,
          "Picture i is drawn from seed + i as PyTorch draws, by its low 32 bits (default: a random one, "
          "which is shown; of a folder 0)")
      .type_name("INT");
  verb.add_option("--noise", o.noise, "Start from the tensor \"noise\" (n, c, h, w) of a safetensors file")
      .type_name("FILE");
  verb.add_option("--steps", o.steps, "Sampling steps, 1 to 1000 (default: 50 of classes, 20 of texts)");
  verb.add_option("--sampler", o.sampler, "ddpm, ddim or dpm++ (default: ddim of classes, dpm++ of texts)")
      .type_name("NAME");
  verb.add_option(
          "--time-grid", o.time_grid,
          "Where dpm++ looks at a text-to-image model: rounded timesteps (diffusers) or fractional ones "
          "(PixArt's own code)")
      .capture_default_str()
      .type_name("NAME");
  verb.add_option("--cfg", o.guidance_scale,
                  "Guidance scale; 1: none (default: 4.5 of texts on latents, 3 of all else)");
  verb.add_option(
          "--cfg-interval", o.guided_interval,
          "Timesteps between which there is guidance, such as 300:999: none late in painting keeps edges "
          "and colours natural, and each step without it takes half the time (default: 400:999 of texts on "
          "pixels, else 0:999)")
      .type_name("FROM:TO");
  verb.add_option(
          "--cfg-channels", o.guided_channels,
          "Channels that are guided: 3, as the released DiT, or all (default: 3 of classes, all of texts)")
      .type_name("NAME");
  verb.add_option("--clip", o.clip,
                  "Keep predicted pictures in -1..1: on, off, or auto (on for pixels, not latents)")
      .capture_default_str()
      .type_name("NAME");
}

void add_output(const Verb& verb, PaintOptions& o) {
  verb.begin_group("Output");
  verb.add_option("-o,--output", o.output,
                  "Picture to write (.png, .jpg, .webp); several are numbered: out-0001.png, ... Or a folder, "
                  "samples/: what is there is not painted again, and processes that mpirun starts share the "
                  "work")
      .type_name("FILE");
  verb.add_option("--format", o.format, "What the pictures in a folder are: png, jpg or webp (default: png)")
      .type_name("NAME");
  verb.add_option("--quality", o.quality,
                  "Of JPEG, 1 to 100 (default: 95), or of a lossy WebP (default: lossless)");
  verb.add_flag("-g,--grid", o.grid, "Write one sheet of all pictures instead");
  verb.add_option("--columns", o.columns, "Pictures in a row of the sheet").capture_default_str();
  verb.add_option("--scale", o.scale, "Enlarge pictures on the sheet so many times; 0: small ones to 96 pixels")
      .capture_default_str();
  verb.add_option("--latents-out", o.latents,
                  "Also write the samples themselves, as tensor \"latents\" of a safetensors file")
      .type_name("FILE");
  verb.add_option(
          "--npz", o.npz,
          "When a folder's pictures are all there, also write them to one file, as ADM's evaluation takes them")
      .type_name("FILE");
  verb.add_option(
      "--preview-every", o.preview_every,
      "Every so many steps write the picture as it is foreseen to out.preview.png, or samples.preview.png of a "
      "folder: of several at once a sheet, of latents a pixel each. It is gone when the pictures are there");
  verb.add_option("--preview", o.preview,
                  "Show it on the terminal too, every 5 steps unless told otherwise: kitty (or Ghostty), iterm "
                  "(or WezTerm), blocks (any with 24-bit colour), off, or auto, when it is one of the first "
                  "two")
      .capture_default_str()
      .type_name("NAME");
}

void add_where_and_how_fast(const Verb& verb, PaintOptions& o) {
  verb.begin_group("Where and how fast");
  add_device_option(verb, o.device);
  add_dtype_option(verb, o.dtype);
  verb.add_option("--batch", o.batch, "Pictures at once; 0: chosen by the model's size").capture_default_str();
  add_threads_option(verb, o.threads);
  verb.add_option("--memory", o.memory,
                  "Most that painting classes may take in decoding, beside the weights (default: 4G; 0: no "
                  "limit), or that painting texts may take in all, such as 6G. What does not fit is decoded in "
                  "bands of rows, the same picture but for rounding; stages give their memory to the next. On "
                  "a GPU it is what the card may hold in all (default: all of it)")
      .type_name("BYTES");
}

}  // namespace

void add_generate(const Verb& app) {
  const Verb verb = app.add_subcommand("generate", "Paint pictures from texts, or from classes, and seeds");
  auto o = std::make_shared<PaintOptions>();
  add_what_to_paint(verb, *o);
  add_texts(verb, *o);
  add_sampling(verb, *o);
  add_output(verb, *o);
  add_where_and_how_fast(verb, *o);
  verb.footer(
      "linnet generate \"two red stars above a blue ring\" -o out.png\nlinnet generate -c red-star,blue-ring "
      "-n 16 --grid --seed 7 -o sheet.png");
  verb.callback([o] { run(*o); });
}

}  // namespace linnet::app
