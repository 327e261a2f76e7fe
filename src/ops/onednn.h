// What the files that call oneDNN share: engine, stream, and the two generations of its interface. Included by
// sources only.
#pragma once

#include <dnnl.hpp>

#include "core/tensor.h"

namespace linnet::ops::onednn {

using dnnl::memory;

inline const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

inline dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

inline memory wrap(const memory::desc& desc, const void* data) {
  return {desc, engine(), const_cast<void*>(data)};
}

/// Of what products are made of: throws Error on anything but f32 and bf16.
inline memory::data_type data_type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return memory::data_type::f32;
    case DType::bf16: return memory::data_type::bf16;
    default: fail("products are in f32 or bf16, not {}", name_of(dtype));
  }
}

/// c = a·b (+ bias, if its descriptor is not empty).
inline dnnl::matmul::primitive_desc make_descriptor(const memory::desc& a, const memory::desc& b,
                                                    const memory::desc& bias, const memory::desc& c,
                                                    const dnnl::primitive_attr& attr) {
#if DNNL_VERSION_MAJOR >= 3
  if (bias.get_ndims() > 0) return {engine(), a, b, bias, c, attr};
  return {engine(), a, b, c, attr};
#else
  if (!bias.is_zero()) return {dnnl::matmul::desc(a, b, bias, c), attr, engine()};
  return {dnnl::matmul::desc(a, b, c), attr, engine()};
#endif
}

/// True if the CPU has all of an instruction set. The sets are sets of bits: a newer one has those of what it
/// includes.
inline bool have(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

}  // namespace linnet::ops::onednn
