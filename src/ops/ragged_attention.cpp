#include "ops/ragged_attention.h"

#include <algorithm>
#include <array>
#include <list>
#include <mutex>

#include "core/recording.h"
#include "core/tape.h"
#include "ops/element.h"
#include "ops/ragged_attention_cpu.h"
#include "ops/softmax_gpu.h"

namespace linnet::ops {
namespace {

void check_offsets(const Offsets& offsets, int64_t tokens, int64_t least) {
  bool fits = offsets.size() >= 2 && offsets.front() == 0 && offsets.back() == tokens;
  for (size_t i = 1; fits && i < offsets.size(); ++i) fits = offsets[i] - offsets[i - 1] >= least;
  check(fits, "ragged_attention: sequences of {} tokens do not begin where it is said", tokens);
}

int64_t longest(const Offsets& offsets) {
  int64_t result = 0;
  for (size_t i = 1; i < offsets.size(); ++i) result = std::max(result, offsets[i] - offsets[i - 1]);
  return result;
}

void check_inputs(const cpu::RaggedInputs& in, const RaggedAttention& how, int64_t width) {
  const Tensor &q = in.q.tensor, &k = in.k.tensor, &v = in.v.tensor;
  for (const Tensor* tensor : {&q, &k, &v}) {
    check_type("ragged_attention", *tensor);
    check(tensor->shape().rank() == 2 && tensor->dtype() == q.dtype(),
          "ragged_attention: q, k and v are matrices of one type");
  }
  check(how.heads > 0 && width % how.heads == 0, "ragged_attention: {} heads cannot share a width of {}",
        how.heads, width);
  check_offsets(how.queries, q.size(0), 0);
  check_offsets(how.keys, k.size(0), 1);
  check(how.queries.size() == how.keys.size() && v.size(0) == k.size(0),
        "ragged_attention: queries, keys and values are not of the same sequences");
  if (!in.bias.defined()) return;
  const int64_t length = std::max(longest(how.queries), longest(how.keys));
  check(in.bias.dtype() == DType::f32 && in.bias.shape().rank() == 2 && in.bias.size(0) == how.heads &&
            in.bias.size(1) % 2 == 1 && in.bias.size(1) >= 2 * length - 1,
        "ragged_attention: a bias of shape {} does not reach over {} tokens", to_string(in.bias.shape()),
        length);
}

bool are_even(const Offsets& offsets) {
  for (size_t i = 2; i < offsets.size(); ++i)
    if (offsets[i] - offsets[i - 1] != offsets[1]) return false;
  return true;
}

// Offsets on the GPU. The same ones come again and again: from every layer of a model, and from every step of a
// sampler, so the last few are kept; a recording keeps those that it reads. What is uploaded while one is made
// belongs to it.
Tensor on_gpu(const Offsets& offsets, const Device& device) {
  struct Entry {
    Offsets offsets;
    Tensor uploaded;
  };
  constexpr size_t most = 64;
  static std::mutex mutex;
  static auto* const entries = new std::list<Entry>;  // the last one used first; outlives the GPU's library
  const std::scoped_lock lock(mutex);
  const auto found = std::find_if(entries->begin(), entries->end(), [&](const Entry& entry) {
    return entry.offsets == offsets && entry.uploaded.device() == device;
  });
  if (found != entries->end()) {
    entries->splice(entries->begin(), *entries, found);
    keep_for_recording(entries->front().uploaded);
  } else if (is_recording()) {
    return Tensor::from(offsets).to(device);
  } else {
    entries->push_front({offsets, Tensor::from(offsets).to(device)});
    if (entries->size() > most) entries->pop_back();
  }
  return entries->front().uploaded;
}

// What kernels are told, and what has to live until they are.
struct GpuCall {
  GpuAttention in{};
  Tensor query_offsets, key_offsets;
};

GpuCall call_of(const cpu::RaggedInputs& in, const RaggedAttention& how) {
  const Tensor &q = in.q.tensor, &k = in.k.tensor;
  GpuCall call;
  if (!are_even(how.queries)) call.query_offsets = on_gpu(how.queries, q.device());
  if (!are_even(how.keys)) call.key_offsets = on_gpu(how.keys, q.device());
  GpuAttention& to = call.in;
  to.q = column_view(in.q);
  to.k = column_view(in.k);
  to.v = column_view(in.v);
  to.query_offsets = call.query_offsets.view().as<const int64_t>();
  to.key_offsets = call.key_offsets.view().as<const int64_t>();
  to.sequences = static_cast<int64_t>(how.keys.size()) - 1;
  to.queries = q.size(0);
  to.keys = k.size(0);
  to.longest_queries = longest(how.queries);
  to.longest_keys = longest(how.keys);
  to.heads = how.heads;
  to.head_size = q.size(1) / how.heads;
  to.scale = how.scale;
  to.bias = in.bias.view();
  to.bias_width = in.bias.defined() ? in.bias.size(1) : 0;
  return call;
}

void forward(const cpu::RaggedInputs& in, const RaggedAttention& how, Tensor& out, Tensor& sums) {
  if (!out.on_gpu()) return cpu::ragged_attention_forward(in, how, out, sums);
  const GpuCall call = call_of(in, how);
  gpu_kernels().softmax.forward(call.in, out.view(), sums.view());
}

void backward(const Tensor& g, const cpu::RaggedInputs& in, const RaggedAttention& how, const Tensor& out,
              const Tensor& sums, cpu::RaggedInputs& into) {
  if (!out.on_gpu()) return cpu::ragged_attention_backward(g, in, how, out, sums, into);
  const GpuCall call = call_of(in, how);
  gpu_kernels().softmax.backward(call.in, g.view(), out.view(), sums.view(), column_view(into.q),
                                 column_view(into.k), column_view(into.v), into.bias.view());
}

// record(out, sums) says how gradients flow back, if any are wanted; sums are of the rows of scores.
template <class Record>
Tensor attend(const cpu::RaggedInputs& in, const RaggedAttention& how, bool records, Record record) {
  const Tensor& q = in.q.tensor;
  Tensor out = Tensor::empty({q.size(0), q.size(1)}, q.dtype(), q.device());
  // On the CPU two of each row, on the GPU log Σ exp(scores).
  const Shape shape = q.on_gpu() ? Shape{how.heads, q.size(0)} : Shape{2, how.heads, q.size(0)};
  Tensor sums = Tensor::empty(shape, DType::f32, q.device());
  forward(in, how, out, sums);
  if (records) record(out, sums);
  return out;
}

}  // namespace

Offsets even_offsets(int64_t count, int64_t length) {
  Offsets result;
  for (int64_t i = 0; i <= count; ++i) result.push_back(i * length);
  return result;
}

Tensor ragged_attention(const Tensor& q, const Tensor& kv, const RaggedAttention& how) {
  check(q.defined() && kv.defined() && q.shape().rank() == 2 && kv.shape().rank() == 2 &&
            kv.size(1) == 2 * q.size(1),
        "ragged_attention: keys and values have twice the width of the queries");
  const int64_t width = q.size(1);
  const cpu::RaggedInputs in{{q.detach()}, {kv.detach(), 0}, {kv.detach(), width}, {}};
  check_inputs(in, how, width);
  return attend(in, how, wants_grad(q, kv), [&](Tensor& out, const Tensor& sums) {
    record_backward(out, [in, how, out = out.detach(), sums, q_slot = q.grad_slot(), kv_slot = kv.grad_slot(),
                          width](const Tensor& g) {
      const Tensor &q_in = in.q.tensor, &kv_in = in.k.tensor;
      const Tensor dq = Tensor::empty(q_in.shape(), q_in.dtype(), q_in.device());
      const Tensor dkv = Tensor::empty(kv_in.shape(), kv_in.dtype(), kv_in.device());
      cpu::RaggedInputs into{{dq}, {dkv, 0}, {dkv, width}, {}};
      backward(g, in, how, out, sums, into);
      accumulate_grad(q_slot, dq);
      accumulate_grad(kv_slot, dkv);
    });
  });
}

Tensor ragged_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                        const RaggedAttention& how) {
  check(q.defined() && k.defined() && v.defined() && q.shape().rank() == 2 && k.shape().rank() == 2 &&
            k.size(1) == q.size(1) && v.shape() == k.shape(),
        "ragged_attention: queries, keys and values are of the same width");
  const cpu::RaggedInputs in{{q.detach()}, {k.detach()}, {v.detach()}, bias.detach()};
  check_inputs(in, how, q.size(1));
  return attend(in, how, wants_grad(q, k, v, bias), [&](Tensor& out, const Tensor& sums) {
    record_backward(out, [in, how, out = out.detach(), sums,
                          slots = std::array{q.grad_slot(), k.grad_slot(), v.grad_slot()},
                          bias_slot = bias.grad_slot()](const Tensor& g) {
      const auto like = [](const Tensor& x) { return Tensor::empty(x.shape(), x.dtype(), x.device()); };
      cpu::RaggedInputs into{{like(in.q.tensor)}, {like(in.k.tensor)}, {like(in.v.tensor)}, {}};
      if (bias_slot) into.bias = Tensor::zeros(in.bias.shape(), DType::f32, in.bias.device());
      backward(g, in, how, out, sums, into);
      accumulate_grad(slots[0], into.q.tensor);
      accumulate_grad(slots[1], into.k.tensor);
      accumulate_grad(slots[2], into.v.tensor);
      if (bias_slot) accumulate_grad(bias_slot, into.bias);
    });
  });
}

}  // namespace linnet::ops
