// What is often found in the place of a file that somebody fetched.
#pragma once

#include <string>
#include <string_view>

namespace linnet {

/// Throws Error when the bytes are those of a Git LFS pointer or a web page. `what` says what the file was to
/// be: "weights".
void check_no_other_kind(std::string_view bytes, const std::string& source, std::string_view what);

}  // namespace linnet
