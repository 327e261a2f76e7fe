// Moving tensors from one set of names to another, one by one, so that what has no place is noticed.
#pragma once

#include <set>

#include "store/weights.h"

namespace linnet {

/// How many of blocks (or layers, levels) 0, 1, … have the tensor of that name, "{}" being the number.
int64_t count_blocks(const Weights& weights, const char* pattern);

class Renaming {
 public:
  /// from must outlive this.
  explicit Renaming(const Weights& from);

  void move(const std::string& name, const std::string& new_name);
  /// Leaves one out, which need not be there.
  void drop(const std::string& name) { left_.erase(name); }
  /// What lies there once for each name, the first of which must be there, as one. Reading it throws Error if
  /// they differ within their first 4 kB, as what was trained apart does.
  void move_alike(const std::vector<std::string>& names, const std::string& new_name);
  /// Rows of the first, then of the next, as one tensor; all of one shape and type.
  void join(const std::vector<std::string>& names, const std::string& new_name);
  /// As many equal parts of rows as there are names.
  void split(const std::string& name, const std::vector<std::string>& new_names);

  /// Throws Error naming a tensor that is left; what says in what it has no place: "a DiT".
  Weights done(std::string_view what);

 private:
  const Weights& from_;
  Weights result_;
  std::set<std::string> left_;
};

}  // namespace linnet
