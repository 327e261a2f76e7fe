#include "train/optimizer.h"

#include "core/hash.h"
#include "ops/adamw.h"
#include "ops/matmul.h"
#include "ops/muon.h"

namespace linnet {

namespace {

float f(double value) { return static_cast<float>(value); }

}  // namespace

Optimizer::Rule Optimizer::rule_for(std::string_view optimizer, const nn::Parameter& parameter) {
  constexpr int64_t least = 16;  // rows and columns: a narrower matrix is rather a table
  if (optimizer == "came") return Rule::came;
  const Shape& shape = parameter.shape;
  const bool wide = parameter.block_matrix && shape[0] >= least && shape[1] >= least;
  return optimizer == "muon" && wide ? Rule::muon : Rule::adamw;
}

ops::CameState Optimizer::fresh_state(Rule rule, const Tensor& value) {
  if (rule == Rule::came) return ops::fresh_came_state(value.shape(), value.device());
  ops::CameState kept;
  kept.mean = Tensor::zeros(value.shape(), DType::f32, value.device());
  if (rule == Rule::adamw) kept.square = Tensor::zeros(value.shape(), DType::f32, value.device());
  return kept;
}

Optimizer::Optimizer(const nn::ParameterList& parameters, const nn::ParameterList& averages,
                     std::string_view name) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    nn::Parameter& p = *parameters[i].second;
    averages[i].second->value = p.value.clone();
    p.value.set_requires_grad(true);
    const Rule rule = rule_for(name, p);
    slots_.push_back({parameters[i].first, &p, averages[i].second, rule, fresh_state(rule, p.value)});
  }
}

void Optimizer::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter->value.clear_grad();
}

Tensor Optimizer::step(const OptimizerConfig& config, double lr, int64_t steps_done) {
  const ops::Clip clip = ops::clip_to(config.clip, gradients(), device());
  const ops::AdamWStep adamw{
      f(lr),          f(config.beta1), f(config.beta2), f(config.epsilon), f(config.weight_decay),
      steps_done + 1, f(config.ema)};
  const ops::CameStep came{f(lr),           f(config.beta1),        f(config.beta2),
                           f(config.beta3), f(config.weight_decay), f(config.ema)};
  const ops::MuonStep muon{f(lr), f(config.momentum), f(config.weight_decay), f(config.ema)};
  for (Slot& slot : slots_) {
    Tensor& value = slot.parameter->value;
    if (slot.rule == Rule::came && value.grad().defined())
      ops::came_step(came, clip.factor, value, value.grad(), slot.kept, slot.average->value);
  }
  ops::adamw_step(adamw, clip.factor, all_by(Rule::adamw));
  ops::muon_step(muon, clip.factor, all_by(Rule::muon), training_product_dtype(config));
  clear_gradients();
  return clip.norm;
}

std::vector<ops::Optimized> Optimizer::all_by(Rule rule) const {
  std::vector<ops::Optimized> result;
  for (const Slot& slot : slots_) {
    const Tensor& value = slot.parameter->value;
    if (slot.rule == rule && value.grad().defined())
      result.push_back({value, value.grad(), slot.kept.mean, slot.kept.square, slot.average->value});
  }
  return result;
}

const Device& Optimizer::device() const {
  static const Device cpu;
  return slots_.empty() ? cpu : slots_.front().parameter->value.device();
}

std::vector<Tensor> Optimizer::gradients() const {
  std::vector<Tensor> result;
  for (const Slot& slot : slots_)
    if (const Tensor g = slot.parameter->value.grad(); g.defined()) result.push_back(g.to(device()));
  return result;
}

uint64_t Optimizer::hash() const {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : state()) {
    const Tensor here = tensor.host();
    sum += hash_bytes(here.raw(), here.bytes(), nn::hash_name(name));
  }
  return sum;
}

void Optimizer::start_from(const nn::ParameterList& values) {
  const std::map<std::string, nn::Parameter*> named(values.begin(), values.end());
  for (Slot& slot : slots_) {
    const auto found = named.find(slot.name);
    if (found == named.end()) continue;
    const Tensor value = found->second->value.to(device()).to(DType::f32).detach();
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
