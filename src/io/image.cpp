// Opening pictures and converting them; the formats themselves are in image_png.cpp and image_jpeg.cpp.
#include "io/image.h"

#include <sys/stat.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/parallel.h"
#include "io/image_codecs.h"

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

// -1 if it has none that is known, as a pipe.
int64_t size_of_file(std::FILE* file) {
  struct stat status {};
  if (const int number = ::fileno(file); number >= 0)
    return ::fstat(number, &status) == 0 && S_ISREG(status.st_mode) ? status.st_size : -1;
  const long here = std::ftell(file);  // in memory
  if (here < 0 || std::fseek(file, 0, SEEK_END) != 0) return -1;
  const long size = std::ftell(file);
  return std::fseek(file, here, SEEK_SET) == 0 ? size : -1;
}

Image read_open_file(std::FILE* file, const std::string& name) {
  std::array<unsigned char, 8> start{};
  const size_t got = std::fread(start.data(), 1, start.size(), file);
  check(!std::ferror(file), "cannot read {}: {}", name, std::strerror(errno));
  check(std::fseek(file, 0, SEEK_SET) == 0, "cannot read {}: {}", name, std::strerror(errno));
  if (got == 8 && std::memcmp(start.data(), "\x89PNG\r\n\x1a\n", 8) == 0) return read_png(file, name);
  if (got >= 3 && std::memcmp(start.data(), "\xff\xd8\xff", 3) == 0) return read_jpeg(file, name);
  fail("{} is neither a PNG nor a JPEG picture", name);
}

}  // namespace

Image sized_image(int64_t width, int64_t height, std::FILE* file, int64_t most_pixels_a_byte,
                  const std::string& name) {
  check(width <= max_image_side && height <= max_image_side && width * height <= max_image_pixels,
        "{}: {} x {} pixels are too many (at most {} a side, {} in all)", name, width, height, max_image_side,
        max_image_pixels);
  if (const int64_t size = size_of_file(file); size >= 0)
    check(width * height / most_pixels_a_byte <= size, "{}: too short a file for {} x {} pixels", name, width,
          height);
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

bool has_picture_name(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

Image read_image(const std::filesystem::path& path) {
  const std::string name = path.string();
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(name.c_str(), "rb"), &std::fclose);
  check(file != nullptr, "cannot read {}: {}", name, std::strerror(errno));
  return read_open_file(file.get(), name);
}

Image read_image(std::span<const std::byte> bytes, const std::string& name) {
  check(!bytes.empty(), "{} is empty", name);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      ::fmemopen(const_cast<std::byte*>(bytes.data()), bytes.size(), "rb"), &std::fclose);
  check(file != nullptr, "cannot read {}: {}", name, std::strerror(errno));
  return read_open_file(file.get(), name);
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
