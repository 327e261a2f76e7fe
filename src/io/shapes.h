// The procedural data set `shapes`: one plain shape of one colour on a calm background, at any size. It needs
// no download, every picture is a function of (seed, index), and whether a generated picture shows what was
// asked can be judged by arithmetic (eval/shapes_judge.h). Class = colour x shape, named "red-star".
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/random.h"
#include "io/colour.h"
#include "io/image.h"

namespace linnet {

constexpr int shape_count = 8, colour_count = 8, shapes_class_count = shape_count * colour_count;

/// circle, square, triangle, star, heart, ring, cross, moon
std::span<const std::string> shape_names();
/// red, orange, yellow, green, cyan, blue, purple, pink
std::span<const std::string> colour_names();
/// "red-circle", "red-square", ...: class = colour * shape_count + shape.
std::span<const std::string> class_names();
/// The index of a class; "Red Star" is understood too. Throws UsageError that suggests the nearest name.
int find_class(std::string_view name);

/// The middle of a named colour, from which scenes vary a little.
Rgb colour_of(int colour);

/// Where a shape's edge is: the distance from (x, y) to it, negative inside. The shape stands upright (y points
/// down) within the unit circle about the origin.
float signed_distance(int shape, float x, float y);
/// Scenes turn a shape by at most this, in radians; 0 when turning changes nothing.
float largest_turn(int shape);

struct Scene {
  int shape = 0, colour = 0;
  float cx = 0.5f, cy = 0.5f, radius = 0.3f;  ///< in picture widths; y points down
  float angle = 0;                            ///< radians, clockwise
  Rgb fill{};
  Rgb background_from{}, background_to{};  ///< equal when the background is plain
  float gradient_angle = 0;                ///< the direction from the one to the other
};

/// A scene of that class: varied size, place, turn, tint and background; the shape lies fully inside.
Scene random_scene(int shapes_class, Generator& generator);
/// An object of that shape and colour with a tint and a background of its own, upright and at no place yet.
Scene upright_object(int shape, int colour, Generator& generator);
/// The index-th scene of the data set that the seed names; classes come in turn, so that they are balanced.
Scene scene_of(uint64_t seed, int64_t index);
/// Anti-aliased, size x size pixels.
Image render(const Scene& scene, int64_t size);
/// Several objects on the background of the first.
Image render(std::span<const Scene> objects, int64_t size);
/// "a large red star on a dark background, in the upper left"
std::string caption(const Scene& scene);

/// Makes the folder of a data set. Throws UsageError when it is there and not empty, when the size is
/// not 16..2048, or when count is not positive.
void prepare_data_set(const std::filesystem::path& dir, int64_t count, int64_t size);

/// Writes dir/<class>/<index>.png for index 0..count-1, and dir/captions.jsonl with a line for each: file,
/// class, caption and the scene's numbers. progress is called with the number of pictures written so far.
/// Throws as prepare_data_set().
void write_data_set(const std::filesystem::path& dir, int64_t count, int64_t size, uint64_t seed,
                    const std::function<void(int64_t)>& progress = {});

}  // namespace linnet
