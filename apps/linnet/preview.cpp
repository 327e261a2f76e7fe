#include "preview.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "core/error.h"
#include "io/sheet.h"
#include "io/text.h"

namespace linnet::app {
namespace {

PictureProtocol protocol_of(const OutputOptions& options) {
  if (!on_terminal() || options.output.empty()) return PictureProtocol::none;
  if (options.preview == "kitty") return PictureProtocol::kitty;
  if (options.preview == "iterm") return PictureProtocol::iterm;
  if (options.preview == "blocks") return PictureProtocol::blocks;
  // Unasked only where all is for someone to look at.
  if (options.preview == "off" || ::isatty(STDOUT_FILENO) != 1) return PictureProtocol::none;
  return detect_picture_protocol([](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  });
}

// By which a preview is known as one.
const ImageText& preview_text() {
  static const ImageText text{{"preview", "of what linnet generate paints"}};
  return text;
}

}  // namespace

bool is_own_preview(const std::filesystem::path& file) {
  try {
    return read_image_notes(file).text == preview_text();
  } catch (const Error&) {
    return false;
  }
}

bool wants_previews(const OutputOptions& options) {
  return options.preview_every.has_value() || protocol_of(options) != PictureProtocol::none;
}

PreviewWatch::PreviewWatch(const OutputOptions& options, Progress& progress, SamplePreview preview)
    : progress_(progress), preview_(std::move(preview)), protocol_(protocol_of(options)),
      file_(options.preview_every ? options.preview_file() : std::filesystem::path()),
      every_(options.preview_every.value_or(5)), columns_(options.columns) {}

PreviewWatch::~PreviewWatch() {
  std::error_code ignored;
  if (!file_.empty()) std::filesystem::remove(file_, ignored);
}

// Hours of painting are not to end because a preview is too large, or cannot be written.
void PreviewWatch::operator()(const SamplingStep& step) {
  if (ended_ || (file_.empty() && protocol_ == PictureProtocol::none)) return;
  if ((step.index + 1) % every_ != 0 && step.index + 1 != step.count) return;
  try {
    show(sheet_of(preview_(step.x0)));
  } catch (const Error& error) {
    progress_.line(fmt::format("no more previews: {}", printable(error.what(), 4096)));
    ended_ = true;
  }
}

// pictures (n, 3, h, w); a single one as it is.
Image PreviewWatch::sheet_of(const Tensor& pictures) const {
  std::vector<Image> images;
  for (int64_t i = 0; i < pictures.size(0); ++i)
    images.push_back(to_image(pictures.rows(i, i + 1).reshape({3, pictures.size(2), pictures.size(3)})));
  return images.size() == 1 ? images[0] : contact_sheet(images, columns_);
}

void PreviewWatch::show(const Image& image) {
  if (!file_.empty()) write_image(file_, image, preview_text(), {}, Durability::replaceable);
  const TerminalPicture picture = terminal_picture(image, protocol_, terminal_size());
  if (picture.rows > 0) progress_.picture(picture.text, picture.rows);
}

}  // namespace linnet::app
