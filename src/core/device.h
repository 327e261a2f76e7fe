// Where a tensor's memory lies. Operations look here to choose their kernel; models never do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace linnet {

struct Device {
  enum class Kind : uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  bool is_gpu() const { return kind != Kind::cpu; }
  bool operator==(const Device&) const = default;
};

/// "cpu", "cuda" or "cuda:1". Throws UsageError on others.
Device device_from_name(std::string_view name);
std::string to_string(const Device& device);

}  // namespace linnet
