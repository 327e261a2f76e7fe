// Parallel loops on OpenMP, the pool that oneDNN uses too, so that the two never over-subscribe the machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>

#include <omp.h>

namespace linnet {

inline int threads() { return omp_get_max_threads(); }
/// So many threads, or as many as OpenMP's limits leave, for parallel regions that this thread begins; and no
/// region gets fewer. oneDNN relies on that: it leaves out the parts of threads that it asked for and did not
/// get.
inline void set_threads(int count) {
  omp_set_dynamic(0);
  const int most = omp_get_max_active_levels() == 0 ? 1 : omp_get_thread_limit();
  omp_set_num_threads(std::clamp(count, 1, most));
}

/// Calls body(begin, end) on consecutive parts of 0..n, in parallel when n exceeds grain. Parts depend only on
/// n, grain and the number of threads. An exception in any part is thrown again here.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  if (n <= 0) return;
  const int64_t parts = std::min<int64_t>(threads(), (n + grain - 1) / std::max<int64_t>(grain, 1));
  if (parts <= 1 || omp_in_parallel()) {
    body(int64_t{0}, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(static_cast <int>(parts))
  {
    const int64_t part = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t begin = n * part / count, end = n * (part + 1) / count;
    try {
      if (begin < end) body(begin, end);
    } catch (...) {
#pragma omp critical(linnet_parallel_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace linnet
