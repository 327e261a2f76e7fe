#include "io/other_kinds.h"

#include "core/error.h"

namespace linnet {

void check_no_other_kind(std::string_view bytes, const std::string& source, std::string_view what) {
  check(!bytes.starts_with("version https://git-lfs"),
        "{}: this is a pointer of Git LFS, not the {} that it points to; \"git lfs pull\" fetches what is "
        "pointed to",
        source, what);
  check(!bytes.starts_with("<!DOCTYPE") && !bytes.starts_with("<!doctype") && !bytes.starts_with("<html"),
        "{}: this is a web page, not {}", source, what);
}

}  // namespace linnet
