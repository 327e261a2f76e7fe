// The most that this machine gives, measured beside the work: oneDNN's matrix product called directly, so that
// no flaw of Linnet's own layers lowers the ceiling with the work, and a parallel copy of memory. Of a GPU: a
// product of large square matrices by cuBLASLt, whatever the work's own shape, and a copy on the card
// (ceiling_side(), ceiling_copy_bytes()).
#pragma once

#include <memory>
#include <string>

#include "bench_timing.h"
#include "core/tensor.h"

namespace linnet::app {

/// (rows, in)·(in, out) in f32, bf16 or i8 (unsigned by signed, sums left as 32-bit integers) with every
/// operand laid out as oneDNN likes it best.
class MatmulCeiling {
 public:
  MatmulCeiling(int64_t rows, int64_t in, int64_t out, DType dtype);

  Work work(double least) const;
  double flops() const {
    return 2.0 * static_cast<double>(rows_) * static_cast<double>(in_) * static_cast<double>(out_);
  }
  /// "oneDNN 512×1152×4608 bf16"
  std::string name() const;

 private:
  struct State;
  int64_t rows_, in_, out_;
  DType dtype_;
  std::shared_ptr<State> state_;
};

/// A 3×3 convolution, channels to channels on a square picture that lies pixel by pixel, in f32 or bf16.
class ConvCeiling {
 public:
  ConvCeiling(int64_t channels, int64_t side, DType dtype);

  Work work(double least) const;
  double flops() const {
    return 18.0 * static_cast<double>(channels_ * channels_) * static_cast<double>(side_ * side_);
  }
  /// "3×3, 256 channels, 512×512 bf16"
  std::string name() const;

 private:
  struct State;
  int64_t channels_, side_;
  DType dtype_;
  std::shared_ptr<State> state_;
};

/// A copy of a buffer that no cache holds, by all threads.
class CopyCeiling {
 public:
  CopyCeiling();

  Work work(double least) const;
  /// Read and written.
  double bytes() const { return 2.0 * static_cast<double>(from_.bytes()); }
  std::string name() const { return from_.on_gpu() ? "copy on the card" : "parallel copy"; }

 private:
  Tensor from_, to_;
};

}  // namespace linnet::app
