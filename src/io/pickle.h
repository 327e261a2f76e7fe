// Python pickles as data: an interpreter of the opcodes that PyTorch's files use, which runs nothing. A class
// or a function in a pickle becomes a name, a call of it a node that says what would have been called with
// what; readers above decide which names they understand and refuse the rest. Format: Python's pickletools.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace linnet {

struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,
    integer,
    real,
    text,
    bytes,
    list,        ///< items
    tuple,       ///< items
    set,         ///< items
    dictionary,  ///< items: key, value, key, value, ...; also an OrderedDict and a defaultdict
    global,      ///< name: "module.name"
    call,        ///< items: callable, arguments (a tuple); then what a BUILD handed over, if any
    persistent,  ///< items: the identifier that the writer gave instead of an object
  };
  Kind kind = Kind::none;
  int64_t integer = 0;  ///< of a boolean too; integers beyond 64 bits are bytes
  double real = 0;
  std::string_view text;  ///< of texts and bytes, in the pickle's memory
  std::string name;       ///< of a global
  std::vector<const PickleValue*> items;

  bool is(Kind wanted) const { return kind == wanted; }
  /// The value under a text key of a dictionary; null if there is none.
  const PickleValue* find(std::string_view key) const;
};

/// What a pickle holds. Values may refer to each other in circles; they live as long as this does.
class Pickle {
 public:
  /// Reads one pickle and leaves the reader behind it. Throws Error, one sentence beginning with source, on
  /// what is damaged or no such pickle.
  static Pickle read(ByteReader& reader, const std::string& source);

  const PickleValue& root() const { return *root_; }
  /// Every value that was made, in the order of their making.
  const std::deque<PickleValue>& values() const { return *values_; }

 private:
  friend class PickleMachine;
  std::shared_ptr<std::deque<PickleValue>> values_;
  const PickleValue* root_ = nullptr;
};

/// What a value is, for messages: "a list", "the object posix.system".
std::string describe(const PickleValue& value);

}  // namespace linnet
