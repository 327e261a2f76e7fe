// Products of small matrices held in scratch memory as f32 with rows padded to whole vectors: the inner engine
// of both attentions. The left operand is read by strides, so that a transpose costs nothing; the right one and
// the result by whole vectors. Where the CPU multiplies pairs of bf16 (dot_pairs), operands may be held as
// pairs instead: 32 bits with two neighbours along the depth, twice as fast. Included once per instruction set.
#if defined(LINNET_OPS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LINNET_OPS_TILE_INL_H_
#undef LINNET_OPS_TILE_INL_H_
#else
#define LINNET_OPS_TILE_INL_H_
#endif

#include "ops/simd-inl.h"
#include "ops/tile.h"

HWY_BEFORE_NAMESPACE();
namespace linnet::ops::HWY_NAMESPACE {

// As many sums as fit in registers: 32 of them with AVX-512 and on Arm, 16 before.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int tile_rows = 6, tile_vectors = 4;
#else
constexpr int tile_rows = 4, tile_vectors = 3;
#endif

// What a step of the depth adds: one product of f32s, or two of bf16s.
struct Single {
  template <class V>
  static HWY_INLINE V add(V a, V b, V sum) {
    return hn::MulAdd(a, b, sum);
  }
};

// Only where have_pair_dot(). Written as the instruction because Highway 1.0 does not know it; narrower vectors
// than AVX-512's, which only tests choose there, multiply the halves.
struct Pair {
  template <class V>
  static HWY_INLINE V add(V a, V b, V sum) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
#else
    const hn::DFromV<V> d;
    const hn::Rebind<uint32_t, decltype(d)> d32;
    const auto low = [&](V v) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(d32, v))); };
    const auto high = [&](V v) HWY_ATTR {
      return hn::BitCast(d, hn::And(hn::BitCast(d32, v), hn::Set(d32, 0xffff0000u)));
    };
    return hn::MulAdd(high(a), high(b), hn::MulAdd(low(a), low(b), sum));
#endif
  }
};

template <class Step, int Rows, int Vectors>
HWY_INLINE void tile_block(const float* HWY_RESTRICT a, int64_t a_row, int64_t a_step,
                           const float* HWY_RESTRICT b, int64_t b_step, int64_t depth, float* HWY_RESTRICT c,
                           int64_t c_row, bool accumulate) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v)
      sums[r][v] = accumulate ? hn::LoadU(d, c + r * c_row + v * lanes) : hn::Zero(d);
  for (int64_t k = 0; k < depth; ++k) {
    V right[Vectors];
    for (int v = 0; v < Vectors; ++v) right[v] = hn::LoadU(d, b + k * b_step + v * lanes);
    for (int r = 0; r < Rows; ++r) {
      const V left = hn::Set(d, a[r * a_row + k * a_step]);
      for (int v = 0; v < Vectors; ++v) sums[r][v] = Step::add(left, right[v], sums[r][v]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int v = 0; v < Vectors; ++v) hn::StoreU(sums[r][v], d, c + r * c_row + v * lanes);
}

template <class Step, int Rows>
HWY_INLINE void tile_strip(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                           int64_t columns, int64_t depth, float* c, int64_t c_row, bool accumulate) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t j = 0;
  for (; j + tile_vectors * lanes <= columns; j += tile_vectors * lanes)
    tile_block<Step, Rows, tile_vectors>(a, a_row, a_step, b + j, b_step, depth, c + j, c_row, accumulate);
  for (; j + 2 * lanes <= columns; j += 2 * lanes)
    tile_block<Step, Rows, 2>(a, a_row, a_step, b + j, b_step, depth, c + j, c_row, accumulate);
  for (; j < columns; j += lanes)
    tile_block<Step, Rows, 1>(a, a_row, a_step, b + j, b_step, depth, c + j, c_row, accumulate);
}

// c (rows, columns) = or += a·b, a's element (r, k) at a[r·a_row + k·a_step], b's row k at b[k·b_step]. columns
// is a multiple of tile_padding. Walks over b in panels that stay in the first-level cache. With Pair, depth
// and strides count pairs.
template <class Step = Single>
HWY_INLINE void tile_product(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                             int64_t rows, int64_t columns, int64_t depth, float* c, int64_t c_row,
                             bool accumulate) {
  constexpr int64_t panel_depth = 128;
  for (int64_t k = 0; k < depth; k += panel_depth) {
    const int64_t part = HWY_MIN(panel_depth, depth - k);
    const float* a_part = a + k * a_step;
    const float* b_part = b + k * b_step;
    const bool add = accumulate || k > 0;
    int64_t r = 0;
    for (; r + tile_rows <= rows; r += tile_rows)
      tile_strip<Step, tile_rows>(a_part + r * a_row, a_row, a_step, b_part, b_step, columns, part,
                                  c + r * c_row, c_row, add);
    for (; r + 2 <= rows; r += 2)
      tile_strip<Step, 2>(a_part + r * a_row, a_row, a_step, b_part, b_step, columns, part, c + r * c_row,
                          c_row, add);
    for (; r < rows; ++r)
      tile_strip<Step, 1>(a_part + r * a_row, a_row, a_step, b_part, b_step, columns, part, c + r * c_row,
                          c_row, add);
  }
}

// A row of f32 or bf16 memory whose rows are `stride` values apart.
HWY_INLINE const void* row_of(const void* p, DType dtype, int64_t stride, int64_t row) {
  return static_cast<const char*>(p) + row * stride * static_cast<int64_t>(size_of(dtype));
}
HWY_INLINE void* row_of(void* p, DType dtype, int64_t stride, int64_t row) {
  return static_cast<char*>(p) + row * stride * static_cast<int64_t>(size_of(dtype));
}

HWY_INLINE void scale_values(float factor, int64_t n, float* x) {
  for_lanes(n,
            [&](auto d, int64_t i) HWY_ATTR { store(hn::Mul(load(d, x + i), hn::Set(d, factor)), d, x + i); });
}

// `rows` rows of n values, stride apart in f32 or bf16 memory, into scratch rows of `padded` f32s; the padding
// is 0.
HWY_INLINE void load_tile(const void* in, DType dtype, int64_t stride, int64_t rows, int64_t n, int64_t padded,
                          float* out) {
  with_type(in, dtype, [&](auto* x) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r) {
      for_lanes(
          n, [&](auto d, int64_t i) HWY_ATTR { store(load(d, x + r * stride + i), d, out + r * padded + i); });
      for (int64_t i = n; i < padded; ++i) out[r * padded + i] = 0.0f;
    }
  });
}

// f32 rounded to the nearest bf16 (ties to even), still as f32. NaN stays NaN.
template <class D>
HWY_INLINE Vec<D> round_to_bf16(D d, Vec<D> v) {
  const hn::Rebind<uint32_t, D> d32;
  const auto u = hn::BitCast(d32, v);
  const auto lowest = hn::And(hn::ShiftRight<16>(u), hn::Set(d32, 1u));
  const auto rounded = hn::And(hn::Add(u, hn::Add(lowest, hn::Set(d32, 0x7fffu))), hn::Set(d32, 0xffff0000u));
  return hn::IfThenElse(hn::IsNaN(v), v, hn::BitCast(d, rounded));
}

// Pairs of each row's neighbouring columns: out (rows, padded/2).
HWY_INLINE void pair_columns(const float* in, int64_t rows, int64_t padded, float* out) {
  auto* halves = reinterpret_cast<bfloat16*>(out);
  for_lanes(rows * padded, [&](auto d, int64_t i) HWY_ATTR { store(load(d, in + i), d, halves + i); });
}

// Pairs of neighbouring rows, the last of which is joined with 0 if it is alone: out ((rows + 1)/2, padded).
HWY_INLINE void pair_rows(const float* in, int64_t rows, int64_t padded, float* out) {
  for (int64_t r = 0; r < rows; r += 2)
    for_lanes(padded, [&](auto d, int64_t i) HWY_ATTR {
      const hn::Rebind<uint32_t, decltype(d)> d32;
      const float* at = in + r * padded + i;
      const auto first = round_to_bf16(d, load(d, at));
      const auto second = r + 1 < rows ? round_to_bf16(d, load(d, at + padded)) : hn::Zero(d);
      const auto upper = hn::And(hn::BitCast(d32, second), hn::Set(d32, 0xffff0000u));
      store(hn::BitCast(d, hn::Or(upper, hn::ShiftRight<16>(hn::BitCast(d32, first)))), d,
            out + r / 2 * padded + i);
    });
}

HWY_INLINE void store_tile(const float* in, int64_t padded, int64_t rows, int64_t n, void* out, DType dtype,
                           int64_t stride) {
  with_type(out, dtype, [&](auto* y) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r)
      for_lanes(
          n, [&](auto d, int64_t i) HWY_ATTR { store(load(d, in + r * padded + i), d, y + r * stride + i); });
  });
}

// out (n, padded) = inᵀ, in (rows, in_padded) of which n columns count; out's padding columns are 0.
HWY_INLINE void transpose_tile(const float* in, int64_t in_padded, int64_t rows, int64_t n, float* out,
                               int64_t padded) {
  constexpr int64_t block = 8;
  for (int64_t i0 = 0; i0 < n; i0 += block)
    for (int64_t r0 = 0; r0 < rows; r0 += block)
      for (int64_t i = i0; i < HWY_MIN(i0 + block, n); ++i)
        for (int64_t r = r0; r < HWY_MIN(r0 + block, rows); ++r) out[i * padded + r] = in[r * in_padded + i];
  for (int64_t i = 0; i < n; ++i)
    for (int64_t r = rows; r < padded; ++r) out[i * padded + r] = 0.0f;
}

}  // namespace linnet::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
