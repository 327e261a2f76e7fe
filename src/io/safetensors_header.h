// The header of a safetensors file: read with every promise of the format checked before any data is touched,
// and made. Works on memory; files are io/safetensors.h's matter.
// Format: https://github.com/huggingface/safetensors (8 bytes length, JSON header, data without gaps).
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace linnet {

/// In one file, or in all that one index names: many times those of the largest models. A header of 100 MB
/// could name millions, and each takes memory.
constexpr size_t most_tensors = 100'000;

/// What the header says of one tensor. Its data lie at begin..end (bytes) of the data area.
struct SafetensorsEntry {
  std::string dtype_name;      ///< as in the file: "F32", "BF16", "F8_E4M3", ...
  std::optional<DType> dtype;  ///< none if Linnet has no such element type
  Shape shape;
  size_t begin = 0;
  size_t end = 0;
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::map<std::string, SafetensorsEntry, std::less<>> entries;
  std::vector<std::string> names;  ///< in the order of the data
  size_t data_begin = 0;           ///< where the data area begins in the file, in bytes
};

/// Reads the header of a whole file given as bytes. Throws Error, one sentence beginning with source (the
/// file's name), unless all of this holds: the length fits the file and 100 MB; the header is a JSON object in
/// valid UTF-8 without duplicate keys, of at most 100,000 tensors; each entry has exactly dtype, shape (at most
/// six extents) and data_offsets, whose difference is the shape's size; the tensors cover the data area without
/// gap or overlap;
/// __metadata__ maps strings to strings. Element types that are unknown here are let through.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file, const std::string& source);

/// Under this metadata key stand the names of classes, as a JSON list.
inline constexpr const char* classes_key = "linnet.classes";

/// The texts of the JSON list that the metadata hold under a key; none if they do not. Throws Error, one
/// sentence beginning with source, when it is no list of texts.
std::vector<std::string> list_in_metadata(const std::map<std::string, std::string>& metadata,
                                          const std::string& key, const std::string& source);

/// A tensor that is to be written: what the header says of it, and where its values come from when its turn
/// comes.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::function<Tensor()> read;

  size_t bytes() const { return static_cast<size_t>(shape.numel()) * size_of(dtype); }
};

/// Orders tensors as the format's own library does: by alignment of the element type, largest first, then by
/// name, so that all data are aligned.
void sort_for_safetensors(std::vector<TensorToWrite>& tensors);

/// Length and header, as the file begins, of sorted tensors; a multiple of 8 bytes. Throws Error on duplicate,
/// reserved or invalid names.
std::string make_safetensors_header(const std::vector<TensorToWrite>& tensors,
                                    const std::map<std::string, std::string>& metadata);

}  // namespace linnet
