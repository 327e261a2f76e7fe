#include <fstream>

#include <linnet/linnet.h>

void write(const linnet::Picture& picture, const std::string& file) {  // 8-bit RGB, here as PPM
  std::ofstream out(file, std::ios::binary);
  out << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
  out.write(reinterpret_cast<const char*>(picture.rgb.data()), std::ssize(picture.rgb));
}

int main() {
  const linnet::Model shapes = linnet::Model::builtin();  // or Model("model.safetensors")
  write(shapes.paint({.classes = {"red-star"}, .seed = 7}).front(), "star.ppm");

  const std::string device = linnet::has_device("cuda") ? "cuda" : "cpu";
  const auto words = linnet::TextModel::builtin({.device = device});  // or TextModel("pixart-laptop", ...)
  words.paint({.prompts = {"two red stars above a blue ring", "a large pink moon"}},
              [](const linnet::Picture& picture, int64_t index) {  // each as soon as it is finished
                write(picture, "words-" + std::to_string(index) + ".ppm");
                return true;  // false stops
              });
}
