#include "train/optimizer.h"

#include <cmath>

#include "ops/adamw.h"
#include "ops/reduce.h"

namespace linnet {

Optimizer::Optimizer(const nn::ParameterList& parameters, const nn::ParameterList& averages) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    nn::Parameter& p = *parameters[i].second;
    averages[i].second->value = p.value.clone();
    p.value.set_requires_grad(true);
    slots_.push_back(
        {parameters[i].first, &p, averages[i].second, Tensor::zeros(p.shape), Tensor::zeros(p.shape)});
  }
}

void Optimizer::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter->value.clear_grad();
}

double Optimizer::step(const OptimizerConfig& config, double lr, int64_t steps_done) {
  const double norm = gradient_norm(), limit = config.clip;
  const double scale = limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1.0;
  const ops::AdamWStep settings{static_cast<float>(lr),
                                static_cast<float>(config.beta1),
                                static_cast<float>(config.beta2),
                                static_cast<float>(config.epsilon),
                                static_cast<float>(config.weight_decay),
                                steps_done + 1,
                                static_cast<float>(scale),
                                static_cast<float>(config.ema)};
  for (Slot& slot : slots_)
    ops::adamw_step(settings, slot.parameter->value, slot.parameter->value.grad(), slot.mean, slot.square,
                    slot.average->value);
  clear_gradients();
  return norm;
}

double Optimizer::gradient_norm() const {
  double squares = 0;
  for (const Slot& slot : slots_)
    if (const Tensor g = slot.parameter->value.grad(); g.defined()) squares += ops::sum_of_squares(g);
  return std::sqrt(squares);
}

void Optimizer::start_from(const nn::ParameterList& values) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Tensor value = values[i].second->value.to(DType::f32).detach();
    slots_[i].parameter->value = value.clone();
    slots_[i].parameter->value.set_requires_grad(true);
    slots_[i].average->value = value.clone();
  }
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Slot& slot : slots_) {
    tensors.emplace_back("model." + slot.name, slot.parameter->value);
    tensors.emplace_back("ema." + slot.name, slot.average->value);
    tensors.emplace_back("mean." + slot.name, slot.mean);
    tensors.emplace_back("square." + slot.name, slot.square);
  }
  return tensors;
}

}  // namespace linnet
