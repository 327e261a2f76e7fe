// Linnet embedded in a program: paints what words say with the built-in text-to-image model, and writes each
// picture as a PPM file as soon as it is finished.
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include <linnet/linnet.h>

namespace {

bool write_ppm(const std::string& file, const linnet::Picture& picture) {
  std::ofstream out(file, std::ios::binary);
  out << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
  out.write(reinterpret_cast<const char*>(picture.rgb.data()),
            static_cast<std::streamsize>(picture.rgb.size()));
  return static_cast<bool>(out.flush());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> prompts(argv + 1, argv + argc);
  try {
    const linnet::TextModel model = linnet::TextModel::builtin();
    for (const std::string& prompt : prompts)
      if (!model.fits(prompt)) std::fprintf(stderr, "too long, its end is left out: %s\n", prompt.c_str());
    linnet::TextRequest request{.prompts = prompts, .seed = 7};
    request.on_step = [](int step, int steps) {
      std::fprintf(stderr, "\r%d of %d ", step, steps);
      return true;
    };
    model.paint(request, [&](const linnet::Picture& picture, int64_t index) {
      const auto i = static_cast<size_t>(index);
      const std::string file = "words-" + std::to_string(i + 1) + ".ppm";
      if (!write_ppm(file, picture)) throw linnet::Error(file + ": could not be written");
      std::fprintf(stderr, "\r%s: %s\n", file.c_str(), prompts[i].c_str());
      return true;
    });
    return 0;
  } catch (const linnet::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
