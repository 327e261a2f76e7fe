// Which sanitizer a test runs with, for what they do themselves: GCC says it by macros, Clang by features.
#pragma once

#ifdef __has_feature
#define LINNET_HAS_FEATURE(name) __has_feature(name)
#else
#define LINNET_HAS_FEATURE(name) 0
#endif

namespace linnet::test {

#if defined(__SANITIZE_THREAD__) || LINNET_HAS_FEATURE(thread_sanitizer)
constexpr bool with_thread_sanitizer = true;
#else
constexpr bool with_thread_sanitizer = false;
#endif

#if defined(__SANITIZE_ADDRESS__) || LINNET_HAS_FEATURE(address_sanitizer)
constexpr bool with_address_sanitizer = true;
#else
constexpr bool with_address_sanitizer = false;
#endif

}  // namespace linnet::test
