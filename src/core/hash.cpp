#include "core/hash.h"

#include <algorithm>
#include <cstring>

#include "core/random.h"

namespace linnet {

uint64_t hash_bytes(const void* data, size_t bytes, uint64_t seed) {
  // Four independent chains, so that the multiplications of one need not wait for another's.
  uint64_t chains[4] = {seed, seed + 1, seed + 2, seed + 3};
  const auto* at = static_cast<const unsigned char*>(data);
  for (size_t block = 0; block < bytes; block += 32) {
    uint64_t words[4] = {};
    std::memcpy(words, at + block, std::min<size_t>(32, bytes - block));
    for (size_t i = 0; i < 4; ++i) {
      chains[i] = (chains[i] ^ words[i]) * 0x9e3779b97f4a7c15u;
      chains[i] ^= chains[i] >> 29;
    }
  }
  return mix(mix(chains[0], chains[1]), mix(mix(chains[2], chains[3]), bytes));
}

}  // namespace linnet
