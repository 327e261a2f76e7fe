// Matrix products by cuBLASLt. Its matrices are column-major, where memory of a row-major matrix is that of its
// transpose: so C = A·B is asked for as Cᵀ = Bᵀ·Aᵀ, and a bias over C's columns is one over Cᵀ's rows. What it
// recommends for a product is kept: asking takes longer than a small product.
#include <cublasLt.h>

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "cuda/device.h"
#include "cuda/int8_rows.h"
#include "cuda/kernels.h"

namespace linnet::cuda {
namespace {

using ops::Activation;
using ops::MatrixView;

// What NVIDIA recommends for architecture 9.0; older ones want less.
constexpr size_t workspace_bytes = size_t{32} << 20;

void must(cublasStatus_t result, const char* doing) {
  if (result != CUBLAS_STATUS_SUCCESS)
    fail(std::string("cuBLASLt failed while ") + doing + ": " + cublasLtGetStatusString(result));
}

cublasLtHandle_t handle() {
  static const cublasLtHandle_t instance = [] {
    cublasLtHandle_t made = nullptr;
    must(cublasLtCreate(&made), "being started");
    return made;
  }();
  return instance;
}

void* workspace() {
  static void* const block = allocate(workspace_bytes);
  return block;
}

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    case DType::f16: return CUDA_R_16F;
    default: wrong_type(dtype);
  }
}

// The alignment of an address, as far as kernels care.
unsigned alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<unsigned>(bits & (~bits + 1));
}

// The transpose of a row-major matrix as cuBLASLt sees it: `rows` neighbours in each of `columns`, `pitch`
// apart; or the same with neighbours along the other dimension, to be transposed.
struct Operand {
  const void* data;
  DType dtype;
  int64_t rows, columns, pitch, step;
  bool transposed;
  unsigned alignment;

  auto key() const { return std::tuple(dtype, rows, columns, pitch, step, transposed, alignment); }
};

Operand operand(const MatrixView& m, int64_t step) {
  const unsigned alignment = alignment_of(m.data);
  if (m.column_stride == 1 && (m.row_stride >= m.columns || m.rows == 1))
    return {m.data, m.dtype, m.columns, m.rows, m.rows == 1 ? m.columns : m.row_stride, step, false, alignment};
  if (m.row_stride == 1 && (m.column_stride >= m.rows || m.columns == 1))
    return {m.data, m.dtype, m.rows,   m.columns, m.columns == 1 ? m.rows : m.column_stride,
            step,   true,    alignment};
  fail("a matrix for a product on the GPU needs neighbours along its rows or its columns");
}

// What is done to the sums before they are stored; of the last two `kept` is written or read.
enum class Epilogue : uint8_t { none, gelu, gelu_keeping, gelu_gradient };

struct Product {
  Operand left, right, into;  // of Cᵀ = Bᵀ·Aᵀ: B, A and C
  bool tf32;
  const void* bias = nullptr;
  Epilogue epilogue = Epilogue::none;
  void* kept = nullptr;  // laid out as `into`
  bool accumulate = false;
  int64_t batch = 1;

  auto key() const {
    return std::tuple(left.key(), right.key(), into.key(), tf32, bias ? alignment_of(bias) : 0u, epilogue,
                      kept ? alignment_of(kept) : 0u, accumulate, batch);
  }
};

// Descriptions are plain memory, and cheap to make.
struct Description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t left, right, into;
};

cublasLtEpilogue_t epilogue_of(const Product& p) {
  switch (p.epilogue) {
    case Epilogue::gelu: return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case Epilogue::gelu_keeping: return p.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case Epilogue::gelu_gradient: return CUBLASLT_EPILOGUE_DGELU;
    default: return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

template <class T>
void set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  must(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value), "describing a product");
}

cublasLtMatrixLayoutOpaque_t layout(const Operand& m, int64_t batch) {
  cublasLtMatrixLayoutOpaque_t result;
  const char* const doing = "describing a matrix";
  must(cublasLtMatrixLayoutInit(&result, type_of(m.dtype), static_cast<uint64_t>(m.rows),
                                static_cast<uint64_t>(m.columns), m.pitch),
       doing);
  if (batch == 1) return result;
  const auto count = static_cast<int32_t>(batch);
  must(cublasLtMatrixLayoutSetAttribute(&result, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
       doing);
  must(cublasLtMatrixLayoutSetAttribute(&result, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &m.step,
                                        sizeof m.step),
       doing);
  return result;
}

Description describe(const Product& p) {
  Description d;
  const bool rounds = p.tf32 && p.left.dtype == DType::f32;  // what has 16 bits is rounded already
  must(cublasLtMatmulDescInit(&d.operation, rounds ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                              CUDA_R_32F),
       "describing a product");
  set(d.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.left.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.right.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p));
  if (p.bias) {
    set(d.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    set(d.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.into.dtype));
  }
  if (p.kept) {
    set(d.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.kept);
    set(d.operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.into.pitch);
  }
  d.left = layout(p.left, p.batch);
  d.right = layout(p.right, p.batch);
  d.into = layout(p.into, p.batch);
  return d;
}

template <class T>
void prefer(cublasLtMatmulPreferenceOpaque_t& preference, cublasLtMatmulPreferenceAttributes_t attribute,
            const T& value) {
  must(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
       "describing a product");
}

// The best way that cuBLASLt knows of those that it can go, if there is one.
std::optional<cublasLtMatmulAlgo_t> recommended(const Product& p, Description& d) {
  cublasLtMatmulPreferenceOpaque_t preference;
  must(cublasLtMatmulPreferenceInit(&preference), "describing a product");
  prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(p.left.alignment));
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(p.right.alignment));
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(p.into.alignment));
  prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(p.into.alignment));
  constexpr int asked = 8;
  cublasLtMatmulHeuristicResult_t results[asked];
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle(), &d.operation, &d.left, &d.right, &d.into, &d.into, &preference, asked, results, &count);
  for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i)
    if (results[i].state == CUBLAS_STATUS_SUCCESS) return results[i].algo;
  return std::nullopt;
}

std::optional<cublasLtMatmulAlgo_t> algorithm_of(const Product& p, Description& d) {
  static std::mutex mutex;
  static auto* const known = new std::map<decltype(p.key()), std::optional<cublasLtMatmulAlgo_t>>;
  const std::scoped_lock lock(mutex);
  const auto key = p.key();
  if (const auto found = known->find(key); found != known->end()) return found->second;
  if (known->size() > 4096) known->clear();
  return known->emplace(key, recommended(p, d)).first->second;
}

// False if there is no way to compute it.
bool multiplied(const Product& p) {
  Description d = describe(p);
  const std::optional<cublasLtMatmulAlgo_t> algorithm = algorithm_of(p, d);
  if (!algorithm) return false;
  const float one = 1.0f, kept = p.accumulate ? 1.0f : 0.0f;
  void* const into = const_cast<void*>(p.into.data);
  must(cublasLtMatmul(handle(), &d.operation, &one, p.left.data, &d.left, p.right.data, &d.right, &kept, into,
                      &d.into, into, &d.into, &*algorithm, workspace(), workspace_bytes, stream()),
       "multiplying matrices");
  return true;
}

void multiply(const Product& p) {
  if (!multiplied(p))
    fail("cuBLASLt knows no way to multiply matrices of " + std::string(name_of(p.left.dtype)) + " into " +
         std::string(name_of(p.into.dtype)) + " on this GPU");
}

// With the distance from one operand to the next of a batch.
Product product_of(const MatrixView& a, const MatrixView& b, View into, bool tf32, int64_t a_step = 0,
                   int64_t b_step = 0, int64_t into_step = 0) {
  const MatrixView c{into.data, into.dtype, a.rows, b.columns, b.columns, 1};
  return {operand(b, b_step), operand(a, a_step), operand(c, into_step), tf32};
}

void matmul(const MatrixView& a, const MatrixView& b, View bias, Activation activation, bool accumulate,
            bool tf32, View into) {
  Product p = product_of(a, b, into, tf32);
  p.bias = bias.data;
  p.epilogue = activation == Activation::gelu_tanh ? Epilogue::gelu : Epilogue::none;
  p.accumulate = accumulate;
  multiply(p);
}

const ops::ActivationKernels& activations() {
  static const ops::ActivationKernels table = [] {
    ops::ActivationKernels t{};
    fill(t);
    return t;
  }();
  return table;
}

// What keeps or reads a second matrix, cuBLASLt has not for every type, shape and card.
void matmul_gelu(const MatrixView& a, const MatrixView& b, View bias, bool tf32, View kept, View into) {
  Product p = product_of(a, b, into, tf32);
  p.bias = bias.data;
  p.epilogue = Epilogue::gelu_keeping;
  p.kept = kept.data;
  if (multiplied(p)) return;
  matmul(a, b, bias, Activation::none, false, tf32, kept);
  activations().forward(ops::GpuActivation::gelu_tanh, kept, into, a.rows * b.columns);
}

void matmul_gelu_gradient(const MatrixView& a, const MatrixView& b, bool tf32, View kept, View into) {
  Product p = product_of(a, b, into, tf32);
  p.epilogue = Epilogue::gelu_gradient;
  p.kept = kept.data;
  if (multiplied(p)) return;
  matmul(a, b, {}, Activation::none, false, tf32, into);
  activations().backward(ops::GpuActivation::gelu_tanh, kept, into, into, a.rows * b.columns);
}

void matmul_batch(const MatrixView& a, const MatrixView& b, int64_t a_step, int64_t b_step, int64_t into_step,
                  int64_t batch, bool accumulate, bool tf32, View into) {
  Product p = product_of(a, b, into, tf32, a_step, b_step, into_step);
  p.accumulate = accumulate;
  p.batch = batch;
  multiply(p);
}

const char* engine() {
  static const std::string name = [] {
    const size_t version = cublasLtGetVersion();
    return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }();
  return name.c_str();
}

}  // namespace

void fill(ops::ProductKernels& table) {
  table = {matmul, matmul_gelu, matmul_gelu_gradient, matmul_batch, quantize_rows, dequantize_rows, engine};
}

}  // namespace linnet::cuda
