// Telling formats apart, and converting pictures; the formats themselves are in image_png.cpp and its like.
#include "io/image.h"

#include <cmath>
#include <cstdlib>

#include "core/parallel.h"
#include "io/file.h"
#include "io/image_codecs.h"
#include "io/text.h"

namespace linnet {

Image blank_image(int64_t width, int64_t height, uint8_t red, uint8_t green, uint8_t blue) {
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
  for (size_t i = 0; i < image.rgb.size(); i += 3) {
    image.rgb[i] = red;
    image.rgb[i + 1] = green;
    image.rgb[i + 2] = blue;
  }
  return image;
}

namespace {

constexpr size_t most_file_bytes = size_t{1} << 30;

struct Signature {
  size_t at;
  std::string_view bytes;
  const char* format;
};
// Of what is not read, those that people have.
constexpr Signature others[] = {
    {0, "GIF8", "GIF"},
    {0, "BM", "BMP"},
    {0, std::string_view("II*\0", 4), "TIFF"},
    {0, std::string_view("MM\0*", 4), "TIFF"},
    {4, "ftypavif", "AVIF"},
    {4, "ftyphei", "HEIC"},
    {4, "ftypmif1", "HEIC"},
    {4, "jP  ", "JPEG 2000"},
    {4, "JXL ", "JPEG XL"},
    {0, "\xff\x0a", "JPEG XL"},
};

std::string_view start_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 16)};
}

std::optional<ImageFormat> format_by(std::string_view start) {
  if (start.starts_with("\x89PNG\r\n\x1a\n")) return ImageFormat::png;
  if (start.starts_with("\xff\xd8\xff")) return ImageFormat::jpeg;
  if (start.starts_with("RIFF") && start.size() > 8 && start.substr(8).starts_with("WEBP"))
    return ImageFormat::webp;
  return std::nullopt;
}

ImageFormat format_of(std::span<const std::byte> bytes, const std::string& name) {
  const std::string_view start = start_of(bytes);
  if (const auto format = format_by(start)) return *format;
  for (const Signature& other : others)
    check(start.size() < other.at || !start.substr(other.at).starts_with(other.bytes),
          "{} is a {}: PNG, JPEG and WebP are read", name, other.format);
  fail("{} is neither a PNG nor a JPEG nor a WebP picture", name);
}

// Not mapped: nobody may cut a picture short while it is decoded.
std::string bytes_of(const std::filesystem::path& path) { return read_text_file(path, most_file_bytes); }

}  // namespace

std::string to_string(ImageFormat format) {
  return format == ImageFormat::png ? "PNG" : format == ImageFormat::jpeg ? "JPEG" : "WebP";
}

Image sized_image(int64_t width, int64_t height, size_t file_bytes, int64_t most_pixels_a_byte,
                  const std::string& name) {
  check(width <= max_image_side && height <= max_image_side && width * height <= max_image_pixels,
        "{}: {} x {} pixels are too many (at most {} a side, {} in all)", name, width, height, max_image_side,
        max_image_pixels);
  check(width * height / most_pixels_a_byte <= static_cast<int64_t>(file_bytes),
        "{}: too short a file for {} x {} pixels", name, width, height);
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

void over_white(const uint8_t* rgba, uint8_t* rgb, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < 3; ++c) {
      const int alpha = rgba[i * 4 + 3], value = rgba[i * 4 + c];
      rgb[i * 3 + c] = static_cast<uint8_t>((value * alpha + 255 * (255 - alpha) + 127) / 255);
    }
}

std::optional<ImageFormat> image_format(const std::filesystem::path& path) {
  const std::string extension = lower_case(path.extension().string());
  if (extension == ".png") return ImageFormat::png;
  if (extension == ".jpg" || extension == ".jpeg") return ImageFormat::jpeg;
  if (extension == ".webp") return ImageFormat::webp;
  return std::nullopt;
}

Image read_image(const std::filesystem::path& path) {
  const std::string bytes = bytes_of(path);
  return read_image(std::as_bytes(std::span(bytes)), path.string());
}

Image read_image(std::span<const std::byte> bytes, const std::string& name) {
  const ImageFormat format = format_of(bytes, name);
  DecodedImage decoded = format == ImageFormat::png    ? read_png(bytes, name)
                         : format == ImageFormat::jpeg ? read_jpeg(bytes, name)
                                                       : read_webp(bytes, name);
  return upright(std::move(decoded.image), decoded.orientation);
}

ImageNotes read_image_notes(const std::filesystem::path& path) {
  const std::string bytes = bytes_of(path);
  return read_image_notes(std::as_bytes(std::span(bytes)), path.string());
}

ImageNotes read_image_notes(std::span<const std::byte> bytes, const std::string& name) {
  const ImageFormat format = format_of(bytes, name);
  switch (format) {
    case ImageFormat::png: return {format, read_png_text(bytes, name), is_whole_png(bytes)};
    case ImageFormat::jpeg: return {format, read_jpeg_text(bytes, name), is_whole_jpeg(bytes)};
    case ImageFormat::webp: break;
  }
  return {format, read_webp_text(bytes, name), is_whole_webp(bytes)};
}

void check_text_fits(const std::filesystem::path& path, const ImageText& text) {
  if (image_format(path) == ImageFormat::jpeg) check_jpeg_text(text, path.string());
}

void check_size_fits(const std::filesystem::path& path, int64_t width, int64_t height) {
  if (image_format(path) == ImageFormat::webp) check_webp_size(width, height, path.string());
}

void write_image(const std::filesystem::path& path, const Image& image, const ImageText& text,
                 std::optional<int> quality, Durability durability) {
  const std::string name = path.string();
  const auto format = image_format(path);
  check(format.has_value(), "cannot write {}: its name must end in .png, .jpg or .webp", name);
  check(!quality || (*quality >= 1 && *quality <= 100), "a picture's quality is 1 to 100, not {}",
        quality.value_or(0));
  check(image.width > 0 && image.height > 0 &&
            image.rgb.size() == static_cast<size_t>(image.width) * static_cast<size_t>(image.height) * 3,
        "cannot write {}: a picture of {} x {} pixels with {} bytes", name, image.width, image.height,
        image.rgb.size());
  const ImageToWrite what{image, text, quality, name};
  const auto write = [&](std::FILE* file) {
    format == ImageFormat::png    ? write_png(file, what)
    : format == ImageFormat::jpeg ? write_jpeg(file, what)
                                  : write_webp(file, what);
  };
  write_file_atomically(path, write, durability);
}

namespace {

// A file that is a piece of memory; its contents are there once it is flushed.
struct MemoryFile {
  MemoryFile() : file(::open_memstream(&bytes, &size)) {
    check(file != nullptr, "a picture cannot be made into bytes: no memory is left");
  }
  ~MemoryFile() {
    std::fclose(file);
    std::free(bytes);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  char* bytes = nullptr;
  size_t size = 0;
  std::FILE* file;
};

}  // namespace

std::string png_bytes(const Image& image) {
  MemoryFile memory;
  write_png(memory.file, {image, {}, {}, "a picture in memory"});
  check(std::fflush(memory.file) == 0, "a picture cannot be made into bytes: no memory is left");
  return {memory.bytes, memory.size};
}

bool is_image_file(const std::filesystem::path& path) {
  return format_by(start_of(MappedFile::open(path)->bytes())).has_value();
}

Image upright(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  // From 5 on, rows are columns; the other two questions are where the first pixel of the result comes from.
  const bool transposed = orientation >= 5;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image result{transposed ? image.height : image.width, transposed ? image.width : image.height,
               std::vector<uint8_t>(image.rgb.size())};
  for (int64_t y = 0; y < result.height; ++y)
    for (int64_t x = 0; x < result.width; ++x) {
      const int64_t along = transposed ? y : x, down = transposed ? x : y;
      std::copy_n(
          image.at(from_right ? image.width - 1 - along : along, from_below ? image.height - 1 - down : down),
          3, result.at(x, y));
    }
  return result;
}

Tensor to_tensor(std::span<const Image> images) {
  check(!images.empty(), "no pictures to make a tensor of");
  const int64_t width = images[0].width, height = images[0].height, plane = width * height;
  for (const Image& image : images)
    check(image.width == width && image.height == height,
          "pictures of {} x {} and {} x {} do not make one tensor", width, height, image.width, image.height);
  const auto count = static_cast<int64_t>(images.size());
  Tensor result = Tensor::empty({count, 3, height, width});
  float* out = result.mutable_data<float>();
  parallel_for(count, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(plane, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t n = begin; n < end; ++n) {
                   const uint8_t* in = images[static_cast<size_t>(n)].rgb.data();
                   for (int64_t c = 0; c < 3; ++c)
                     for (int64_t i = 0; i < plane; ++i)
                       out[(n * 3 + c) * plane + i] = static_cast<float>(in[i * 3 + c]) / 127.5f - 1.0f;
                 }
               });
  return result;
}

Image to_image(const Tensor& chw) {
  check(chw.shape().rank() == 3 && chw.size(0) == 3,
        "a picture is a tensor of shape (3, height, width), not {}", to_string(chw.shape()));
  const Tensor values = chw.to(DType::f32);
  const float* in = values.data<float>();
  const int64_t height = chw.size(1), width = chw.size(2), plane = width * height;
  Image image{width, height, std::vector<uint8_t>(static_cast<size_t>(plane * 3))};
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < plane; ++i) {
      const float value = (in[c * plane + i] + 1.0f) * 127.5f;
      const float bounded = value > 0.0f ? std::min(value, 255.0f) : 0.0f;  // NaN compares false
      image.rgb[static_cast<size_t>(i * 3 + c)] = static_cast<uint8_t>(std::lround(bounded));
    }
  return image;
}

}  // namespace linnet
