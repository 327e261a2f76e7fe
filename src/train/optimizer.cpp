#include "train/optimizer.h"

#include <cmath>

#include "ops/adamw.h"
#include "ops/reduce.h"

namespace linnet {

Optimizer::Optimizer(const nn::ParameterList& parameters, const nn::ParameterList& averages,
                     std::string_view name)
    : came_(name == "came") {
  for (size_t i = 0; i < parameters.size(); ++i) {
    nn::Parameter& p = *parameters[i].second;
    averages[i].second->value = p.value.clone();
    p.value.set_requires_grad(true);
    ops::CameState kept;
    if (came_) {
      kept = ops::fresh_came_state(p.shape);
    } else {
      kept.mean = Tensor::zeros(p.shape);
      kept.square = Tensor::zeros(p.shape);
    }
    slots_.push_back({parameters[i].first, &p, averages[i].second, std::move(kept)});
  }
}

void Optimizer::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter->value.clear_grad();
}

double Optimizer::step(const OptimizerConfig& config, double lr, int64_t steps_done) {
  const double norm = gradient_norm(), limit = config.clip;
  const double scale = limit > 0 && norm > limit ? limit / (norm + 1e-6) : 1.0;
  const auto f = [](double value) { return static_cast<float>(value); };
  const ops::AdamWStep adamw{
      f(lr),          f(config.beta1), f(config.beta2), f(config.epsilon), f(config.weight_decay),
      steps_done + 1, f(scale),        f(config.ema)};
  const ops::CameStep came{f(lr),    f(config.beta1), f(config.beta2), f(config.beta3), f(config.weight_decay),
                           f(scale), f(config.ema)};
  for (Slot& slot : slots_) {
    Tensor& value = slot.parameter->value;
    if (came_)
      ops::came_step(came, value, value.grad(), slot.kept, slot.average->value);
    else
      ops::adamw_step(adamw, value, value.grad(), slot.kept.mean, slot.kept.square, slot.average->value);
  }
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
  const std::map<std::string, nn::Parameter*> named(values.begin(), values.end());
  for (Slot& slot : slots_) {
    const auto found = named.find(slot.name);
    if (found == named.end()) continue;
    const Tensor value = found->second->value.to(DType::f32).detach();
    slot.parameter->value = value.clone();
    slot.parameter->value.set_requires_grad(true);
    slot.average->value = value.clone();
  }
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Slot& slot : slots_) {
    tensors.emplace_back("model." + slot.name, slot.parameter->value);
    tensors.emplace_back("ema." + slot.name, slot.average->value);
    const ops::CameState& kept = slot.kept;
    for (const auto& [kind, tensor] : {std::pair{"mean.", kept.mean},
                                       {"square.", kept.square},
                                       {"square_rows.", kept.square_rows},
                                       {"square_columns.", kept.square_columns},
                                       {"residual_rows.", kept.residual_rows},
                                       {"residual_columns.", kept.residual_columns}})
      if (tensor.defined()) tensors.emplace_back(kind + slot.name, tensor);
  }
  return tensors;
}

}  // namespace linnet
