#include "generate_output.h"

#include <fmt/format.h>

#include <chrono>

#include "io/file.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "io/sheet.h"
#include "io/text.h"
#include "memory_argument.h"
#include "preview.h"

namespace linnet::app {

namespace fs = std::filesystem;

bool OutputOptions::to_folder() const {
  return output.ends_with('/') || (!image_format(output) && is_folder(output));
}

std::string OutputOptions::extension() const {
  if (to_folder()) return "." + (format.empty() ? "png" : format);
  return fs::path(output).extension().string();
}

fs::path OutputOptions::first_file() const {
  return to_folder() ? fs::path(output) / ("000000" + extension()) : fs::path(output);
}

fs::path OutputOptions::preview_file() const {
  if (!to_folder()) return fs::path(output).replace_extension("preview.png");
  const std::string folder = absolute_path(output + "/").lexically_normal().parent_path().string();
  const ProcessShare share = process_share();
  return folder + (share.count > 1 ? fmt::format(".preview-{}.png", share.index + 1) : ".preview.png");
}

namespace {

void check_preview(const OutputOptions& options) {
  const std::string& how = options.preview;
  if (how != "auto" && how != "off" && how != "kitty" && how != "iterm" && how != "blocks")
    throw UsageError(fmt::format("--preview is auto, off, kitty, iterm or blocks, not \"{}\"", printable(how)));
  if (!options.preview_every) return;
  if (*options.preview_every < 1)
    throw UsageError(
        fmt::format("--preview-every is a number of steps from 1 on, not {}", *options.preview_every));
  if (options.output.empty()) throw UsageError("--preview-every writes beside the picture: say -o out.png");
}

void check_format(const OutputOptions& options) {
  const auto stated = image_format("picture." + options.format);
  if (!options.format.empty() && !stated)
    throw UsageError(fmt::format("--format is png, jpg or webp, not \"{}\"", printable(options.format)));
  if (options.output.empty()) return;
  const auto format = image_format("picture" + options.extension());
  if (!format)
    throw UsageError(
        fmt::format("\"{}\" must end in .png, .jpg or .webp, or in / for a folder", printable(options.output)));
  if (stated && stated != format)
    throw UsageError(fmt::format("--format {} is not what {} would be: its name says {}", options.format,
                                 printable(options.output), to_string(*format)));
  if (!options.quality) return;
  if (*options.quality < 1 || *options.quality > 100) throw UsageError("--quality is 1 to 100");
  if (format == ImageFormat::png) throw UsageError("--quality is for JPEG and WebP: a PNG loses nothing");
}

// Of two outputs in one place the later one would destroy the other.
void check_places_differ(const OutputOptions& options) {
  std::vector<std::pair<const char*, fs::path>> files;
  const auto add = [&](const char* option, const fs::path& file) {
    if (file.empty()) return;
    const fs::path place = place_of_file(file);
    for (const auto& [other, taken] : files)
      if (place == taken)
        throw UsageError(fmt::format("{} and {} would write the same file, {}: they need one each", other,
                                     option, printable(file.string())));
    files.emplace_back(option, place);
  };
  if (!options.to_folder()) add("-o", options.output);
  add("--latents-out", options.latents);
  add("--npz", options.npz);
  if (options.preview_every) add("--preview-every", options.preview_file());
}

// The preview is gone in the end, and so would be what it takes the place of.
void check_preview_place(const OutputOptions& options) {
  if (!options.preview_every) return;
  const fs::path file = options.preview_file();
  check_writable(file);
  if (is_there(file) && !is_own_preview(file))
    throw UsageError(
        fmt::format("{} is there already, where --preview-every would write, and is no preview: "
                    "move it, or choose another output",
                    printable(file.string())));
}

}  // namespace

void check_sizes(const OutputOptions& options, int64_t count, int64_t width, int64_t height) {
  if (!options.grid) return check_size_fits(options.first_file(), width, height);
  const SheetLayout sheet = layout_sheet(count, width, height, options.columns, 4, options.scale);
  check_size_fits(options.output, sheet.width, sheet.height);
}

size_t decoding_limit(const OutputOptions& options, const Device& device) {
  return device.is_gpu() ? 0 : bytes_from(options.decoding_memory());
}

void prepare_outputs(const OutputOptions& options) {
  bytes_from(options.decoding_memory());
  if (options.output.empty() && options.latents.empty())
    throw UsageError("say where the picture goes: -o out.png");
  if (options.columns < 1 || options.scale < 0)
    throw UsageError("--columns is at least 1, and --scale at least 0");
  check_format(options);
  check_preview(options);
  if (options.to_folder()) {
    if (options.grid) throw UsageError("a sheet is one file: -o sheet.png");
    if (!options.latents.empty())
      throw UsageError(
          "--latents-out keeps what one run samples, and a folder may take several: give a file with -o");
    if (!options.npz.empty()) check_writable(options.npz);
    make_folder(options.output);
    check_preview_place(options);
    check_places_differ(options);
    return check_writable(options.first_file());
  }
  if (!options.npz.empty()) throw UsageError("--npz is made of a folder's pictures: -o samples/");
  // Each would paint all of it, of a seed of its own, over what the others wrote.
  if (process_share().count > 1)
    throw UsageError(
        "several processes (mpirun) share the pictures of a folder, and nothing else: -o samples/");
  if (!options.output.empty()) check_writable(options.output);
  if (!options.latents.empty()) check_writable(options.latents);
  check_preview_place(options);
  check_places_differ(options);
}

PictureWriter::PictureWriter(const OutputOptions& options, const PictureJob& job, Decode decode)
    : options_(options), job_(job), decode_(std::move(decode)), seen_(static_cast<size_t>(job.count)) {
  check_pictures_places();
  check_texts_fit();
  if (!options.latents.empty())
    latents_ = Tensor::empty({job.count, job.sample[0], job.sample[1], job.sample[2]});
}

// Numbered pictures, whose names are known only now, and what is written beside them.
void PictureWriter::check_pictures_places() const {
  if (options_.output.empty()) return;
  check_writable(path_of(job_.count - 1));  // the longest name
  const fs::path folder = fs::weakly_canonical(absolute_path(path_of(0)).parent_path());
  for (const std::string& other : {options_.latents, options_.npz}) {
    if (other.empty()) continue;
    const fs::path place = place_of_file(other);
    for (int64_t i = 0; i < job_.count; ++i)
      if (folder / path_of(i).filename() == place)
        throw UsageError(
            fmt::format("{} is the name of picture {}: choose another", printable(other, 4096), i + 1));
  }
}

void PictureWriter::check_texts_fit() const {
  if (options_.output.empty()) return;
  if (options_.grid) return check_text_fits(options_.output, text_of_sheet());
  if (image_format(path_of(0)) != ImageFormat::jpeg) return;  // others hold any, and there may be a million
  for (int64_t i = 0; i < job_.count; ++i) check_text_fits(path_of(i), job_.text_of(i));
}

void PictureWriter::check_what_is_there() {
  if (!options_.to_folder()) return;
  for (int64_t i = 0; i < job_.count; ++i) (void)is_there(i);
}

bool PictureWriter::lacks(int64_t first, int64_t end, int64_t batch) {
  if (!options_.to_folder()) return true;
  if (!is_ours(first, batch)) return false;
  bool all = true;
  for (int64_t i = first; i < end; ++i) all = is_there(i) && all;
  return !all;
}

bool PictureWriter::wants(int64_t first, int64_t end, int64_t batch) {
  const bool lacking = lacks(first, end, batch);
  if (!lacking && is_ours(first, batch)) kept_ += end - first;
  return lacking;
}

namespace {

// Of a picture that is whole: what is written to folders may be left empty or damaged when the system goes
// down (Durability::replaceable).
std::optional<ImageText> text_of_whole(const fs::path& path) {
  if (!is_file(path)) return std::nullopt;
  try {
    ImageNotes notes = read_image_notes(path);
    return notes.whole ? std::optional(std::move(notes.text)) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Older pictures of classes name an autoencoder in the model's own folder, too: which it was, its hash says.
bool is_painted_alike(ImageText text, const ImageText& wanted) {
  if (!wanted.contains("vae")) text.erase("vae");
  return text == wanted;
}

}  // namespace

bool PictureWriter::is_there(int64_t picture) {
  const auto index = static_cast<size_t>(picture);
  if (seen_[index]) return true;
  const fs::path path = path_of(picture);
  const auto text = text_of_whole(path);
  if (!text) return false;
  check(is_painted_alike(*text, job_.text_of(picture)),
        "{}: it was painted otherwise than is asked for now (linnet info tells how); choose another folder",
        printable(path.string(), 4096));
  return seen_[index] = true;
}

void PictureWriter::take(int64_t first, const Tensor& samples, Progress& progress) {
  const int64_t n = samples.size(0), each = samples.numel() / n;
  painted_ += n;
  if (latents_.defined()) {
    const Tensor here = samples.host();
    std::copy_n(here.data<float>(), here.numel(), latents_.mutable_data<float>() + first * each);
  }
  if (options_.output.empty()) return;
  for (int64_t i = 0; i < n; ++i) {
    const Tensor sample = samples.rows(i, i + 1);
    if (decode_)
      progress.stage(job_.count == 1 ? "decoding"
                                     : fmt::format("decoding picture {} of {}", first + i + 1, job_.count));
    const auto start = std::chrono::steady_clock::now();
    const Tensor picture = decode_ ? decode_(sample) : sample.host();
    decoding_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const Image image = to_image(picture.reshape({3, picture.size(2), picture.size(3)}));
    if (options_.grid)
      sheet_.push_back(image);
    else
      write_one(first + i, image);
  }
}

ImageText PictureWriter::text_of_sheet() const {
  ImageText text = job_.sheet_text();
  text["columns"] = std::to_string(options_.columns);
  text["scale"] = std::to_string(options_.scale);
  return text;
}

void PictureWriter::write_sheet() const {
  write_image(options_.output, contact_sheet(sheet_, options_.columns, 4, options_.scale), text_of_sheet(),
              options_.quality);
}

void PictureWriter::finish() {
  if (options_.grid && !options_.output.empty()) write_sheet();
  if (latents_.defined()) write_safetensors(options_.latents, {{"latents", latents_}}, job_.sheet_text());
  if (!options_.npz.empty()) write_npz();
}

// Of processes that share the work, the last to end finds all pictures there.
void PictureWriter::write_npz() {
  for (int64_t i = 0; i < job_.count; ++i)
    if (!is_there(i)) return;
  const Image first = read_image(path_of(0));
  write_npz_pictures(options_.npz, job_.count, first.height, first.width, [&](int64_t i, uint8_t* into) {
    const Image image = read_image(path_of(i));
    check(image.width == first.width && image.height == first.height,
          "{}: it is of another size than the first", printable(path_of(i).string(), 4096));
    std::copy(image.rgb.begin(), image.rgb.end(), into);
  });
}

std::string PictureWriter::what_was_written() const {
  std::string files;
  if (!options_.output.empty()) {
    files = path_of(0).string();
    if (!options_.grid && job_.count > 1) files += " to " + path_of(job_.count - 1).filename().string();
  }
  for (const std::string& other : {options_.latents, options_.npz})
    if (!other.empty() && linnet::is_there(other)) files += (files.empty() ? "" : ", ") + other;
  return printable(files, 4096);
}

// "out.png" → "out-0007.png", with as many digits as the count needs, at least four; in a folder "000006.png".
fs::path PictureWriter::path_of(int64_t picture) const {
  const fs::path output = options_.output;
  if (options_.to_folder()) return output / fmt::format("{:06}{}", picture, options_.extension());
  if (options_.grid || job_.count == 1) return output;
  const auto digits = std::max<size_t>(4, std::to_string(job_.count).size());
  return output.parent_path() /
         fmt::format("{}-{:0{}}{}", output.stem().string(), picture + 1, digits, options_.extension());
}

void PictureWriter::write_one(int64_t picture, const Image& image) const {
  const fs::path path = path_of(picture);
  const ImageText text = job_.text_of(picture);
  write_image(path, image, text, options_.quality,
              options_.to_folder() ? Durability::replaceable : Durability::durable);
  if (on_terminal() || job_.count == 1) return;
  fmt::print("{}  {}  seed {}\n", printable(path.string(), 4096), printable(text.at(job_.title)),
             text.at("seed"));
  std::fflush(stdout);
}

}  // namespace linnet::app
