// Where a tensor's memory lies. Operations look here to choose their kernel; models never do.
#pragma once

#include <cstdint>

namespace linnet {

struct Device {
  enum class Kind : uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

}  // namespace linnet
