// What tests of both kinds of model of the public interface ask of pictures.
#pragma once

#include <linnet/linnet.h>

#include <algorithm>
#include <cstdlib>

namespace linnet::test {

/// At the value that differs most.
inline int furthest(const std::vector<Picture>& a, const std::vector<Picture>& b) {
  if (a.size() != b.size()) return 256;
  int most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].rgb.size(); ++k)
      most = std::max(most, std::abs(int{a[i].rgb[k]} - int{b[i].rgb.at(k)}));
  return most;
}

/// What comes after what when a model paints: a step, s, or a picture, its index, which is kept.
template <class AnyModel, class AnyRequest>
std::string order_of(const AnyModel& model, AnyRequest request, std::vector<Picture>& pictures) {
  std::string order;
  request.on_step = [&](int, int) {
    order += 's';
    return true;
  };
  model.paint(request, [&](Picture picture, int64_t index) {
    order += std::to_string(index);
    pictures.push_back(std::move(picture));
    return true;
  });
  return order;
}

}  // namespace linnet::test
