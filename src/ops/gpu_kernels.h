// The kernels of the GPU, as operations call them: plain functions of memory and numbers. An operation checks
// shapes and types, makes its results, and calls one of these where its tensors lie on the GPU; each lies
// beside its operation as x_cuda.cu. All floating-point tensors may be f32, bf16 or f16 unless a comment says
// f32; sums are f32. Matrices are row-major, `n` counts elements. Gradients that are written, not added to, say
// "sets".
#pragma once

#include "core/gpu.h"
#include "ops/diffusion_terms.h"
#include "ops/matrix_view.h"

namespace linnet::ops {

enum class GpuActivation : uint8_t { silu, gelu_tanh };

struct ActivationKernels {
  void (*forward)(GpuActivation kind, View x, View y, int64_t n);
  /// Sets dx = g·f'(x).
  void (*backward)(GpuActivation kind, View x, View g, View dx, int64_t n);
  /// y = gelu_tanh(gate)·x
  void (*gated_gelu)(View gate, View x, View y, int64_t n);
  /// y = a·b
  void (*multiply)(View a, View b, View y, int64_t n);
};

/// Squares of a picture as tokens (ops/arrange.h): rows and columns count patches.
struct PatchGrid {
  int64_t batch, channels, rows, columns, patch;
};

struct ArrangeKernels {
  /// f32: a picture (batch, c, h, w) to tokens (batch, rows·columns, c·p·p), ordered (p, q, c) or (c, p, q).
  void (*to_patches)(PatchGrid grid, bool channel_last, View picture, View tokens);
  void (*from_patches)(PatchGrid grid, bool channel_last, View tokens, View picture);
  /// Columns of rows that are `from_width` and `to_width` elements of `element` bytes wide.
  void (*copy_columns)(View from, int64_t from_width, int64_t first, View to, int64_t to_width, int64_t into,
                       int64_t count, int64_t rows, int64_t element);
  /// Rows of `element` bytes cut into `count` <= most_parts parts of equal widths, each a matrix of its own.
  void (*split_columns)(View from, const View* parts, int64_t count, int64_t part_width, int64_t rows,
                        int64_t element);
  static constexpr int64_t most_parts = 8;
  /// f32 (rows, columns) → (columns, rows)
  void (*transpose)(View x, View y, int64_t rows, int64_t columns);
  /// f32: y[i] = x[i] + added[i mod period]
  void (*add_repeated)(View x, View added, View y, int64_t n, int64_t period);
  /// f32 (batch, tokens, d) → (batch, d), times factor; and back: dx[b, t, :] = g[b, :]·factor.
  void (*sum_tokens)(View x, View y, int64_t batch, int64_t tokens, int64_t d, float factor);
  void (*spread_tokens)(View g, View dx, int64_t batch, int64_t tokens, int64_t d, float factor);
  /// y (n, d) f32 = rows of a table of any float type, by indices on the GPU (i64), which have been checked.
  void (*gather_rows)(View table, View indices, View y, int64_t n, int64_t d);
  /// Adds rows of g (n, d) f32 to those of dtable f32; the same order always.
  void (*scatter_rows)(View g, View indices, View dtable, int64_t n, int64_t d);
  /// f32: (n) → (n, width), cosines then sines.
  void (*timestep_embedding)(View t, View y, int64_t n, int64_t width);
};

struct ReduceKernels {
  /// x (rows, columns) → y (columns) f32.
  void (*sum_rows)(View x, View y, int64_t rows, int64_t columns);
};

struct NormKernels {
  /// ops/layer_norm_modulate.h. statistics (batch·tokens, 2) f32 are for the way back.
  void (*modulate)(View x, View shift, View scale, float epsilon, View y, View statistics, int64_t batch,
                   int64_t tokens, int64_t d);
  /// Sets dx (of x's type) and dshift, dscale (batch, d) f32; g of any type.
  void (*modulate_backward)(View g, View x, View scale, View statistics, View dx, View dshift, View dscale,
                            int64_t batch, int64_t tokens, int64_t d);
  /// ops/gated_residual.h: out = x + gate·y; x, gate and out f32.
  void (*gated_residual)(View x, View gate, View y, View out, int64_t batch, int64_t tokens, int64_t d);
  /// Sets dy (of y's type) = g·gate and dgate (batch, d) f32 = Σ g·y; g of any type.
  void (*gated_residual_backward)(View g, View gate, View y, View dy, View dgate, int64_t batch, int64_t tokens,
                                  int64_t d);
  /// ops/residual_norm.h: sum = x + gate·branch, all but the branch f32, and its modulated norm y; of widths
  /// that joins() is true for. No gate is one of 1.
  void (*join_and_modulate)(View x, View gate, View branch, View sum, View shift, View scale, float epsilon,
                            View y, View statistics, int64_t batch, int64_t tokens, int64_t d);
  bool (*joins)(int64_t d);
  /// ops/rms_norm.h; x and weight f32, y and g of any type.
  void (*rms)(View x, View weight, float epsilon, View y, int64_t rows, int64_t d);
  /// Sets dx and dweight, f32.
  void (*rms_backward)(View x, View weight, View g, float epsilon, View dx, View dweight, int64_t rows,
                       int64_t d);
};

/// A tensor's columns from `first` on, of rows `stride` elements wide.
struct ColumnView {
  View view;
  int64_t stride = 0, first = 0;
};

/// Token sequences for softmax attention. Sequence i of queries is rows query_offsets[i] to [i + 1], likewise
/// keys; offsets lie on the GPU, and are null where all sequences are equally long.
struct GpuAttention {
  ColumnView q, k, v;  ///< of one type; heads·head_size columns each
  const int64_t *query_offsets, *key_offsets;
  int64_t sequences, queries, keys;       ///< queries and keys: of all sequences
  int64_t longest_queries, longest_keys;  ///< of any sequence
  int64_t heads, head_size;
  float scale;
  View bias;  ///< (heads, bias_width) f32 or null; see ops/ragged_attention.h
  int64_t bias_width = 0;
};

struct SoftmaxKernels {
  /// out (queries, heads·head_size) of q's type; log_sums (heads, queries) f32.
  void (*forward)(const GpuAttention& in, View out, View log_sums);
  /// Sets dq, dk, dv (columns, of q's type) and adds to dbias (f32) unless null. g of any type, like out dense.
  void (*backward)(const GpuAttention& in, View g, View out, View log_sums, ColumnView dq, ColumnView dk,
                   ColumnView dv, View dbias);
  /// probabilities = softmax(scale·scores) over each row; scores f32.
  void (*rows)(View scores, View probabilities, int64_t rows, int64_t columns, float scale);
};

enum class GpuFeatureMap : uint8_t { relu, none };

/// ops/linear_attention.h: q (batch, tokens, d), kv (batch, tokens, 2d), of one type.
struct GpuLinearAttention {
  View q, kv;
  int64_t batch, tokens, heads, head_size;
  GpuFeatureMap map;
  // The convolution over v; weight null: none.
  View weight, bias;  ///< (head_size, 1, kernel, kernel) and (head_size), f32
  int64_t rows = 0, columns = 0, kernel = 0;
};

struct LinearAttentionKernels {
  /// Bytes of state that forward() keeps for backward().
  size_t (*state_bytes)(const GpuLinearAttention& in);
  /// out (batch, tokens, d) of q's type.
  void (*forward)(const GpuLinearAttention& in, View out, void* state);
  /// Sets dq and dkv, dweight and dbias (f32, null without convolution). g, dq and dkv are of q's type.
  void (*backward)(const GpuLinearAttention& in, View g, const void* state, View dq, View dkv, View dweight,
                   View dbias);
};

struct FocusedMapKernels {
  /// ops/focused_map.h: x (batch, tokens, stride), of which the first `width` channels are mapped and the
  /// others copied; positions (tokens, width) may be null.
  void (*forward)(View x, View scale, View positions, bool gelu, View out, int64_t batch, int64_t tokens,
                  int64_t stride, int64_t width);
  /// Sets dx (of x's type), dscale and dpositions (f32; null without positions).
  void (*backward)(View g, View x, View scale, View positions, bool gelu, View dx, View dscale, View dpositions,
                   int64_t batch, int64_t tokens, int64_t stride, int64_t width);
};

struct CompressKernels {
  /// ops/compress_tokens.h: weight (size·size, d) f32, y f32.
  void (*forward)(View x, View weight, View bias, View y, int64_t batch, int64_t rows, int64_t columns,
                  int64_t size, int64_t d);
  /// Sets dx (of x's type), dweight (size·size, d) and dbias, f32. g f32.
  void (*backward)(View g, View x, View weight, View dx, View dweight, View dbias, int64_t batch, int64_t rows,
                   int64_t columns, int64_t size, int64_t d);
};

struct ProductKernels {
  /// into (rows, columns) = a·b (+ bias over columns) (then activation), or added to it. a and b of one type,
  /// bias of into's; into of theirs or f32. Neighbours lie along the rows of a and b or along their columns.
  /// f32 is f32 all through unless tf32.
  void (*matmul)(const MatrixView& a, const MatrixView& b, View bias, Activation activation, bool accumulate,
                 bool tf32, View into);
  /// kept = a·b + bias, into = gelu_tanh(kept); all of a's type.
  void (*matmul_gelu)(const MatrixView& a, const MatrixView& b, View bias, bool tf32, View kept, View into);
  /// into = (a·b)∘gelu_tanh'(kept), what goes back through that; all of a's type.
  void (*matmul_gelu_gradient)(const MatrixView& a, const MatrixView& b, bool tf32, View kept, View into);
  /// The same as matmul for `batch` products whose operands lie a_step, b_step, into_step elements apart; no
  /// bias.
  void (*matmul_batch)(const MatrixView& a, const MatrixView& b, int64_t a_step, int64_t b_step,
                       int64_t into_step, int64_t batch, bool accumulate, bool tf32, View into);
  /// ops/int8_linear.h: rows of any float type to i8 and the scale of each (f32); not finite: the scale is NaN.
  void (*quantize_rows)(View x, View values, View scales, int64_t rows, int64_t columns);
  void (*dequantize_rows)(View values, View scales, View y, int64_t rows, int64_t columns);
  /// What multiplies: "cuBLASLt 13.0.2".
  const char* (*engine)();
};

struct GpuConv {
  int64_t n, height, width, in, out;  ///< of pictures (n, height, width, in)
  int64_t kernel_height, kernel_width, stride, top, left, bottom, right;
  int64_t out_height, out_width;
  bool relu, accumulate, tf32;
};

struct PictureKernels {
  /// ops/conv2d.h: x (n, h, w, in), weight (out, kh, kw, in), bias (out) and y, all of one type.
  void (*conv)(const GpuConv& conv, View x, View weight, View bias, View y);
  /// ops/group_norm.h.
  void (*group_moments)(View x, View moments, int64_t n, int64_t pixels, int64_t channels, int64_t groups);
  void (*normalize_groups)(View x, View moments, bool shared_moments, View weight, View bias, float epsilon,
                           bool silu, View y, int64_t n, int64_t pixels, int64_t channels, int64_t groups);
  /// ops/pixels.h: (n, c, pixels) of any type ↔ (n, pixels, c).
  void (*to_pixels)(View planes, View pixels, int64_t n, int64_t channels, int64_t area);
  void (*to_planes)(View pixels, View planes, int64_t n, int64_t channels, int64_t area);
  void (*interleave)(View part, int64_t row, int64_t column, View picture, int64_t n, int64_t height,
                     int64_t width, int64_t channels);
  /// ops/pool2d.h, f32.
  void (*pool)(View x, View y, bool largest, int64_t n, int64_t height, int64_t width, int64_t channels,
               int64_t size, int64_t stride, int64_t padding, int64_t out_height, int64_t out_width);
  void (*resize_bilinear)(View x, View y, int64_t n, int64_t height, int64_t width, int64_t channels,
                          int64_t out_height, int64_t out_width);
};

struct GpuAdamW {
  float lr, beta1, beta2, epsilon, weight_decay, ema_decay;
  float correction1, correction2;  ///< 1 − β₁ᵗ and √(1 − β₂ᵗ)
};
struct GpuCame {
  float lr, beta1, beta2, beta3, weight_decay, ema_decay;
};
struct GpuMuon {
  float momentum = 0, step = 0, kept = 0, ema_decay = 0;  ///< value = kept·value − step·update
};

/// One of the parameters that a kernel works on together (ops/optimized.h), of n numbers in f32.
struct GpuParameter {
  View value, gradient, mean, square, ema;  ///< a null gradient is 0
  int64_t n = 0;
};

/// All f32 unless said. `clip` (one f32 on the GPU) is what gradients are multiplied with; a null one is 0.
struct OptimizerKernels {
  /// norm = √(Σ x²) of `count` arrays, x[i] of n[i] numbers, and clip = limit/(norm + 1e-6) where norm is above
  /// the limit, else 1, as if it is 0; the same order always.
  void (*clip_factor)(const View* x, const int64_t* n, int64_t count, float limit, View norm, View clip);
  void (*adamw)(const GpuAdamW& s, View clip, const GpuParameter* parameters, int64_t count);
  /// ops/came.h of a stack of `count` matrices (rows, columns); square_rows and so on as CameState has them,
  /// and `square` alone of a parameter of one dimension (count = 0).
  void (*came)(const GpuCame& s, View clip, View value, View gradient, View mean, View square, View square_rows,
               View square_columns, View residual_rows, View residual_columns, View ema, int64_t count,
               int64_t rows, int64_t columns, int64_t n);
  /// Muon of `count` matrices of n numbers each, before the orthogonalisation: mean = momentum·mean + clip·g,
  /// and ahead (count, n) = clip·g + momentum·mean.
  void (*muon_ahead)(const GpuMuon& s, View clip, const GpuParameter* parameters, int64_t count, View ahead);
  /// And after it: value = kept·value − step·update of (count, n), of any type, and its average.
  void (*muon_move)(const GpuMuon& s, View update, const GpuParameter* parameters, int64_t count);
  /// y (count, n), of any type: each matrix of x over its norm, or over `least` if that is larger.
  void (*divide_by_norms)(View x, float least, View y, int64_t count, int64_t n);
  /// y (count, rows, rows) = a·1 + b·gram + c·squared; squared is f32, the others of one type.
  void (*muon_polynomial)(View gram, View squared, float a, float b, float c, View y, int64_t count,
                          int64_t rows);
};

/// One of the terms of a linear combination.
struct GpuTerm {
  View x;
  float factor;
};

/// ops/combine.h; all f32.
struct CombineKernels {
  /// y = Σ factor·x, then kept within −1..1 if clipped; 1 ≤ count ≤ 4.
  void (*combine)(const GpuTerm* terms, int count, bool clipped, View y, int64_t n);
  /// y = factors[s, 0]·a + factors[s, 1]·b in the first b_width columns of rows s of a and y, which are `width`
  /// wide; y = a in the others. factors (samples, 2).
  void (*combine_rows)(View a, View b, View factors, View y, int64_t samples, int64_t width, int64_t b_width);
  /// y (samples, width) = prediction's first half of samples, its first `guided` columns as
  /// none + scale·(wanted − none), where none are the second half's.
  void (*guide)(View prediction, float scale, int64_t guided, View y, int64_t samples, int64_t width);
  /// y = mean + exp(½·l)·noise with l = f·high + (1 − f)·low, f = ½(v + 1).
  void (*add_learned_noise)(View mean, View v, View noise, float low, float high, View y, int64_t n);
};

struct GpuLoss {
  View prediction, x0, xt, noise, teacher;  ///< f32; teacher may be null
  const LossSample<float>* samples;         ///< of each picture, on the GPU
  int64_t batch, n;                         ///< n: values of a picture; a prediction has 2n if learned
  bool learned;
  float noise_weight, variance_weight;  ///< of the teacher's two terms
};

struct LossKernels {
  /// losses (batch, 4): mse, bound, noise and variance distances, 0 where there is none; total (1): the mean
  /// over the batch of their weighted sum; gradient (like prediction, or null): that of total. All f32.
  void (*diffusion)(const GpuLoss& in, View losses, View total, View gradient);
  /// y = s[0]·x, s one f32 on the GPU.
  void (*scale_by)(View x, View s, View y, int64_t n);
};

struct CrossEntropyKernels {
  /// ops/cross_entropy.h, of labels (i64) that have been checked: loss (1), shares (n, classes) the softmax;
  /// all f32.
  void (*forward)(View logits, View labels, View shares, View loss, int64_t n, int64_t classes);
  /// Sets d = g[0]/n·(shares − one-hot), g one f32.
  void (*backward)(View g, View shares, View labels, View d, int64_t n, int64_t classes);
};

struct GpuKernels {
  ActivationKernels activation;
  ArrangeKernels arrange;
  ReduceKernels reduce;
  NormKernels norm;
  SoftmaxKernels softmax;
  LinearAttentionKernels linear_attention;
  FocusedMapKernels focused_map;
  CompressKernels compress;
  ProductKernels product;
  PictureKernels picture;
  OptimizerKernels optimizer;
  CombineKernels combine;
  LossKernels loss;
  CrossEntropyKernels cross_entropy;
};

/// Of the GPU that has been opened.
inline const GpuKernels& gpu_kernels() { return *gpu().kernels; }

}  // namespace linnet::ops
