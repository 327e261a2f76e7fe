// Pictures in and out: every flavour of PNG, JPEG and WebP, broken files, text entries, atomic writing.
#include "io/image.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>

#include "io/sheet.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path data = fs::path(LINNET_TEST_DATA) / "images";

// A folder of its own for each test, removed afterwards.
class ImageFiles : public testing::Test {
 protected:
  void SetUp() override {
    dir = fs::temp_directory_path() / ("linnet_image_" + std::to_string(::getpid()) + "_" +
                                       testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(dir);
  }
  void TearDown() override { fs::remove_all(dir); }

  fs::path dir;
};

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Removed first: some file systems write an overwritten file to disk at once, which takes milliseconds.
void put(const fs::path& path, const std::string& bytes) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

int largest_difference(const Image& one, const Image& other) {
  if (one.width != other.width || one.height != other.height) return 1000;
  int largest = 0;
  for (size_t i = 0; i < one.rgb.size(); ++i) largest = std::max(largest, std::abs(one.rgb[i] - other.rgb[i]));
  return largest;
}

std::string error_of(const fs::path& path) {
  try {
    (void)read_image(path);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

// Only Error may come.
void try_notes(const fs::path& path) {
  try {
    (void)read_image_notes(path);
  } catch (const Error&) {
  }
}

Image gradient(int64_t width, int64_t height) {
  Image image = blank_image(width, height, 0, 0, 0);
  for (size_t i = 0; i < image.rgb.size(); ++i) image.rgb[i] = static_cast<uint8_t>(i * 7);
  return image;
}

TEST(ReadImage, GivesWhatPillowGivesForEveryFlavour) {
  for (const char* name :
       {"grey.png", "bits.png", "palette.png", "alpha.png", "grey16.png", "jpeg_420.jpg", "jpeg_444.jpg",
        "jpeg_progressive.jpg", "jpeg_grey.jpg", "jpeg_cmyk.jpg", "alpha.webp", "webp_lossy.webp"}) {
    const fs::path expected = data / (fs::path(name).stem().string() + "_expected.png");
    const bool exact = std::string_view(name).ends_with(".png");
    EXPECT_LE(largest_difference(read_image(data / name), read_image(expected)), exact ? 0 : 1) << name;
  }
}

TEST(ReadImage, LosslessWebpIsThePictureItself) {
  EXPECT_EQ(read_image(data / "tiny.webp"), read_image(data / "tiny.png"));
}

TEST(ReadImage, TurnsUprightWhatWasTakenOtherwise) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image expected = read_image(data / fmt::format("upright_{}.png", orientation));
    EXPECT_EQ(expected.width, orientation < 5 ? 8 : 6);
    EXPECT_EQ(read_image(data / fmt::format("turned_{}.png", orientation)), expected) << orientation;
    EXPECT_EQ(read_image(data / fmt::format("turned_{}.webp", orientation)), expected) << orientation;
    const Image jpeg = read_image(data / fmt::format("turned_{}.jpg", orientation));
    const Image reference = upright(read_image(data / "turned_1.jpg"), orientation);
    EXPECT_EQ(jpeg, reference) << orientation;
    EXPECT_LE(largest_difference(jpeg, expected), 60) << orientation;  // what JPEG loses of hard edges
  }
}

TEST(ReadImage, NamesTheFormatsThatItDoesNotRead) {
  for (const char* format : {"GIF", "TIFF", "BMP"}) {
    std::string file = format;
    for (char& c : file) c = static_cast<char>(std::tolower(c));
    const fs::path path = data / ("tiny." + file);
    EXPECT_EQ(error_of(path), path.string() + " is a " + format + ": PNG, JPEG and WebP are read");
  }
  EXPECT_NE(error_of(data / "animated.webp").find("it is an animation"), std::string::npos);
}

TEST(ReadImage, NamesAMissingFile) {
  EXPECT_EQ(error_of("/nowhere/a.png"), "cannot open /nowhere/a.png: No such file or directory");
}

TEST_F(ImageFiles, AFolderIsNotAPicture) { EXPECT_NE(error_of(dir).find(dir.string()), std::string::npos); }

TEST_F(ImageFiles, OtherFilesAreRefused) {
  for (const std::string& bytes : {std::string(), std::string("x"), std::string("RIFF....WAVE....")}) {
    put(dir / "a.png", bytes);
    EXPECT_NE(error_of(dir / "a.png").find("neither a PNG nor a JPEG nor a WebP"), std::string::npos);
  }
}

TEST_F(ImageFiles, EveryTruncationIsAnError) {
  for (const char* name : {"tiny.png", "palette.png", "tiny.jpg", "tiny_progressive.jpg", "tiny.webp"}) {
    const std::string whole = bytes_of(data / name);
    for (size_t length = 0; length < whole.size(); ++length) {
      put(dir / "cut", whole.substr(0, length));
      EXPECT_NE(error_of(dir / "cut").find("cut"), std::string::npos) << name << " cut to " << length;
    }
  }
}

TEST_F(ImageFiles, NoFlippedByteCrashes) {
  for (const char* name : {"tiny.png", "alpha.png", "tiny.jpg", "tiny_progressive.jpg", "alpha.webp",
                           "turned_6.jpg", "turned_6.png", "turned_6.webp"}) {
    const std::string whole = bytes_of(data / name);
    for (size_t at = 0; at < whole.size(); ++at) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ (at % 2 ? 0xff : 0x11));
      put(dir / "broken", broken);
      (void)error_of(dir / "broken");
      EXPECT_NO_THROW(try_notes(dir / "broken"));
    }
  }
}

TEST_F(ImageFiles, AHeaderCannotAskForMoreThanTheFileHolds) {
  std::string jpeg = bytes_of(data / "jpeg_grey.jpg");
  const size_t frame = jpeg.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  jpeg.replace(frame + 5, 4, "\x3f\xff\x1f\xff");
  put(dir / "huge.jpg", jpeg);
  EXPECT_NE(error_of(dir / "huge.jpg").find("too short"), std::string::npos);
  jpeg.replace(frame + 5, 4, "\xff\xff\xff\xff");
  put(dir / "huge.jpg", jpeg);
  EXPECT_NE(error_of(dir / "huge.jpg").find("huge.jpg"), std::string::npos);
}

// Kilobytes that this process had at most.
long peak() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// Of a row of 2^31 - 1 pixels libpng itself would take gigabytes.
TEST_F(ImageFiles, ARowThatIsTooLongIsRefusedBeforeThereIsMemoryForIt) {
  using namespace std::string_literals;
  put(dir / "long.png",
      "\x89PNG\r\n\x1a\n"
      "\0\0\0\x0dIHDR\x7f\xff\xff\xff\0\0\0\x01\x08\x02\0\0\0\x2f\x54\xa4\x8a"
      "\0\0\0\0IDAT\x35\xaf\x06\x1e"
      "\0\0\0\0IEND\xae\x42\x60\x82"s);
  const auto before = peak();
  EXPECT_NE(error_of(dir / "long.png").find("2147483647 x 1 pixels are too many"), std::string::npos);
  EXPECT_LT(peak() - before, 100'000);
}

TEST_F(ImageFiles, AWrittenPictureIsReadBackExactly) {
  for (const auto& [width, height] : {std::pair{1, 1}, {7, 3}, {64, 65}}) {
    const Image image = gradient(width, height);
    write_image(dir / "a.png", image);
    EXPECT_EQ(read_image(dir / "a.png"), image);
  }
}

TEST_F(ImageFiles, APngAsBytesIsThatOfTheFile) {
  const Image image = gradient(33, 21);
  write_image(dir / "p.png", image);
  EXPECT_EQ(png_bytes(image), bytes_of(dir / "p.png"));
}

TEST_F(ImageFiles, WebpIsLosslessUnlessAQualityIsGiven) {
  const Image image = read_image(data / "source.png");
  write_image(dir / "a.webp", image, {{"class", "red-star"}});
  EXPECT_EQ(read_image(dir / "a.webp"), image);
  write_image(dir / "b.webp", image, {}, 50);
  EXPECT_NE(read_image(dir / "b.webp"), image);
  EXPECT_LT(fs::file_size(dir / "b.webp"), fs::file_size(dir / "a.webp") / 2);
}

double mean_difference(const Image& one, const Image& other) {
  double sum = 0;
  for (size_t i = 0; i < one.rgb.size(); ++i) sum += std::abs(one.rgb[i] - other.rgb[i]);
  return sum / static_cast<double>(one.rgb.size());
}

TEST_F(ImageFiles, AJpegsUsualQualityIs95) {
  const Image image = read_image(data / "source.png");
  write_image(dir / "usual.jpg", image);
  write_image(dir / "said.jpg", image, {}, 95);
  EXPECT_EQ(bytes_of(dir / "usual.jpg"), bytes_of(dir / "said.jpg"));
}

TEST_F(ImageFiles, AJpegIsAsGoodAsItsQuality) {
  const Image image = read_image(data / "source.png");
  double before = 100;
  for (const int quality : {10, 50, 95, 100}) {
    write_image(dir / "a.jpg", image, {}, quality);
    const double difference = mean_difference(read_image(dir / "a.jpg"), image);
    EXPECT_LT(difference, before) << quality;
    before = difference;
  }
  EXPECT_LT(before, 1);
  for (const int quality : {0, 101}) EXPECT_THROW(write_image(dir / "b.jpg", image, {}, quality), Error);
  EXPECT_THROW(write_image(dir / "b.gif", image), Error);
  EXPECT_THROW(write_image(dir / "b.webp", blank_image(16384, 1, 0, 0, 0)), Error);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 1);
}

TEST_F(ImageFiles, TheSamePictureGivesTheSameBytes) {
  for (const std::string format : {".png", ".jpg", ".webp"}) {
    write_image(dir / ("a" + format), gradient(30, 20), {{"class", "red-star"}});
    write_image(dir / ("b" + format), gradient(30, 20), {{"class", "red-star"}});
    EXPECT_EQ(bytes_of(dir / ("a" + format)), bytes_of(dir / ("b" + format)));
  }
}

TEST_F(ImageFiles, TextComesBackAsWritten) {
  const std::map<std::string, std::string> text = {{"class", "red-star"},
                                                   {"prompt", "ein Bär, 熊, 🐻\nsecond line"},
                                                   {"empty", ""},
                                                   {"Linnet settings", "{\"seed\": 1}"}};
  for (const char* file : {"a.png", "a.jpg", "a.webp"}) {
    write_image(dir / file, gradient(4, 4), text);
    EXPECT_EQ(read_image_notes(dir / file).text, text) << file;
    EXPECT_EQ(read_image(dir / file).width, 4) << file;
  }
  EXPECT_TRUE(read_image_notes(data / "turned_3.jpg").text.empty());
}

TEST_F(ImageFiles, NotesSayWhetherAllOfThePictureIsThere) {
  for (const char* file : {"a.png", "a.jpg", "a.webp"}) {
    write_image(dir / file, gradient(200, 200), {{"class", "red-star"}});
    EXPECT_TRUE(read_image_notes(dir / file).whole) << file;
    const std::string bytes = bytes_of(dir / file);
    put(dir / file, bytes.substr(0, bytes.size() - 1));
    const bool webp = image_format(file) == ImageFormat::webp;  // whose text lies in its end
    EXPECT_FALSE(read_image_notes(dir / file).whole) << file;
    EXPECT_EQ(read_image_notes(dir / file).text.size(), webp ? 0u : 1u) << file;
    put(dir / file, bytes.substr(0, bytes.size() - 100) + std::string(100, '\0'));
    EXPECT_FALSE(read_image_notes(dir / file).whole) << file;
  }
  // Of a PNG, each part has its sum.
  write_image(dir / "a.png", gradient(200, 200));
  std::string bytes = bytes_of(dir / "a.png");
  bytes[bytes.size() / 2] ^= 1;
  put(dir / "a.png", bytes);
  EXPECT_FALSE(read_image_notes(dir / "a.png").whole);
}

TEST_F(ImageFiles, EveryTextOfALargeSheetComesBack) {
  ImageText text;
  for (int i = 1; i <= 1200; ++i) text[fmt::format("prompt-{:04}", i)] = fmt::format("{} red stars", i);
  write_image(dir / "a.png", gradient(4, 4), text);
  EXPECT_EQ(read_image_notes(dir / "a.png").text, text);
}

std::string big_endian(size_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string png_chunk(const std::string& type, const std::string& content) {
  uint32_t sum = 0xffffffff;
  for (const char c : type + content) {
    sum ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return big_endian(content.size()) + type + content + big_endian(~sum);
}

// The data of all chunks of a type.
std::string data_of(const std::string& png, const std::string& type) {
  std::string content;
  for (size_t at = 8; at + 12 <= png.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<uint8_t>(png[at + i]);
    if (png.substr(at + 4, 4) == type) content += png.substr(at + 8, length);
    at += 12 + length;
  }
  return content;
}

// A small picture with these chunks before its pixels.
std::string png_with(const std::string& chunks) {
  std::string png = bytes_of(data / "tiny.png");
  return png.insert(png.find("IDAT") - 4, chunks);
}

// What an empty picture's pixels are compressed to: six megabytes in as many kilobytes.
const std::string& six_megabytes() {
  static const std::string content = data_of(png_bytes(blank_image(1000, 2000, 0, 0, 0)), "IDAT");
  return content;
}

std::string refusal_of_notes(const fs::path& path) {
  try {
    (void)read_image_notes(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST_F(ImageFiles, TextsThatBecomeManyMegabytesAreRefused) {
  using namespace std::string_literals;
  std::string chunks = png_chunk("zTXt", "0\0\0"s + six_megabytes());
  put(dir / "a.png", png_with(chunks));
  EXPECT_EQ(read_image_notes(dir / "a.png").text.at("0").size(), 2000u * 3001);
  for (int i = 1; i < 100; ++i) chunks += png_chunk("zTXt", std::to_string(i) + "\0\0"s + six_megabytes());
  put(dir / "a.png", png_with(chunks));
  const auto before = peak();
  EXPECT_EQ(refusal_of_notes(dir / "a.png"),
            (dir / "a.png").string() + ": its texts have more than 16777216 bytes");
  EXPECT_EQ(read_image(dir / "a.png"), read_image(data / "tiny.png"));
  EXPECT_LT(peak() - before, 100'000);
}

TEST_F(ImageFiles, ACompressedTextOfAnyKindIsRead) {
  using namespace std::string_literals;
  put(dir / "a.png", png_with(png_chunk("iTXt", "a\0\0\0en\0\0"s + "Bär") + png_chunk("tEXt", "b\0B\xe4r"s) +
                              png_chunk("iTXt", "c\0\1\0de\0C\0"s + six_megabytes())));
  const ImageText text = read_image_notes(dir / "a.png").text;
  EXPECT_EQ(text.at("a"), "Bär");
  EXPECT_EQ(text.at("b"), "Bär");
  EXPECT_EQ(text.at("c").size(), 3u * 2000 * 3001) << "zero bytes as U+FFFD";
}

TEST_F(ImageFiles, ATextIsReadOrSaidToBeMissing) {
  using namespace std::string_literals;
  put(dir / "a.png", png_with(png_chunk("zTXt", "k\0\0"s + "damaged")));
  EXPECT_NE(refusal_of_notes(dir / "a.png").find("one of its texts is damaged"), std::string::npos);
  put(dir / "a.png", png_with(png_chunk("tEXt", "k\0"s + std::string(17'000'000, 'x'))));
  EXPECT_NE(refusal_of_notes(dir / "a.png").find("its texts have more than"), std::string::npos);
  std::string many;
  for (int i = 0; i <= 100'000; ++i) many += png_chunk("tEXt", std::to_string(i) + "\0"s);
  put(dir / "a.png", png_with(many));
  EXPECT_NE(refusal_of_notes(dir / "a.png").find("it has more than 100000 texts"), std::string::npos);
  EXPECT_THROW(write_image(dir / "b.png", gradient(4, 4), {{"k", std::string(17'000'000, 'x')}}), Error);
}

TEST_F(ImageFiles, TextThatIsNotUtf8IsMadeSo) {
  for (const char* file : {"a.png", "a.jpg", "a.webp"}) {
    write_image(dir / file, gradient(4, 4), {{"prompt", "a\xff\xc3z\xed\xa0\x80"}});
    EXPECT_EQ(read_image_notes(dir / file).text.at("prompt"), "a\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD") << file;
  }
  EXPECT_THROW(write_image(dir / "b.jpg", gradient(4, 4), {{"prompt", std::string(70000, 'x')}}), Error);
}

TEST_F(ImageFiles, AKeywordThatPngCannotHoldIsRefused) {
  for (const std::string& keyword : {std::string(), std::string(80, 'x'), std::string("ä"), std::string(" x")})
    EXPECT_THROW(write_image(dir / "a.png", gradient(4, 4), {{keyword, "x"}}), Error);
  EXPECT_FALSE(fs::exists(dir / "a.png"));
}

TEST_F(ImageFiles, AFailedWriteLeavesTheOldPictureAndNoPart) {
  const fs::path path = dir / "a.png";
  write_image(path, gradient(4, 4));
  const std::string before = bytes_of(path);
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit full{100, old.rlim_max};  // the disk is full after 100 bytes
  setrlimit(RLIMIT_FSIZE, &full);
  std::string message;
  try {
    write_image(path, gradient(200, 200));
  } catch (const Error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(message, "cannot write " + path.string() + ": File too large");
  EXPECT_EQ(bytes_of(path), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 1);
}

TEST(WriteImage, NamesAFolderThatIsMissing) {
  EXPECT_THROW(write_image("/nowhere/at/all/a.png", gradient(4, 4)), Error);
}

TEST(ImageTensor, RoundTripsEveryGreyLevel) {
  Image image = blank_image(256, 1, 0, 0, 0);
  for (int64_t x = 0; x < 256; ++x) image.at(x, 0)[x % 3] = static_cast<uint8_t>(x);
  const Tensor tensor = to_tensor({&image, 1});
  EXPECT_EQ(to_string(tensor.shape()), "(1, 3, 1, 256)");
  EXPECT_EQ(to_image(tensor.reshape({3, 1, 256})), image);
}

TEST(ImageTensor, ClampsAndSurvivesNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Image image = to_image(Tensor::from(std::vector<float>{-5, 5, nan}).reshape({3, 1, 1}));
  EXPECT_EQ(image.rgb, (std::vector<uint8_t>{0, 255, 0}));
}

TEST(ImageTensor, PicturesOfTwoSizesAreRefused) {
  const Image images[] = {gradient(2, 2), gradient(3, 2)};
  EXPECT_THROW(to_tensor(images), Error);
}

TEST(ContactSheet, EnlargesSmallPicturesWithoutSmoothing) {
  const std::vector<Image> images(5, gradient(32, 32));
  const Image sheet = contact_sheet(images, 3, 4);
  EXPECT_EQ(sheet.width, 3 * 96 + 4 * 4);
  EXPECT_EQ(sheet.height, 2 * 96 + 3 * 4);
  for (int64_t y = 0; y < 96; ++y)
    for (int64_t x = 0; x < 96; ++x)
      ASSERT_TRUE(std::equal(sheet.at(4 + x, 4 + y), sheet.at(4 + x, 4 + y) + 3, images[0].at(x / 3, y / 3)));
}

TEST(ContactSheet, KeepsLargePicturesAsTheyAre) {
  const std::vector<Image> images(2, gradient(96, 96));
  EXPECT_EQ(contact_sheet(images, 8, 0).width, 192);
}

}  // namespace
}  // namespace linnet
