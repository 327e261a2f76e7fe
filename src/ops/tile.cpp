#include "ops/tile.h"

namespace linnet::ops {

bool have_pair_dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace linnet::ops
