// Amounts of memory as people write them.
#pragma once

#include <cstddef>
#include <string>

namespace linnet::app {

/// "4G", "512M", "1.5G", "100000": K, M and G are powers of 1024. Throws UsageError on anything else.
size_t bytes_from(const std::string& text);

}  // namespace linnet::app
