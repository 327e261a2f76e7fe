// Linnet embedded in a program: paints one picture with the built-in model and writes it as a PPM file.
#include <cstdio>
#include <fstream>

#include <linnet/linnet.h>

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "red-star";
  const char* file = argc > 2 ? argv[2] : "picture.ppm";
  try {
    const linnet::Model model = linnet::Model::builtin();
    linnet::Request request;
    request.classes = {what};
    request.seed = 7;
    request.steps = 30;
    request.on_step = [](int step, int steps) {
      std::fprintf(stderr, "\r%d of %d", step, steps);
      return true;
    };
    const linnet::Picture picture = model.paint(request).front();
    std::ofstream out(file, std::ios::binary);
    out << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
    out.write(reinterpret_cast<const char*>(picture.rgb.data()),
              static_cast<std::streamsize>(picture.rgb.size()));
    std::fprintf(stderr, "\r%s: %s\n", file, out.flush() ? what : "could not be written");
    return out ? 0 : 1;
  } catch (const linnet::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
