// A plot as SVG text: curves over two logarithmic axes, in one panel or several beside each other.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace linnet::app {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x rising; all positive
  std::vector<size_t> marked;                     ///< which of them get a ring
};

struct Panel {
  std::string title, x_label, y_label;
  std::vector<Curve> curves;
};

/// Curves of the same place in their panels have the same colour. Throws UsageError for a point that has no
/// place on a logarithmic axis.
std::string svg_plot(const std::vector<Panel>& panels);

}  // namespace linnet::app
