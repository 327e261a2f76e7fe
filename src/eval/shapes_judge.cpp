// The steps: fit the background to the border; take the largest region that differs from it; measure how much
// of each pixel that region's colour covers; fit every ideal silhouette to this mask; name the colour in OKLab.
// Folders of pictures: shapes_score.cpp.
#include "eval/shapes_judge.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "io/resize.h"

namespace linnet {
namespace {

constexpr float pi = std::numbers::pi_v<float>;

struct Picture {
  int width = 0, height = 0;
  std::vector<Rgb> pixels;

  size_t index(int x, int y) const {
    return static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x);
  }
  const Rgb& at(int x, int y) const { return pixels[index(x, y)]; }
  bool inside(int x, int y) const { return x >= 0 && y >= 0 && x < width && y < height; }
};

float difference(const Rgb& one, const Rgb& other) {
  const float r = one[0] - other[0], g = one[1] - other[1], b = one[2] - other[2];
  return std::sqrt(r * r + g * g + b * b);
}

// At most so many pixels a side.
Picture to_picture(const Image& image, int64_t most) {
  const int64_t side = std::max(image.width, image.height), times = (side + most - 1) / most;
  const Image small = times == 1 ? image
                                 : resize_box(image, std::max<int64_t>(1, image.width / times),
                                              std::max<int64_t>(1, image.height / times));
  Picture picture{static_cast<int>(small.width), static_cast<int>(small.height), {}};
  picture.pixels.resize(small.rgb.size() / 3);
  for (size_t i = 0; i < small.rgb.size(); ++i)
    picture.pixels[i / 3][i % 3] = static_cast<float>(small.rgb[i]) / 255;
  return picture;
}

// ---- The background: a plane in each channel. ----

struct Plane {
  Rgb base{}, along_x{}, along_y{};  // at the centre; change over the whole width and height

  Rgb at(float u, float v) const {
    Rgb result{};
    for (size_t c = 0; c < 3; ++c) result[c] = base[c] + u * along_x[c] + v * along_y[c];
    return result;
  }
};

struct Sample {
  float u, v;  // -0.5 to 0.5
  Rgb colour;
};

std::vector<Sample> border_of(const Picture& picture) {
  const int depth = std::max(1, std::min(picture.width, picture.height) / 24);
  std::vector<Sample> samples;
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x) {
      const int rim = std::min(std::min(x, picture.width - 1 - x), std::min(y, picture.height - 1 - y));
      if (rim >= depth) continue;
      samples.push_back({(static_cast<float>(x) + 0.5f) / static_cast<float>(picture.width) - 0.5f,
                         (static_cast<float>(y) + 0.5f) / static_cast<float>(picture.height) - 0.5f,
                         picture.at(x, y)});
    }
  return samples;
}

Rgb median(std::vector<Rgb> colours) {
  Rgb result{};
  const auto middle = colours.begin() + static_cast<std::ptrdiff_t>(colours.size() / 2);
  for (size_t c = 0; c < 3; ++c) {
    std::nth_element(colours.begin(), middle, colours.end(),
                     [c](const Rgb& a, const Rgb& b) { return a[c] < b[c]; });
    result[c] = (*middle)[c];
  }
  return result;
}

// Weighted least squares of value = k0 + k1 u + k2 v in each channel, by Gauss-Jordan on the normal equations.
Plane weighted_plane(const std::vector<Sample>& samples, const std::vector<float>& weights) {
  double m[3][6] = {};
  for (size_t i = 0; i < samples.size(); ++i) {
    const double terms[3] = {1.0, samples[i].u, samples[i].v}, weight = weights[i];
    for (size_t r = 0; r < 3; ++r) {
      for (size_t k = 0; k < 3; ++k) m[r][k] += weight * terms[r] * terms[k];
      for (size_t c = 0; c < 3; ++c) m[r][3 + c] += weight * terms[r] * samples[i].colour[c];
    }
  }
  for (size_t r = 0; r < 3; ++r) {
    m[r][r] += 1e-6;
    const double pivot = m[r][r];
    for (double& value : m[r]) value /= pivot;
    for (size_t other = 0; other < 3; ++other) {
      if (other == r) continue;
      const double factor = m[other][r];
      for (size_t k = 0; k < 6; ++k) m[other][k] -= factor * m[r][k];
    }
  }
  Plane plane;
  for (size_t c = 0; c < 3; ++c) {
    plane.base[c] = static_cast<float>(m[0][3 + c]);
    plane.along_x[c] = static_cast<float>(m[1][3 + c]);
    plane.along_y[c] = static_cast<float>(m[2][3 + c]);
  }
  return plane;
}

// Pixels far from the current fit count less at each turn, so that a shape that touches the border does not
// matter.
Plane fit_background(const Picture& picture) {
  const std::vector<Sample> samples = border_of(picture);
  std::vector<Rgb> colours;
  for (const Sample& sample : samples) colours.push_back(sample.colour);
  Plane plane;
  plane.base = median(std::move(colours));
  std::vector<float> weights(samples.size());
  for (const float scale : {0.12f, 0.06f, 0.04f, 0.04f}) {
    for (size_t i = 0; i < samples.size(); ++i) {
      const float off = difference(samples[i].colour, plane.at(samples[i].u, samples[i].v)) / scale;
      weights[i] = 1.0f / ((1 + off * off) * (1 + off * off));
    }
    plane = weighted_plane(samples, weights);
  }
  return plane;
}

// ---- The shape's region and mask. ----

struct Region {
  std::vector<uint8_t> inside;                   // 1: the largest region that differs from the background
  std::vector<uint8_t> near;                     // 1: that or within two pixels of it
  int left = 0, top = 0, right = 0, bottom = 0;  // of `near`, exclusive at the end
  int64_t area = 0;
};

// All sets of neighbouring pixels (also over corners) that differ by more than the threshold.
std::vector<std::vector<size_t>> components_of(const Picture& picture, const std::vector<float>& differs,
                                               float threshold) {
  std::vector<uint8_t> seen(differs.size());
  std::vector<std::vector<size_t>> all;
  for (size_t start = 0; start < differs.size(); ++start) {
    if (seen[start] || differs[start] <= threshold) continue;
    std::vector<size_t>& current = all.emplace_back(1, start);
    seen[start] = 1;
    for (size_t next = 0; next < current.size(); ++next) {
      const int x = static_cast<int>(current[next]) % picture.width,
                y = static_cast<int>(current[next]) / picture.width;
      for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
          if (!picture.inside(x + dx, y + dy)) continue;
          const size_t i = picture.index(x + dx, y + dy);
          if (seen[i] || differs[i] <= threshold) continue;
          seen[i] = 1;
          current.push_back(i);
        }
    }
  }
  return all;
}

std::vector<size_t> largest_component(const Picture& picture, const std::vector<float>& differs,
                                      float threshold) {
  std::vector<size_t> best;
  for (std::vector<size_t>& component : components_of(picture, differs, threshold))
    if (component.size() > best.size()) best = std::move(component);
  return best;
}

Region region_of(const Picture& picture, const std::vector<size_t>& component) {
  Region region;
  region.inside.resize(picture.pixels.size());
  region.near.resize(picture.pixels.size());
  region.area = static_cast<int64_t>(component.size());
  region.left = picture.width;
  region.top = picture.height;
  for (const size_t i : component) {
    region.inside[i] = 1;
    const int x = static_cast<int>(i) % picture.width, y = static_cast<int>(i) / picture.width;
    const int x0 = std::max(x - 2, 0), x1 = std::min(x + 3, picture.width);
    const int y0 = std::max(y - 2, 0), y1 = std::min(y + 3, picture.height);
    for (int row = y0; row < y1; ++row)
      std::fill(region.near.begin() + static_cast<std::ptrdiff_t>(picture.index(x0, row)),
                region.near.begin() + static_cast<std::ptrdiff_t>(picture.index(x0, row)) + (x1 - x0),
                uint8_t{1});
    region.left = std::min(region.left, x0);
    region.top = std::min(region.top, y0);
    region.right = std::max(region.right, x1);
    region.bottom = std::max(region.bottom, y1);
  }
  return region;
}

// The colours of the pixels that the shape surely fills: those whose neighbours are all in the region, over
// corners too unless that leaves too few (thin shapes in small pictures).
std::vector<Rgb> core_colours(const Picture& picture, const Region& region, bool corners = true) {
  std::vector<Rgb> colours;
  for (int y = 1; y + 1 < picture.height; ++y)
    for (int x = 1; x + 1 < picture.width; ++x) {
      bool surrounded = true;
      for (int dy = -1; dy <= 1 && surrounded; ++dy)
        for (int dx = -1; dx <= 1; ++dx)
          surrounded &= (!corners && dx != 0 && dy != 0) || region.inside[picture.index(x + dx, y + dy)] != 0;
      if (surrounded) colours.push_back(picture.at(x, y));
    }
  return corners && colours.size() < 4 ? core_colours(picture, region, false) : colours;
}

float unevenness_of(const std::vector<Rgb>& colours, const Rgb& fill) {
  double sum = 0;
  for (const Rgb& colour : colours) sum += std::pow(difference(colour, fill), 2.0);
  return static_cast<float>(std::sqrt(sum / static_cast<double>(colours.size())));
}

// ---- Fitting silhouettes. ----

// How much of each pixel the shape covers, over the region's rectangle, and the moments of that.
struct Mask {
  int left = 0, top = 0, width = 0, height = 0;
  std::vector<float> coverage;
  float area = 0, cx = 0, cy = 0;  // cx, cy in pixels of the whole picture
};

Mask mask_of(const Picture& picture, const std::vector<Rgb>& background, const Region& region,
             const Rgb& fill) {
  Mask mask{region.left, region.top, region.right - region.left, region.bottom - region.top, {}, 0, 0, 0};
  for (int y = region.top; y < region.bottom; ++y)
    for (int x = region.left; x < region.right; ++x) {
      const size_t i = picture.index(x, y);
      float along = 0, length = 1e-6f;
      for (size_t c = 0; c < 3; ++c) {
        const float direction = fill[c] - background[i][c];
        along += (picture.pixels[i][c] - background[i][c]) * direction;
        length += direction * direction;
      }
      // Faint traces are noise, not coverage.
      const float share = std::clamp(along / length, 0.0f, 1.0f);
      const float coverage = region.near[i] != 0 && share > 0.04f ? share : 0.0f;
      mask.coverage.push_back(coverage);
      mask.area += coverage;
      mask.cx += coverage * (static_cast<float>(x) + 0.5f);
      mask.cy += coverage * (static_cast<float>(y) + 0.5f);
    }
  mask.cx /= std::max(mask.area, 1e-6f);
  mask.cy /= std::max(mask.area, 1e-6f);
  return mask;
}

struct Pose {
  float cx, cy, radius, angle;  // in pixels of the whole picture
};

// Area and centroid of each shape of radius 1, by sampling.
struct Moments {
  float area = 0, cx = 0, cy = 0;
};

std::array<Moments, shape_count> measure_shapes() {
  constexpr int steps = 512;
  std::array<Moments, shape_count> result;
  for (int shape = 0; shape < shape_count; ++shape) {
    Moments& moments = result[static_cast<size_t>(shape)];
    constexpr float width = 2.4f / steps;
    for (int i = 0; i < steps * steps; ++i) {
      const float x = (static_cast<float>(i % steps) + 0.5f) * width - 1.2f;
      const float y = (static_cast<float>(i / steps) + 0.5f) * width - 1.2f;
      if (signed_distance(shape, x, y) > 0) continue;
      moments.area += width * width;
      moments.cx += x * width * width;
      moments.cy += y * width * width;
    }
    moments.cx /= moments.area;
    moments.cy /= moments.area;
  }
  return result;
}

const Moments& moments_of(int shape) {
  static const std::array<Moments, shape_count> moments = measure_shapes();
  return moments[static_cast<size_t>(shape)];
}

// Soft intersection over union of the mask and the ideal silhouette.
float agreement(const Mask& mask, int shape, const Pose& pose) {
  const float cosine = std::cos(pose.angle) / pose.radius, sine = std::sin(pose.angle) / pose.radius;
  float both = 0, either = 1e-6f;
  const float* coverage = mask.coverage.data();
  for (int y = 0; y < mask.height; ++y) {
    const float dy = static_cast<float>(mask.top + y) + 0.5f - pose.cy;
    for (int x = 0; x < mask.width; ++x, ++coverage) {
      const float dx = static_cast<float>(mask.left + x) + 0.5f - pose.cx;
      const float edge = signed_distance(shape, dx * cosine + dy * sine, dy * cosine - dx * sine);
      const float ideal = std::clamp(0.5f - edge * pose.radius, 0.0f, 1.0f);
      both += std::min(ideal, *coverage);
      either += std::max(ideal, *coverage);
    }
  }
  return both / either;
}

// How far to either side a shape may be turned before it is itself again, or (heart, moon) is upside down.
float search_turn(int shape) {
  const float turns[shape_count] = {0, pi / 4, pi / 3, pi / 5, pi / 6, 0, pi / 4, pi / 6};
  return turns[shape];
}

// The pose that gives the ideal shape the mask's area and centroid.
Pose pose_from_moments(const Mask& mask, int shape, float angle) {
  const Moments& moments = moments_of(shape);
  const float radius = std::sqrt(mask.area / moments.area), cosine = std::cos(angle), sine = std::sin(angle);
  return {mask.cx - radius * (moments.cx * cosine - moments.cy * sine),
          mask.cy - radius * (moments.cx * sine + moments.cy * cosine), radius, angle};
}

struct Fit {
  int shape = -1;
  Pose pose{};
  float iou = 0;
};

Fit coarse_fit(const Mask& mask, int shape) {
  const float turn = search_turn(shape);
  const int steps = static_cast<int>(std::ceil(turn / (pi / 18)));
  Fit best{shape, {}, -1};
  for (int i = -steps; i <= steps; ++i) {
    const Pose pose = pose_from_moments(
        mask, shape, steps == 0 ? 0.0f : turn * static_cast<float>(i) / static_cast<float>(steps));
    const float iou = agreement(mask, shape, pose);
    if (iou > best.iou) best = {shape, pose, iou};
  }
  return best;
}

// Coordinate descent with halving steps.
void refine(const Mask& mask, Fit& fit) {
  const bool turns = search_turn(fit.shape) > 0;
  float step = 1;
  for (int level = 0; level < 4; ++level, step /= 2) {
    const Pose steps{0.4f * step, 0.4f * step, 0.4f * step, pi / 36 * step};
    for (float Pose::*field : {&Pose::cx, &Pose::cy, &Pose::radius, &Pose::angle}) {
      if (field == &Pose::angle && !turns) continue;
      for (const float sign : {1.0f, -1.0f}) {
        Pose moved = fit.pose;
        moved.*field += sign * steps.*field;
        const float iou = agreement(mask, fit.shape, moved);
        if (iou <= fit.iou) continue;
        fit = {fit.shape, moved, iou};
        break;
      }
    }
  }
}

// The best fit first; only the likeliest are refined.
std::vector<Fit> fit_shapes(const Mask& mask) {
  constexpr std::ptrdiff_t refined = 3;
  const auto better = [](const Fit& a, const Fit& b) { return a.iou > b.iou; };
  std::vector<Fit> fits;
  for (int shape = 0; shape < shape_count; ++shape) fits.push_back(coarse_fit(mask, shape));
  std::ranges::sort(fits, better);
  std::for_each(fits.begin(), fits.begin() + refined, [&](Fit& fit) { refine(mask, fit); });
  std::ranges::sort(fits, better);
  return fits;
}

// ---- The colour. ----

// Hue says more of a colour's name than lightness.
float naming_distance(const Lab& one, const Lab& other) {
  return std::hypot(0.6f * (one.lightness - other.lightness), one.a - other.a, one.b - other.b);
}

constexpr float farthest_colour = 0.12f;

// Sets colour and confidence; false when no named colour is near.
bool name_colour(const Rgb& fill, Verdict& verdict) {
  const Lab lab = to_oklab(fill);
  float nearest_distance = 9, second = 9;
  for (int colour = 0; colour < colour_count; ++colour) {
    const float away = naming_distance(lab, to_oklab(colour_of(colour)));
    if (away < nearest_distance) {
      second = std::exchange(nearest_distance, away);
      verdict.colour = colour;
    } else {
      second = std::min(second, away);
    }
  }
  verdict.colour_confidence = 1 - nearest_distance / second;
  return nearest_distance < farthest_colour;
}

float clutter_of(const std::vector<float>& differs, const Region& region, float contrast, float area) {
  constexpr float tolerated = 0.05f;  // as much as a picture's grain may differ from its background
  float sum = 0;
  for (size_t i = 0; i < differs.size(); ++i)
    if (region.near[i] == 0) sum += std::max(differs[i] - tolerated, 0.0f);
  return sum / (contrast * std::max(area, 1.0f));
}

// A picture, its background, and how far each pixel is from that.
struct PictureView {
  Picture picture;
  Plane plane;
  std::vector<Rgb> background;
  std::vector<float> differs;
};

PictureView view_of(const Image& image, int64_t most_side) {
  PictureView view{to_picture(image, most_side), {}, {}, {}};
  const Picture& picture = view.picture;
  view.plane = fit_background(picture);
  for (int y = 0; y < picture.height; ++y)
    for (int x = 0; x < picture.width; ++x) {
      view.background.push_back(
          view.plane.at((static_cast<float>(x) + 0.5f) / static_cast<float>(picture.width) - 0.5f,
                        (static_cast<float>(y) + 0.5f) / static_cast<float>(picture.height) - 0.5f));
      view.differs.push_back(difference(picture.at(x, y), view.background.back()));
    }
  return view;
}

// What a region shows; clutter is what differs outside it if it is the only one that should.
Verdict verdict_of(const PictureView& view, const Region& region, bool alone) {
  Verdict verdict;
  const std::vector<Rgb> core = core_colours(view.picture, region);
  if (core.size() < 2) return verdict;
  const Rgb fill = median(core);
  const Mask mask = mask_of(view.picture, view.background, region, fill);
  const std::vector<Fit> fits = fit_shapes(mask);
  const bool named = name_colour(fill, verdict);
  const Pose& pose = fits[0].pose;
  const auto width = static_cast<float>(view.picture.width);
  verdict.shape = fits[0].shape;
  verdict.iou = fits[0].iou;
  verdict.shape_confidence = (fits[0].iou - fits[1].iou) / std::max(1 - fits[1].iou, 1e-6f);
  verdict.unevenness = unevenness_of(core, fill);
  if (alone) verdict.clutter = clutter_of(view.differs, region, difference(fill, view.plane.base), mask.area);
  verdict.cx = pose.cx / width;
  verdict.cy = pose.cy / width;
  verdict.radius = pose.radius / width;
  verdict.angle = pose.angle;
  verdict.found = named && verdict.iou >= (alone ? least_iou : least_iou_of_several) &&
                  verdict.unevenness <= most_unevenness && verdict.clutter <= most_clutter;
  return verdict;
}

// Without the pixels that the object covers by less than half: soft edges are no uneven colour.
std::vector<size_t> without_rim(std::vector<size_t> component, const std::vector<float>& differs) {
  std::vector<float> sorted;
  for (const size_t i : component) sorted.push_back(differs[i]);
  const auto high = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() * 3 / 4);
  std::nth_element(sorted.begin(), high, sorted.end());
  std::erase_if(component, [&](size_t i) { return differs[i] <= *high / 2; });
  return component;
}

}  // namespace

Verdict judge(const Image& image) {
  if (image.width < 8 || image.height < 8) return {};
  const PictureView view = view_of(image, 64);
  std::vector<float> sorted = view.differs;  // the smallest shape covers a twentieth of the picture
  const auto high = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() * 97 / 100);
  std::nth_element(sorted.begin(), high, sorted.end());
  if (*high < 0.12f) return {};
  return verdict_of(view, region_of(view.picture, largest_component(view.picture, view.differs, *high / 2)),
                    true);
}

std::vector<Verdict> judge_objects(const Image& image) {
  if (image.width < 8 || image.height < 8) return {};
  const PictureView view = view_of(image, 128);
  constexpr float contrast = 0.12f;  // the palest colour is three times as far from the nearest background
  const auto least = static_cast<size_t>(std::max<int64_t>(6, view.picture.width * view.picture.height / 250));
  std::vector<Verdict> objects;
  for (const auto& component : components_of(view.picture, view.differs, contrast))
    if (component.size() >= least)
      objects.push_back(verdict_of(view, region_of(view.picture, without_rim(component, view.differs)), false));
  return objects;
}

}  // namespace linnet
