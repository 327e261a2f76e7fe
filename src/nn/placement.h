// Where a model's parameters lie while it computes on a GPU: all there, or, where the card is small, as many as
// it holds; what stays on the CPU visits the GPU for every product.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/gpu.h"
#include "nn/parameter.h"

namespace linnet::nn {

/// How often a model is called when it has been placed. Often: matrices in 8 bits are kept widened, too, and
/// what visits lies ready for it. Seldom: matrices in 8 bits are widened for each product, and what visits
/// stays what and where it is, which takes no memory.
enum class Called : uint8_t { often, seldom };

/// A matrix on the CPU as it visits soonest: in the products' type, unless it is in 8 bits, and where the GPU
/// reads by itself, if there is such memory.
inline Tensor ready_to_visit(const Tensor& matrix, DType products) {
  const Tensor wanted = matrix.dtype() == DType::i8 ? matrix : matrix.to(products);
  void* const pinned = gpu().pin(wanted.bytes());
  if (pinned == nullptr) return wanted;
  std::memcpy(pinned, wanted.raw(), wanted.bytes());
  return Tensor::borrow(pinned, wanted.shape(), wanted.dtype(), {pinned, gpu().unpin});
}

/// Moves a frozen model to a GPU. Its blocks' matrices become `products` on the way, unless they are in 8 bits,
/// so that its layers need no copy of them; those that do not fit into what the others leave of `room` bytes,
/// the last ones, stay on the CPU. Others always move, as they are: they are small, are multiplied in f32, as
/// what makes all blocks' modulation, or, as a table of words, are needed where they are looked up. Nothing
/// happens for the CPU.
template <class Module>
void place(Module& module, const Device& device, DType products, size_t room, Called called = Called::often) {
  if (!device.is_gpu()) return;
  open_gpu(device);
  module.visit("", [&](const std::string&, Parameter& p) {
    if (p.block_matrix) return;
    p.value = moved(p.value, device);
    p.scale = p.scale.to(device);
    room -= std::min(room, p.value.bytes());
  });
  module.visit("", [&](const std::string&, Parameter& p) {
    if (!p.block_matrix) return;
    const bool in_8_bits = p.value.dtype() == DType::i8;
    const size_t each = !in_8_bits ? size_of(products) : called == Called::seldom ? 1 : 1 + size_of(products);
    const size_t bytes = static_cast<size_t>(p.shape.numel()) * each;
    if (bytes > room) {
      room = 0;
      if (called == Called::often) p.value = ready_to_visit(p.value, products);
      return;
    }
    room -= bytes;
    p.value = moved(p.value, device);
    if (!in_8_bits) p.value = p.value.to(products);
    p.scale = p.scale.to(device);
  });
}

}  // namespace linnet::nn
