// Telling memory apart by its contents. No defence against forgery.
#pragma once

#include <cstddef>
#include <cstdint>

namespace linnet {

/// A function of the bytes and the seed, alike on all machines of one byte order.
uint64_t hash_bytes(const void* data, size_t bytes, uint64_t seed);

}  // namespace linnet
