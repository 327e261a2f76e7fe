// Temporary: parts of the table that are not written yet.
#include "cuda/kernels.h"
namespace linnet::cuda {
#define W __attribute__((weak))
W void fill(ops::PictureKernels&) {}
}  // namespace linnet::cuda
