// Both attentions straight from their formulas, in double precision, with their gradients derived by hand;
// slow.
#pragma once

#include "ops/linear_attention.h"
#include "ops/support.h"

namespace linnet::ops::test {

struct AttentionShape {
  int64_t batch, tokens, width, heads;
  int64_t head_size() const { return width / heads; }
};

/// The values under `count` columns from `first` of a (batch, tokens, row) array, for one head: (tokens,
/// head_size).
inline Values head_of(const Values& x, const AttentionShape& s, int64_t sample, int64_t row, int64_t first) {
  Values result;
  for (int64_t t = 0; t < s.tokens; ++t)
    for (int64_t i = 0; i < s.head_size(); ++i)
      result.push_back(x[static_cast<size_t>((sample * s.tokens + t) * row + first + i)]);
  return result;
}

inline void put_head(const Values& head, const AttentionShape& s, int64_t sample, int64_t row, int64_t first,
                     Values& x) {
  for (int64_t t = 0; t < s.tokens; ++t)
    for (int64_t i = 0; i < s.head_size(); ++i)
      x[static_cast<size_t>((sample * s.tokens + t) * row + first + i)] =
          head[static_cast<size_t>(t * s.head_size() + i)];
}

/// a (n, k) · b (k, m), each optionally transposed in memory.
inline Values product(const Values& a, const Values& b, int64_t n, int64_t k, int64_t m, bool a_transposed,
                      bool b_transposed) {
  Values c(static_cast<size_t>(n * m), 0.0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t l = 0; l < k; ++l) {
      const double left = a[static_cast<size_t>(a_transposed ? l * n + i : i * k + l)];
      for (int64_t j = 0; j < m; ++j)
        c[static_cast<size_t>(i * m + j)] +=
            left * b[static_cast<size_t>(b_transposed ? j * k + l : l * m + j)];
    }
  return c;
}

struct HeadGradients {
  Values out, dq, dk, dv;
};

/// o = q̂ (k̂ᵀv) / (q̂ · Σk̂) and its gradients for an output gradient g (no gradients when g is empty).
inline HeadGradients linear_attention_head(Values q, Values k, const Values& v, const Values& g, int64_t n,
                                           int64_t d, FeatureMap map) {
  const bool relu = map == FeatureMap::relu;
  const Values q_in = q, k_in = k;
  if (relu) {
    for (double& x : q) x = std::max(x, 0.0) + 1e-6;
    for (double& x : k) x = std::max(x, 0.0) + 1e-6;
  }
  const Values state = product(k, v, d, n, d, true, false), ones(static_cast<size_t>(n), 1.0);
  const Values total = product(ones, k, 1, n, d, false, false);
  Values z = product(q, total, n, d, 1, false, false);
  if (!relu)
    for (double& x : z) x += std::copysign(1e-6 * static_cast<double>(n), x);
  HeadGradients result;
  result.out = product(q, state, n, d, d, false, false);
  for (size_t i = 0; i < result.out.size(); ++i) result.out[i] /= z[i / static_cast<size_t>(d)];
  if (g.empty()) return result;
  Values scaled = g, dz(static_cast<size_t>(n), 0.0);  // g/z, and d loss/dz
  for (size_t i = 0; i < g.size(); ++i) {
    const size_t t = i / static_cast<size_t>(d);
    scaled[i] /= z[t];
    dz[t] -= g[i] * result.out[i] / z[t];
  }
  result.dq = product(scaled, state, n, d, d, false, true);
  const Values dstate = product(q, scaled, d, n, d, true, false),
               dtotal = product(dz, q, 1, n, d, false, false);
  result.dk = product(v, dstate, n, d, d, false, true);
  result.dv = product(k, dstate, n, d, d, false, false);
  for (size_t i = 0; i < g.size(); ++i) {
    const size_t t = i / static_cast<size_t>(d), c = i % static_cast<size_t>(d);
    result.dq[i] = !relu || q_in[i] > 0 ? result.dq[i] + dz[t] * total[c] : 0.0;
    result.dk[i] = !relu || k_in[i] > 0 ? result.dk[i] + dtotal[c] : 0.0;
  }
  return result;
}

/// softmax(q kᵀ/√d) of n queries and m keys: (n, m).
inline Values softmax_weights(const Values& q, const Values& k, int64_t n, int64_t m, int64_t d) {
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  Values p = product(q, k, n, d, m, false, true);
  for (int64_t i = 0; i < n; ++i) {
    double* row = p.data() + i * m;
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < m; ++j) top = std::max(top, row[j] * scale);
    for (int64_t j = 0; j < m; ++j) sum += row[j] = std::exp(row[j] * scale - top);
    for (int64_t j = 0; j < m; ++j) row[j] /= sum;
  }
  return p;
}

/// o = softmax(q kᵀ/√d) v and its gradients.
inline HeadGradients softmax_attention_head(const Values& q, const Values& k, const Values& v, const Values& g,
                                            int64_t n, int64_t d) {
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  const Values p = softmax_weights(q, k, n, n, d);
  HeadGradients result;
  result.out = product(p, v, n, n, d, false, false);
  if (g.empty()) return result;
  result.dv = product(p, g, n, n, d, true, false);
  Values ds = product(g, v, n, d, n, false, true);
  for (int64_t i = 0; i < n; ++i) {
    double along = 0;
    for (int64_t c = 0; c < d; ++c)
      along += g[static_cast<size_t>(i * d + c)] * result.out[static_cast<size_t>(i * d + c)];
    for (int64_t j = 0; j < n; ++j) {
      double& x = ds[static_cast<size_t>(i * n + j)];
      x = p[static_cast<size_t>(i * n + j)] * (x - along) * scale;
    }
  }
  result.dq = product(ds, k, n, n, d, false, false);
  result.dk = product(ds, q, n, n, d, true, false);
  return result;
}

/// Features of which half are negative, though too small to cancel the others: sums near 0 have no digits to
/// compare.
inline Tensor random_features(const Shape& shape, uint64_t seed, DType dtype) {
  Tensor result = random(shape, seed);
  for (float& x : std::span(result.mutable_data<float>(), static_cast<size_t>(result.numel())))
    x = x > 0 ? 0.1f + x * x * x : 0.005f * x;
  return result.to(dtype);
}

/// q or kv for attention with that feature map.
inline Tensor random_for(FeatureMap map, const Shape& shape, uint64_t seed, DType dtype) {
  return map == FeatureMap::relu ? random(shape, seed, dtype) : random_features(shape, seed, dtype);
}

/// out (batch, tokens, width), and gradients laid out like q and kv.
struct LinearAttention {
  Values out, dq, dkv;
};

inline LinearAttention linear_attention_reference(const AttentionShape& s, const Values& q, const Values& kv,
                                                  const Values& g, FeatureMap map = FeatureMap::relu) {
  LinearAttention result{Values(q.size()), Values(q.size()), Values(kv.size())};
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t first = h * s.head_size();
      const auto head =
          linear_attention_head(head_of(q, s, b, s.width, first), head_of(kv, s, b, 2 * s.width, first),
                                head_of(kv, s, b, 2 * s.width, s.width + first),
                                g.empty() ? g : head_of(g, s, b, s.width, first), s.tokens, s.head_size(), map);
      put_head(head.out, s, b, s.width, first, result.out);
      if (g.empty()) continue;
      put_head(head.dq, s, b, s.width, first, result.dq);
      put_head(head.dk, s, b, 2 * s.width, first, result.dkv);
      put_head(head.dv, s, b, 2 * s.width, s.width + first, result.dkv);
    }
  return result;
}

struct SoftmaxAttention {
  Values out, dqkv;
};

inline SoftmaxAttention softmax_attention_reference(const AttentionShape& s, const Values& qkv,
                                                    const Values& g) {
  SoftmaxAttention result{Values(qkv.size() / 3), Values(qkv.size())};
  const int64_t row = 3 * s.width;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t first = h * s.head_size();
      const auto head =
          softmax_attention_head(head_of(qkv, s, b, row, first), head_of(qkv, s, b, row, s.width + first),
                                 head_of(qkv, s, b, row, 2 * s.width + first),
                                 g.empty() ? g : head_of(g, s, b, s.width, first), s.tokens, s.head_size());
      put_head(head.out, s, b, s.width, first, result.out);
      if (g.empty()) continue;
      put_head(head.dq, s, b, row, first, result.dqkv);
      put_head(head.dk, s, b, row, s.width + first, result.dqkv);
      put_head(head.dv, s, b, row, 2 * s.width + first, result.dqkv);
    }
  return result;
}

/// out (batch, n, width) of n queries over m keys and values of their own.
inline Values softmax_attention_apart(const AttentionShape& s, int64_t m, const Values& q, const Values& k,
                                      const Values& v) {
  AttentionShape keys = s;
  keys.tokens = m;
  Values out(q.size());
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t first = 0; first < s.width; first += s.head_size()) {
      const Values p = softmax_weights(head_of(q, s, b, s.width, first), head_of(k, keys, b, s.width, first),
                                       s.tokens, m, s.head_size());
      put_head(product(p, head_of(v, keys, b, s.width, first), s.tokens, m, s.head_size(), false, false), s, b,
               s.width, first, out);
    }
  return out;
}

}  // namespace linnet::ops::test
