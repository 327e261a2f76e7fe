// What the files that call oneDNN share: engine, stream, its errors as Linnet's, and the two generations of its
// interface. Included by sources only.
#pragma once

#include <sys/mman.h>

#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

#include <dnnl.hpp>

#include "core/memory.h"
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

/// What work() returns. Where it throws because oneDNN refuses, or finds no memory, that becomes Error or
/// OutOfMemory.
template <class Work>
auto translated(const Work& work) {
  constexpr const char* no_memory = "out of memory: none is left for oneDNN to work in";
  try {
    return work();
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw OutOfMemory(no_memory);
    fail("oneDNN cannot do on this processor what was asked of it: {}", error.message);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(no_memory);
  }
}

/// To be called before a primitive is made, which is code: oneDNN writes it without looking whether it got
/// memory for it. Throws OutOfMemory, or Error where the system lets no program make code.
inline void expect_room_for_code() {
  constexpr size_t room = 4 << 20;
  const auto map = [] {
    return ::mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  };
  void* at = map();
  if (at == MAP_FAILED) {
    release_cached_memory();
    at = map();
  }
  if (at == MAP_FAILED) throw OutOfMemory("out of memory: none is left for the code that oneDNN makes");
  const bool allowed = ::mprotect(at, room, PROT_READ | PROT_WRITE | PROT_EXEC) == 0;
  ::munmap(at, room);
  check(allowed,
        "this system lets no program make code of its own, as oneDNN does (systemd's MemoryDenyWriteExecute, "
        "SELinux's execmem)");
}

inline memory wrap(const memory::desc& desc, const void* data) {
  return translated([&] { return memory(desc, engine(), const_cast<void*>(data)); });
}

/// Of what products are made of: throws Error on anything but f32 and bf16.
inline memory::data_type data_type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return memory::data_type::f32;
    case DType::bf16: return memory::data_type::bf16;
    default: fail("products are in f32 or bf16, not {}", name_of(dtype));
  }
}

/// A picture (n, height, width, channels), its extents in oneDNN's order.
inline memory::desc picture(const Shape& shape, DType dtype) {
  return {{shape[0], shape[3], shape[1], shape[2]}, data_type_of(dtype), memory::format_tag::nhwc};
}

/// Attributes of a primitive that run() executes: it brings its own working memory. oneDNN's lies with the
/// thread that made the primitive, and so is too small, or not there, on another.
inline dnnl::primitive_attr with_own_memory(dnnl::primitive_attr attr = {}) {
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

/// So many bytes that this thread may work in until its next call.
inline void* working_memory(size_t bytes) {
  constexpr size_t page = 4096;
  thread_local std::vector<std::byte> buffer;
  if (buffer.size() < bytes + page) buffer = std::vector<std::byte>(bytes + page);
  void* begin = buffer.data();
  size_t room = buffer.size();
  return std::align(page, bytes, begin, room);
}

/// Executes a primitive that was made with_own_memory, and waits for it. Any thread may.
inline void run(const dnnl::primitive& primitive, std::unordered_map<int, memory> arguments) {
  translated([&] {
    const auto* wanted =
        dnnl_primitive_desc_query_md(primitive.get_primitive_desc(), dnnl_query_scratchpad_md, 0);
    const auto bytes = static_cast<memory::dim>(wanted ? dnnl_memory_desc_get_size(wanted) : 0);
    if (bytes > 0)
      arguments.emplace(DNNL_ARG_SCRATCHPAD, wrap({{bytes}, memory::data_type::u8, memory::format_tag::a},
                                                  working_memory(static_cast<size_t>(bytes))));
    primitive.execute(stream(), arguments);
    stream().wait();
  });
}

/// c = a·b (+ bias, if its descriptor is not empty), for run().
inline dnnl::matmul::primitive_desc make_descriptor(const memory::desc& a, const memory::desc& b,
                                                    const memory::desc& bias, const memory::desc& c,
                                                    const dnnl::primitive_attr& given) {
  expect_room_for_code();
  return translated([&]() -> dnnl::matmul::primitive_desc {
    const dnnl::primitive_attr attr = with_own_memory(given);
#if DNNL_VERSION_MAJOR >= 3
    if (bias.get_ndims() > 0) return {engine(), a, b, bias, c, attr};
    return {engine(), a, b, c, attr};
#else
    if (!bias.is_zero()) return {dnnl::matmul::desc(a, b, bias, c), attr, engine()};
    return {dnnl::matmul::desc(a, b, c), attr, engine()};
#endif
  });
}

/// True if the CPU has all of an instruction set. The sets are sets of bits: a newer one has those of what it
/// includes.
inline bool have(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

}  // namespace linnet::ops::onednn
