#include "train/word_order.h"

#include <cmath>
#include <span>

#include "core/random.h"
#include "ops/cross_entropy.h"
#include "ops/linear.h"

namespace linnet {

// States' values are about 1, since they come from a norm, and so are their products with these.
Tensor directions_of_places(int64_t places, int64_t width) {
  Tensor directions = Tensor::empty({places, width});
  const std::span values(directions.mutable_data<float>(), static_cast<size_t>(directions.numel()));
  for (int64_t place = 0; place < places; ++place)
    Generator(mix(0, static_cast<uint64_t>(place)))
        .normal(values.subspan(static_cast<size_t>(place * width), static_cast<size_t>(width)));
  for (float& value : values) value /= std::sqrt(static_cast<float>(width));
  return directions;
}

Tensor word_order_loss(const TextStates& texts, const Tensor& directions) {
  std::vector<int64_t> places;
  for (int64_t text = 0; text < texts.count(); ++text)
    for (int64_t place = 0; place < texts.length(text); ++place) places.push_back(place);
  return ops::cross_entropy(ops::linear(texts.states, directions, {}, ops::Activation::none, DType::f32),
                            Tensor::from(places));
}

}  // namespace linnet
