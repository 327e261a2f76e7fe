// A model's tensors by name, whatever file they come from: safetensors (one file, or many with an index),
// PyTorch's files, or a folder as the Hub lays it out. Nothing is read before it is asked for, so a set of
// weights can be filtered, renamed and joined at no cost.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/naming.h"
#include "io/safetensors.h"
#include "io/torch_file.h"
#include "store/hub_folder.h"

namespace linnet {

class Weights {
 public:
  struct Item {
    std::string name;
    std::string dtype_name;      ///< as the file calls it
    std::optional<DType> dtype;  ///< none if Linnet has no such element type
    Shape shape;
    std::function<Tensor()> read;
    bool made = false;  ///< reading makes it, in memory of its own; else it lies in the file

    /// 0 if the type is unknown.
    size_t bytes() const { return dtype ? static_cast<size_t>(shape.numel()) * size_of(*dtype) : 0; }
  };

  /// source names the file in messages, container says what kind of file it is: "safetensors".
  explicit Weights(std::string source, std::map<std::string, std::string> metadata = {},
                   std::string container = {})
      : source_(std::move(source)), container_(std::move(container)), metadata_(std::move(metadata)) {}

  /// What is at a path: a file by its contents, a folder by weights_in(); with read_beside() in the metadata
  /// where the file is, or is called as, one of a folder. Throws Error naming what was found instead.
  static Weights open(const std::filesystem::path& path);
  static Weights of(const SafetensorsFile& file);
  static Weights of(const TorchFile& file);

  /// Of the same file, but without tensors yet: what filtering and renaming begin with.
  Weights empty_like() const;

  const std::string& source() const { return source_; }
  const std::string& container() const { return container_; }
  /// Of a training checkpoint, the set that these are: "ema", "model", ...; empty if there is but one.
  const std::string& part() const { return part_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }
  /// In the file's order.
  const std::vector<Item>& items() const { return items_; }
  bool contains(std::string_view name) const { return places_.contains(name); }
  /// Throws Error when there is no such tensor.
  const Item& item(std::string_view name) const;
  const Shape& shape(std::string_view name) const { return item(name).shape; }
  Tensor tensor(std::string_view name) const { return item(name).read(); }
  /// Of all tensors; those of an unknown type count nothing.
  size_t bytes() const;
  /// Of those that take memory of their own when they are read.
  size_t made_bytes() const;
  /// What stands before a name that is known to be there, of the first that ends in it: "first_stage_model.";
  /// none if no tensor does.
  std::optional<std::string> prefix_before(std::string_view name) const;

  /// What f gives. The sentence of an Error that it throws begins with the source in the end, so that f need
  /// not name it.
  template <class F>
  auto naming_source(F f) const {
    return naming(source_, f);
  }

  /// Throws Error when the name is taken.
  void add(Item item);

 private:
  friend Weights part_of(const Weights& all, std::string_view prefix);

  std::string source_, container_, part_;
  std::map<std::string, std::string> metadata_;
  std::vector<Item> items_;
  std::map<std::string, size_t, std::less<>> places_;
};

/// The tensor that holds the scales of a matrix in 8 bits (nn/parameter.h).
inline std::string scale_name(std::string_view name) { return std::string(name) + "_scale"; }
/// The same weights with every matrix in 8 bits as the f32 matrix that it stands for.
Weights with_float_matrices(const Weights& weights);

/// Which of a training checkpoint's two sets of weights is wanted.
enum class Choice : uint8_t { ema, raw };

/// "ema" or "raw"; throws UsageError on others.
Choice choice_from_name(std::string_view name);

/// Those whose names begin with the prefix ("ema/"), without it.
Weights part_of(const Weights& all, std::string_view prefix);

/// The model's own weights out of a training checkpoint that holds more: those under "ema", "state_dict_ema",
/// "ema_model", "ema_state_dict" or "model_ema" (or, for want of these or when raw ones are wanted, "model",
/// "state_dict", "module" or "model_state_dict"), by their plain names. Weights that are plain already come
/// back as they are. Throws Error when raw ones are wanted of a checkpoint that has only the average.
Weights model_weights(const Weights& all, Choice choice);

/// In Linnet's own training checkpoint, what the names of a text encoder that is trained along begin with.
inline constexpr const char* text_encoder_prefix = "text_encoder.";
/// One of its two sets of weights: of the transformer, and of such a text encoder.
Weights part_of_checkpoint(const Weights& checkpoint, Choice choice);

/// The weights of a file's transformer, a DiT or a PixArt, by the names that they have there: of Linnet's own
/// model files and training checkpoints, and of others' (model_weights).
Weights transformer_weights(const Weights& file, Choice choice);

}  // namespace linnet
