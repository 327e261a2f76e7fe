// Memory that the address sanitizer is to report on every access; nothing without it.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define LINNET_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LINNET_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef LINNET_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

namespace linnet {

inline void poison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#ifdef LINNET_ADDRESS_SANITIZER
  ASAN_POISON_MEMORY_REGION(at, bytes);
#endif
}

inline void unpoison([[maybe_unused]] const void* at, [[maybe_unused]] size_t bytes) {
#ifdef LINNET_ADDRESS_SANITIZER
  ASAN_UNPOISON_MEMORY_REGION(at, bytes);
#endif
}

}  // namespace linnet
