// Where a model's parameters lie while it computes on a GPU: all there, or, where the card is small, as many as
// it holds; what stays on the CPU visits the GPU for every product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "nn/parameter.h"

namespace linnet::nn {

/// Whether a parameter is a matrix of a block's linear layer, which may stay on the CPU. Others always move:
/// they are small, or, as a table of words, needed where they are looked up.
inline bool may_visit(std::string_view name, const Shape& shape) {
  return shape.rank() == 2 && name.find("block") != std::string_view::npos && name.ends_with(".weight") &&
         name.find("relative_attention_bias") == std::string_view::npos;
}

/// What layers do with matrices in 8 bits: keep them widened, too, or, if streamed, widen them for each
/// product.
enum class EightBits : uint8_t { widened, streamed };

/// Moves a frozen model to a GPU. Its blocks' matrices become `products` on the way, unless they are in 8 bits,
/// so that its layers need no copy of them; those that do not fit into what the others leave of `room` bytes,
/// the last ones, stay where and what they are. Nothing happens for the CPU.
template <class Module>
void place(Module& module, const Device& device, DType products, size_t room,
           EightBits eight_bits = EightBits::widened) {
  if (!device.is_gpu()) return;
  module.visit("", [&](const std::string& name, Parameter& p) {
    if (may_visit(name, p.shape)) return;
    p.value = p.value.to(device);
    p.scale = p.scale.to(device);
    room -= std::min(room, p.value.bytes());
  });
  module.visit("", [&](const std::string& name, Parameter& p) {
    if (!may_visit(name, p.shape)) return;
    const bool in_8_bits = p.value.dtype() == DType::i8;
    const size_t each = !in_8_bits                          ? size_of(products)
                        : eight_bits == EightBits::streamed ? 1
                                                            : 1 + size_of(products);
    const size_t bytes = static_cast<size_t>(p.shape.numel()) * each;
    if (bytes > room) {
      room = 0;
      return;
    }
    room -= bytes;
    p.value = p.value.to(device);
    if (!in_8_bits) p.value = p.value.to(products);
    p.scale = p.scale.to(device);
  });
}

}  // namespace linnet::nn
