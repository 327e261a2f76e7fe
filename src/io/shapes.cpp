// What the scenes of `shapes` are: names, outlines, drawing. Writing them to disk: shapes_data_set.cpp.
#include "io/shapes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/text.h"
#include "io/text.h"

namespace linnet {
namespace {

constexpr float pi = std::numbers::pi_v<float>;
enum { circle, square, triangle, star, heart, ring, cross, moon };

const std::array<std::string, shape_count> shapes = {"circle", "square", "triangle", "star",
                                                     "heart",  "ring",   "cross",    "moon"};
const std::array<std::string, colour_count> colours = {"red",  "orange", "yellow", "green",
                                                       "cyan", "blue",   "purple", "pink"};
constexpr std::array<std::array<int, 3>, colour_count> palette = {{{222, 48, 44},
                                                                   {255, 136, 26},
                                                                   {255, 214, 40},
                                                                   {44, 174, 82},
                                                                   {30, 196, 214},
                                                                   {44, 96, 228},
                                                                   {136, 62, 206},
                                                                   {255, 116, 184}}};

float circle_distance(float x, float y, float radius) { return std::sqrt(x * x + y * y) - radius; }

float box_distance(float x, float y, float half_width, float half_height) {
  const float dx = std::abs(x) - half_width, dy = std::abs(y) - half_height;
  const float outside =
      std::sqrt(std::max(dx, 0.0f) * std::max(dx, 0.0f) + std::max(dy, 0.0f) * std::max(dy, 0.0f));
  return outside + std::min(std::max(dx, dy), 0.0f);
}

// Equilateral, its corners on the unit circle: the distance to the side that the point faces, or to its corner.
float triangle_distance(float x, float y) {
  constexpr float root3 = std::numbers::sqrt3_v<float>, half_side = root3 / 2;
  float px = std::abs(x) - half_side, py = half_side / root3 - y;
  if (px + root3 * py > 0) {
    const float qx = (px - root3 * py) / 2;
    py = (-root3 * px - py) / 2;
    px = qx;
  }
  px -= std::clamp(px, -2 * half_side, 0.0f);
  return (py > 0 ? -1.0f : 1.0f) * std::sqrt(px * px + py * py);
}

// Five points. Mirrored into one half of one point, the outline is a single segment, from the tip to the notch.
float star_distance(float x, float y) {
  constexpr float notch = 0.47f;
  static const float sine = std::sin(pi / 5), cosine = std::cos(pi / 5);
  float px = std::abs(x), py = -y;  // a tip is up
  for (int fold = 0; fold < 2; ++fold) {
    const float beyond = std::max(px * cosine - py * sine, 0.0f);  // the mirror runs through the notch
    px = std::abs(px - 2 * beyond * cosine);
    py += 2 * beyond * sine;
  }
  const float ex = notch * sine, ey = notch * cosine - 1.0f;
  const float along = std::clamp((px * ex + (py - 1.0f) * ey) / (ex * ex + ey * ey), 0.0f, 1.0f);
  const float dx = px - along * ex, dy = py - 1.0f - along * ey;
  return std::copysign(std::sqrt(dx * dx + dy * dy), ex * (py - 1.0f) - ey * px);
}

// A square on its corner with half discs on its two upper sides.
float heart_distance(float x, float y) {
  constexpr float side = 1.05f, quarter = side * std::numbers::sqrt2_v<float> / 4, lift = 0.0732f * side;
  const float px = std::abs(x), py = y - lift;
  constexpr float r = std::numbers::sqrt2_v<float> / 2;
  const float body = box_distance((px + py) * r, (px - py) * r, side / 2, side / 2);
  return std::min(body, circle_distance(px - quarter, py + quarter, side / 2));
}

// A disc less another.
float moon_distance(float x, float y) {
  return std::max(circle_distance(x, y, 0.95f), -circle_distance(x - 0.46f, y + 0.22f, 0.76f));
}

Rgb blend(const Rgb& from, const Rgb& to, float share) {
  Rgb result{};
  for (size_t c = 0; c < 3; ++c) result[c] = from[c] + (to[c] - from[c]) * share;
  return result;
}

std::vector<std::string> all_class_names() {
  std::vector<std::string> names;
  for (const std::string& colour : colours)
    for (const std::string& shape : shapes) names.push_back(colour + "-" + shape);
  return names;
}

// Uniform in [low, high).
float between(Generator& generator, float low, float high) { return low + (high - low) * generator.uniform(); }

// A little lighter or darker, warmer or colder, fuller or paler.
Rgb tinted(int colour, Generator& generator) {
  Lab lab = to_oklab(colour_of(colour));
  lab.lightness += between(generator, -0.025f, 0.025f);
  const float turn = between(generator, -0.06f, 0.06f), chroma = between(generator, 0.94f, 1.06f);
  const float a = lab.a, b = lab.b;
  lab.a = chroma * (a * std::cos(turn) - b * std::sin(turn));
  lab.b = chroma * (a * std::sin(turn) + b * std::cos(turn));
  return to_srgb(lab);
}

// Dark or light, grey or faintly tinted, plain or a soft gradient: never near one of the colours.
void draw_background(Scene& scene, Generator& generator) {
  const bool dark = generator.uniform() < 0.5f;
  const float lightness = dark ? between(generator, 0.19f, 0.33f) : between(generator, 0.86f, 0.96f);
  const float chroma = between(generator, 0.0f, dark ? 0.035f : 0.025f), hue = between(generator, 0, 2 * pi);
  const bool gradient = generator.uniform() < 0.5f;
  const float step = between(generator, 0.02f, 0.05f) * (gradient ? 1.0f : 0.0f);
  const auto at = [&](float l) { return to_srgb({l, chroma * std::cos(hue), chroma * std::sin(hue)}); };
  scene.background_from = at(lightness - step);
  scene.background_to = at(std::min(lightness + step, 0.985f));
  scene.gradient_angle = between(generator, 0, 2 * pi);
}

// Its tint and background.
void paint(Scene& scene, Generator& generator) {
  scene.fill = tinted(scene.colour, generator);
  draw_background(scene, generator);
}

}  // namespace

std::span<const std::string> shape_names() { return shapes; }
std::span<const std::string> colour_names() { return colours; }

std::span<const std::string> class_names() {
  static const std::vector<std::string> names = all_class_names();
  return names;
}

int find_class(std::string_view name) {
  std::string plain = lower_case(name);
  std::ranges::replace_if(
      plain, [](char c) { return c == ' ' || c == '_'; }, '-');
  const auto names = class_names();
  const auto found = std::ranges::find(names, plain);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  const std::string meant = nearest(plain, names);
  throw UsageError(meant.empty()
                       ? fmt::format("no class \"{}\"; a class is a colour ({}) and a shape ({}), as in {}",
                                     name, fmt::join(colours, ", "), fmt::join(shapes, ", "), names[3])
                       : fmt::format("no class \"{}\"; did you mean {}?", name, meant));
}

Rgb colour_of(int colour) {
  const auto& rgb = palette.at(static_cast<size_t>(colour));
  return {static_cast<float>(rgb[0]) / 255, static_cast<float>(rgb[1]) / 255, static_cast<float>(rgb[2]) / 255};
}

float signed_distance(int shape, float x, float y) {
  switch (shape) {
    case circle: return circle_distance(x, y, 0.9f);
    case square: return box_distance(x, y, 0.707f, 0.707f);
    case triangle: return triangle_distance(x, y);
    case star: return star_distance(x, y);
    case heart: return heart_distance(x, y);
    case ring: return std::abs(circle_distance(x, y, 0.74f)) - 0.2f;
    case cross: return std::min(box_distance(x, y, 0.94f, 0.32f), box_distance(x, y, 0.32f, 0.94f));
    case moon: return moon_distance(x, y);
    default: fail("there is no shape {}", shape);
  }
}

float largest_turn(int shape) {
  switch (shape) {
    case circle:
    case ring: return 0;
    case star: return pi / 5;
    default: return pi / 9;
  }
}

Scene random_scene(int shapes_class, Generator& generator) {
  check(shapes_class >= 0 && shapes_class < shapes_class_count, "there is no class {} of shapes", shapes_class);
  Scene scene;
  scene.shape = shapes_class % shape_count;
  scene.colour = shapes_class / shape_count;
  scene.radius = between(generator, 0.22f, 0.39f);
  const float room = 0.5f - scene.radius - 0.05f;
  scene.cx = 0.5f + between(generator, -room, room);
  scene.cy = 0.5f + between(generator, -room, room);
  const float turn = largest_turn(scene.shape);
  scene.angle = between(generator, -turn, turn);
  paint(scene, generator);
  return scene;
}

Scene upright_object(int shape, int colour, Generator& generator) {
  Scene scene;
  scene.shape = shape;
  scene.colour = colour;
  paint(scene, generator);
  return scene;
}

Scene scene_of(uint64_t seed, int64_t index) {
  Generator generator(mix(seed, static_cast<uint64_t>(index)));
  return random_scene(static_cast<int>(index % shapes_class_count), generator);
}

Image render(const Scene& scene, int64_t size) { return render(std::span(&scene, 1), size); }

Image render(std::span<const Scene> objects, int64_t size) {
  check(!objects.empty(), "a scene has at least one object");
  const Scene& first = objects.front();
  Image image = blank_image(size, size, 0, 0, 0);
  const float pixel = 1.0f / static_cast<float>(size);
  const float gx = std::cos(first.gradient_angle), gy = std::sin(first.gradient_angle);
  std::vector<std::pair<float, float>> turns;
  for (const Scene& scene : objects) turns.emplace_back(std::cos(scene.angle), std::sin(scene.angle));
  for (int64_t y = 0; y < size; ++y)
    for (int64_t x = 0; x < size; ++x) {
      const float px = (static_cast<float>(x) + 0.5f) * pixel, py = (static_cast<float>(y) + 0.5f) * pixel;
      const float along = ((px - 0.5f) * gx + (py - 0.5f) * gy) / std::numbers::sqrt2_v<float> + 0.5f;
      Rgb colour = blend(first.background_from, first.background_to, along);
      for (size_t i = 0; i < objects.size(); ++i) {
        const Scene& scene = objects[i];
        const auto [cosine, sine] = turns[i];
        const float dx = (px - scene.cx) / scene.radius, dy = (py - scene.cy) / scene.radius;
        if (dx * dx + dy * dy > 2.0f) continue;  // far outside
        const float edge = signed_distance(scene.shape, dx * cosine + dy * sine, dy * cosine - dx * sine);
        colour = blend(colour, scene.fill, std::clamp(0.5f - edge * scene.radius / pixel, 0.0f, 1.0f));
      }
      uint8_t* out = image.at(x, y);
      for (size_t c = 0; c < 3; ++c)
        out[c] = static_cast<uint8_t>(std::lround(std::clamp(colour[c], 0.0f, 1.0f) * 255));
    }
  return image;
}

std::string caption(const Scene& scene) {
  const auto side = [](float offset, const char* low, const char* high) {
    return std::string(offset < -0.05f ? low : offset > 0.05f ? high : "");
  };
  const std::string vertical = side(scene.cy - 0.5f, "upper", "lower");
  const std::string horizontal = side(scene.cx - 0.5f, "left", "right");
  std::string place = "in the centre";
  if (!vertical.empty() && !horizontal.empty())
    place = "in the " + vertical + " " + horizontal;
  else if (!vertical.empty())
    place = "in the " + vertical + " part";
  else if (!horizontal.empty())
    place = "on the " + horizontal;
  const char* size = scene.radius < 0.275f ? "small" : scene.radius < 0.335f ? "medium-sized" : "large";
  const char* tone = to_oklab(scene.background_from).lightness < 0.6f ? "dark" : "light";
  return fmt::format("a {} {} {} on a {} background, {}", size, colours.at(static_cast<size_t>(scene.colour)),
                     shapes.at(static_cast<size_t>(scene.shape)), tone, place);
}

}  // namespace linnet
