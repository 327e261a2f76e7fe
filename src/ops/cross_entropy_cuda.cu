// A block for each row of logits: its softmax, and −log of the label's share of it.
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace linnet::cuda {
namespace {

constexpr int threads = 256;

// The largest over all threads of a block, in every thread.
__device__ float block_max(float x) {
  __shared__ float largest[threads / warp_size];
  x = warp_max(x);
  if (threadIdx.x % warp_size == 0) largest[threadIdx.x / warp_size] = x;
  __syncthreads();
  x = largest[0];
  for (int i = 1; i < threads / warp_size; ++i) x = fmaxf(x, largest[i]);
  return x;
}

__global__ void softmax_of_rows(const float* logits, const int64_t* labels, float* shares, float* losses,
                                int64_t classes) {
  const float* const row = logits + blockIdx.x * classes;
  float* const share = shares + blockIdx.x * classes;
  float largest = row[0], sum = 0;
  for (int64_t i = threadIdx.x; i < classes; i += threads) largest = fmaxf(largest, row[i]);
  largest = block_max(largest);
  for (int64_t i = threadIdx.x; i < classes; i += threads) sum += expf(row[i] - largest);
  sum = block_sum(sum);
  for (int64_t i = threadIdx.x; i < classes; i += threads) share[i] = expf(row[i] - largest) / sum;
  if (threadIdx.x == 0) losses[blockIdx.x] = logf(sum) - (row[labels[blockIdx.x]] - largest);
}

__global__ void mean_loss(const float* losses, float* loss, int64_t n) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += threads) sum += losses[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *loss = sum / static_cast<float>(n);
}

__global__ void shares_backward(const float* g, const float* shares, const int64_t* labels, float* d, int64_t n,
                                int64_t classes) {
  const float factor = *g / static_cast<float>(n);
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < classes; i += threads)
    d[row * classes + i] = factor * (shares[row * classes + i] - (i == labels[row] ? 1.0f : 0.0f));
}

void forward(View logits, View labels, View shares, View loss, int64_t n, int64_t classes) {
  const Scratch losses(static_cast<size_t>(n) * sizeof(float));
  launch(softmax_of_rows, dim3(static_cast<unsigned>(n)), dim3(threads), 0, logits.as<float>(),
         labels.as<int64_t>(), shares.as<float>(), losses.as<float>(), classes);
  launch(mean_loss, dim3(1), dim3(threads), 0, losses.as<float>(), loss.as<float>(), n);
}

void backward(View g, View shares, View labels, View d, int64_t n, int64_t classes) {
  launch(shares_backward, dim3(static_cast<unsigned>(n)), dim3(threads), 0, g.as<float>(), shares.as<float>(),
         labels.as<int64_t>(), d.as<float>(), n, classes);
}

}  // namespace

void fill(ops::CrossEntropyKernels& table) { table = {forward, backward}; }

}  // namespace linnet::cuda
