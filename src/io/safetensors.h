// Weights on disk: safetensors files, mapped, one file or many with an index; and writing them. What the
// tensors mean, and which names a model wants, is decided above. Format:
// https://github.com/huggingface/safetensors
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/file.h"
#include "io/safetensors_header.h"

namespace linnet {

/// One safetensors file. Cheap to open: the header is read and checked, data only when a tensor is touched.
class SafetensorsFile {
 public:
  using Entry = SafetensorsEntry;

  /// Throws Error with one sentence: the file, the tensor, what was expected and what was found.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// A whole file that is in memory, which owner keeps alive; source names it in messages.
  static SafetensorsFile from_memory(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                     const std::string& source);

  const std::string& source() const { return source_; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  /// In the order of the data.
  const std::vector<std::string>& names() const { return header_.names; }
  bool contains(std::string_view name) const { return header_.entries.contains(name); }
  /// Throws Error when there is no such tensor.
  const Entry& entry(std::string_view name) const;
  /// A read-only view of the file's memory, which it keeps alive (a copy if the data are not aligned to their
  /// element type). Throws Error when there is no such tensor or Linnet does not have its element type.
  Tensor tensor(std::string_view name) const;

 private:
  std::string source_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  SafetensorsHeader header_;
};

/// A model's tensors, from one file or from many with an index ("model.safetensors.index.json").
class TensorFiles {
 public:
  /// path is a safetensors file, or an index if its name ends in ".json". The index's files must lie in its own
  /// folder. Throws Error as SafetensorsFile does, and when a file lacks a tensor that the index promises.
  static TensorFiles open(const std::filesystem::path& path);

  /// Of all files; where they differ, the first one's.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// File by file (by name), each in the order of its data.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return owners_.contains(name); }
  const SafetensorsEntry& entry(std::string_view name) const { return file_of(name).entry(name); }
  Tensor tensor(std::string_view name) const { return file_of(name).tensor(name); }

 private:
  const SafetensorsFile& file_of(std::string_view name) const;
  void add(SafetensorsFile file);

  std::string source_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> names_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> owners_;  // name -> index in files_
};

/// The tensors and their files as an index says; source names it in messages. Throws Error if it is not valid
/// JSON with a weight_map from tensor names to plain file names, or names a tensor twice or too many of them.
std::map<std::string, std::string> parse_safetensors_index(std::string_view text, const std::string& source);

/// Writes tensors and metadata, byte for byte as the format's own library would (which writes metadata in
/// random order; here it is sorted). Each tensor is read when its turn comes and let go when it is written.
/// Atomic; equal input gives equal bytes. Throws Error on duplicate or impossible names, when a tensor turns
/// out not to be what its header says, and when the file cannot be written; what read() throws passes through.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;
/// The same of tensors that are there already.
void write_safetensors(const std::filesystem::path& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace linnet
