#include "store/metadata.h"

namespace linnet {

std::vector<std::string> read_class_names(const Weights& weights, int64_t num_classes) {
  if (!weights.metadata().contains(classes_key)) return {};
  std::vector<std::string> names = list_in_metadata(weights.metadata(), classes_key, weights.source());
  check(static_cast<int64_t>(names.size()) == num_classes, "{}: {} class names for {} classes",
        weights.source(), names.size(), num_classes);
  return names;
}

}  // namespace linnet
