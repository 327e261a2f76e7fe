// PyTorch's own files (.pt, .pth, .bin), zip and the older format, without PyTorch: the tensors in their
// dictionaries. Nothing in such a file is run; a file that wants more than tensors, numbers, texts and plain
// containers is refused, and what it wanted is named.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace linnet {

class TorchFile {
 public:
  /// A tensor as a view of a storage, which may be shared and have gaps.
  struct Entry {
    std::string dtype_name;      ///< "float", "bfloat16", "complexfloat", ...
    std::optional<DType> dtype;  ///< none if Linnet has no such element type
    Shape shape;
    std::vector<int64_t> strides;  ///< in elements
    size_t offset = 0;             ///< of the first element in the storage, in elements
    std::span<const std::byte> storage;
  };

  static bool is_torch_file(std::span<const std::byte> bytes);
  /// Throws Error, one sentence that begins with the file's name.
  static TorchFile open(const std::filesystem::path& path);
  /// A whole file in memory, which owner keeps alive; source names it in messages.
  static TorchFile from_memory(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                               const std::string& source);

  const std::string& source() const { return source_; }
  /// False of the format before PyTorch 1.6.
  bool zipped() const { return zipped_; }
  /// In the file's order. Tensors of a dictionary in a dictionary are named by both keys: "ema/pos_embed".
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return entries_.contains(name); }
  const Entry& entry(std::string_view name) const;
  /// A view of the file where the tensor lies dense and aligned in it, else a copy.
  Tensor tensor(std::string_view name) const;

 private:
  friend class TorchFileReader;
  std::string source_;
  bool zipped_ = false;
  std::shared_ptr<const void> owner_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> names_;
};

}  // namespace linnet
