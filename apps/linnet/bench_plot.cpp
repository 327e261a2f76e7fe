#include "bench_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace linnet::app {
namespace {

constexpr double panel_width = 460, height = 340, left = 62, right = 22, top = 38, bottom = 48;
constexpr std::array colours = {"#1f6f8b", "#d1495b", "#66a182", "#8d6a9f", "#edae49"};

// A logarithmic axis from one power of `base` to another.
class Axis {
 public:
  Axis(double base, double from, double to) : base_(base), from_(from), to_(to) {}

  void include(double value) {
    if (!(value > 0) || !std::isfinite(value))
      throw UsageError(fmt::format("{} has no place on a logarithmic axis", value));
    const double power = std::log(value) / std::log(base_);
    low_ = std::min(low_, std::floor(power + 1e-9));
    high_ = std::max({high_, std::ceil(power - 1e-9), low_ + 1});
  }
  double at(double value) const {
    return from_ + (std::log(value) / std::log(base_) - low_) / (high_ - low_) * (to_ - from_);
  }
  std::vector<double> ticks() const {
    std::vector<double> result;
    for (double power = low_; power <= high_; ++power) result.push_back(std::pow(base_, power));
    return result;
  }

 private:
  double base_, from_, to_;
  double low_ = 1e9, high_ = -1e9;
};

std::string text(double x, double y, const char* anchor, const std::string& what, const char* colour = "#333") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" fill=\"{}\">{}</text>\n", x, y, anchor,
                     colour, what);
}

std::string line(double x1, double y1, double x2, double y2) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#ddd\"/>\n", x1,
                     y1, x2, y2);
}

std::string draw(const Curve& curve, const char* colour, const Axis& x, const Axis& y) {
  std::string path, dots;
  for (size_t i = 0; i < curve.points.size(); ++i) {
    const double px = x.at(curve.points[i].first), py = y.at(curve.points[i].second);
    const bool ring = std::ranges::find(curve.marked, i) != curve.marked.end();
    path += fmt::format("{:.1f},{:.1f} ", px, py);
    dots += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" fill=\"{}\" stroke=\"{}\" stroke-width=\"2\"/>\n", px, py,
        ring ? 5 : 3, ring ? "white" : colour, colour);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n{}", path,
                     colour, dots);
}

std::string draw(const Panel& panel, double offset) {
  const double x0 = offset + left, x1 = offset + panel_width - right, y0 = height - bottom, y1 = top;
  Axis x(4, x0, x1), y(10, y0, y1);
  for (const Curve& curve : panel.curves)
    for (const auto& [px, py] : curve.points) {
      x.include(px);
      y.include(py);
    }
  std::string svg = text((x0 + x1) / 2, 20, "middle", panel.title);
  for (const double tick : x.ticks()) {
    svg += line(x.at(tick), y0, x.at(tick), y1);
    svg += text(x.at(tick), y0 + 16, "middle", fmt::format("{:g}", tick));
  }
  for (const double tick : y.ticks()) {
    svg += line(x0, y.at(tick), x1, y.at(tick));
    svg += text(x0 - 6, y.at(tick) + 4, "end", fmt::format("{:g}", tick));
  }
  svg += text((x0 + x1) / 2, height - 12, "middle", panel.x_label);
  svg += fmt::format(
      "<text x=\"{0:.1f}\" y=\"{1:.1f}\" text-anchor=\"middle\" fill=\"#333\" transform=\"rotate(-90 {0:.1f} "
      "{1:.1f})\">"
      "{2}</text>\n",
      offset + 16, (y0 + y1) / 2, panel.y_label);
  for (size_t i = 0; i < panel.curves.size(); ++i) {
    const char* colour = colours[i % colours.size()];
    svg += draw(panel.curves[i], colour, x, y);
    svg += text(x1 - 6, y1 + 16 + 16 * static_cast<double>(i), "end", panel.curves[i].name, colour);
  }
  return svg;
}

}  // namespace

std::string svg_plot(const std::vector<Panel>& panels) {
  const double width = panel_width * static_cast<double>(panels.size());
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      width, height);
  for (size_t i = 0; i < panels.size(); ++i) svg += draw(panels[i], panel_width * static_cast<double>(i));
  return svg + "</svg>\n";
}

}  // namespace linnet::app
