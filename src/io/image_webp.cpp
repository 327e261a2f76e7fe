// WebP in and out, by libwebp: lossless, or lossy at a quality.
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>

#include "io/exif.h"
#include "io/file.h"
#include "io/image_codecs.h"

namespace linnet {
namespace {

WebPData data_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

Exif exif_of(std::span<const std::byte> bytes) {
  const WebPData data = data_of(bytes);
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(WebPDemux(&data), &WebPDemuxDelete);
  WebPChunkIterator chunk{};
  if (!demuxer || !WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk)) return {};
  std::span<const std::byte> exif(reinterpret_cast<const std::byte*>(chunk.chunk.bytes), chunk.chunk.size);
  const std::string_view start(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size);
  if (start.starts_with("Exif")) exif = exif.subspan(std::min<size_t>(6, exif.size()));  // as JPEG has it
  const Exif result = parse_exif(exif);
  WebPDemuxReleaseChunkIterator(&chunk);
  return result;
}

WebPBitstreamFeatures features_of(std::span<const std::byte> bytes, const std::string& name) {
  WebPBitstreamFeatures features{};
  const auto data = data_of(bytes);
  check(WebPGetFeatures(data.bytes, data.size, &features) == VP8_STATUS_OK, "{}: damaged WebP", name);
  check(!features.has_animation, "{}: it is an animation, not one picture", name);
  return features;
}

// libwebp's structures with their destructors.
struct Encoder {
  WebPConfig config{};
  WebPPicture picture{};
  WebPMemoryWriter writer{};
  WebPMux* mux = WebPMuxNew();
  WebPData whole{};

  Encoder() {
    check(mux && WebPConfigInit(&config) && WebPPictureInit(&picture), "libwebp is of another version");
    WebPMemoryWriterInit(&writer);
    picture.writer = &WebPMemoryWrite;
    picture.custom_ptr = &writer;
  }
  ~Encoder() {
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&writer);
    WebPMuxDelete(mux);
    WebPDataClear(&whole);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

}  // namespace

DecodedImage read_webp(std::span<const std::byte> bytes, const std::string& name) {
  const WebPBitstreamFeatures features = features_of(bytes, name);
  // A picture of one colour takes no bit a pixel: the size of the file says nothing.
  Image image =
      sized_image(features.width, features.height, bytes.size(), std::numeric_limits<int64_t>::max(), name);
  const auto data = data_of(bytes);
  const auto pixels = static_cast<size_t>(image.width * image.height);
  const int width = static_cast<int>(image.width);
  if (features.has_alpha) {
    std::vector<uint8_t> rgba(pixels * 4);
    check(WebPDecodeRGBAInto(data.bytes, data.size, rgba.data(), rgba.size(), width * 4) != nullptr,
          "{}: damaged WebP", name);
    over_white(rgba.data(), image.rgb.data(), image.width * image.height);
  } else {
    check(WebPDecodeRGBInto(data.bytes, data.size, image.rgb.data(), image.rgb.size(), width * 3) != nullptr,
          "{}: damaged WebP", name);
  }
  return {std::move(image), exif_of(bytes).orientation};
}

ImageText read_webp_text(std::span<const std::byte> bytes, const std::string& name) {
  (void)features_of(bytes, name);
  return text_of(exif_of(bytes).comment);
}

bool is_whole_webp(std::span<const std::byte> bytes) {
  if (bytes.size() < 8) return false;
  uint32_t stated = 0;  // behind itself
  std::memcpy(&stated, bytes.data() + 4, sizeof stated);
  // A disk that never got the end may give zeros for it.
  return stated == bytes.size() - 8 &&
         std::ranges::any_of(bytes.last(8), [](std::byte byte) { return byte != std::byte{0}; });
}

void check_webp_size(int64_t width, int64_t height, const std::string& name) {
  check(width <= WEBP_MAX_DIMENSION && height <= WEBP_MAX_DIMENSION,
        "cannot write {}: a WebP has at most {} pixels a side, not {} x {}", name, WEBP_MAX_DIMENSION, width,
        height);
}

void write_webp(std::FILE* file, const ImageToWrite& what) {
  const Image& image = what.image;
  check_webp_size(image.width, image.height, what.name);
  Encoder encoder;
  encoder.config.lossless = !what.quality;
  encoder.config.quality = static_cast<float>(what.quality.value_or(75));  // of lossless: effort
  encoder.picture.use_argb = !what.quality;
  encoder.picture.width = static_cast<int>(image.width);
  encoder.picture.height = static_cast<int>(image.height);
  const bool encoded =
      WebPPictureImportRGB(&encoder.picture, image.rgb.data(), static_cast<int>(image.width * 3)) &&
      WebPEncode(&encoder.config, &encoder.picture);
  check(encoded, "cannot write {}: libwebp's error {}", what.name,
        static_cast<int>(encoder.picture.error_code));
  WebPData data{encoder.writer.mem, encoder.writer.size};
  if (!what.text.empty()) {
    const std::string exif = make_exif(comment_of(what.text));
    const WebPData chunk{reinterpret_cast<const uint8_t*>(exif.data()), exif.size()};
    const bool assembled = WebPMuxSetImage(encoder.mux, &data, /*copy_data=*/0) == WEBP_MUX_OK &&
                           WebPMuxSetChunk(encoder.mux, "EXIF", &chunk, /*copy_data=*/1) == WEBP_MUX_OK &&
                           WebPMuxAssemble(encoder.mux, &encoder.whole) == WEBP_MUX_OK;
    check(assembled, "cannot write {}: libwebp cannot put the text beside the picture", what.name);
    data = encoder.whole;
  }
  write_bytes(file, data.bytes, data.size);
}

}  // namespace linnet
