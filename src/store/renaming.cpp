#include "store/renaming.h"

#include <algorithm>
#include <cstring>

#include "io/text.h"

namespace linnet {
namespace {

Tensor join_rows(const std::vector<Tensor>& parts) {
  std::vector<int64_t> extents(parts[0].shape().begin(), parts[0].shape().end());
  extents[0] = 0;
  for (const Tensor& part : parts) extents[0] += part.size(0);
  Tensor result = Tensor::empty(Shape(extents), parts[0].dtype());
  auto* out = static_cast<char*>(result.mutable_raw());
  for (const Tensor& part : parts) {
    std::memcpy(out, part.raw(), part.bytes());
    out += part.bytes();
  }
  return result;
}

bool begins_alike(const Tensor& a, const Tensor& b) {
  constexpr size_t looked_at = 4096;
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), std::min(looked_at, a.bytes())) == 0;
}

}  // namespace

int64_t count_blocks(const Weights& weights, const char* pattern) {
  int64_t count = 0;
  while (weights.contains(fmt::format(fmt::runtime(pattern), count))) ++count;
  return count;
}

Renaming::Renaming(const Weights& from) : from_(from), result_(from.empty_like()) {
  for (const Weights::Item& item : from.items()) left_.insert(item.name);
}

void Renaming::move(const std::string& name, const std::string& new_name) {
  Weights::Item item = from_.item(name);
  item.name = new_name;
  result_.add(std::move(item));
  left_.erase(name);
}

void Renaming::move_alike(const std::vector<std::string>& names, const std::string& new_name) {
  Weights::Item item = from_.item(names[0]);
  std::vector<Weights::Item> others;
  for (const std::string& name : names) {
    left_.erase(name);
    if (from_.contains(name)) others.push_back(from_.item(name));
  }
  item.name = new_name;
  item.read = [others, source = from_.source()] {
    const Tensor first = others[0].read();
    for (const Weights::Item& other : others)
      check(begins_alike(first, other.read()),
            "{}: tensors '{}' and '{}' differ, and stand for one that all blocks share in Linnet's models",
            source, printable(others[0].name), printable(other.name));
    return first;
  };
  result_.add(std::move(item));
}

void Renaming::join(const std::vector<std::string>& names, const std::string& new_name) {
  Weights::Item item = from_.item(names[0]);
  std::vector<std::function<Tensor()>> reads;
  int64_t rows = 0;
  for (const std::string& name : names) {
    const Weights::Item& part = from_.item(name);
    check(part.shape == item.shape && part.dtype_name == item.dtype_name && part.shape.rank() > 0,
          "{}: tensors '{}' and '{}' differ in shape or type", from_.source(), printable(names[0]),
          printable(name));
    rows += part.shape[0];
    reads.push_back(part.read);
    left_.erase(name);
  }
  std::vector<int64_t> extents(item.shape.begin(), item.shape.end());
  extents[0] = rows;
  item.name = new_name;
  item.shape = Shape(extents);
  item.made = true;
  item.read = [reads] {
    std::vector<Tensor> parts;
    for (const auto& read : reads) parts.push_back(read());
    return join_rows(parts);
  };
  result_.add(std::move(item));
}

void Renaming::split(const std::string& name, const std::vector<std::string>& new_names) {
  const Weights::Item& whole = from_.item(name);
  const auto parts = static_cast<int64_t>(new_names.size()), rows = whole.shape[0] / parts;
  check(whole.shape.rank() > 0 && whole.shape[0] == rows * parts,
        "{}: tensor '{}' of shape {} has no {} equal parts", from_.source(), printable(name),
        to_string(whole.shape), parts);
  std::vector<int64_t> extents(whole.shape.begin(), whole.shape.end());
  extents[0] = rows;
  for (int64_t i = 0; i < parts; ++i)
    result_.add({new_names[static_cast<size_t>(i)], whole.dtype_name, whole.dtype, Shape(extents),
                 [read = whole.read, i, rows] { return read().rows(i * rows, (i + 1) * rows); }});
  left_.erase(name);
}

Weights Renaming::done(std::string_view what) {
  check(left_.empty(), "{}: tensor '{}' has no place in {}", from_.source(),
        left_.empty() ? "" : printable(*left_.begin()), what);
  return std::move(result_);
}

}  // namespace linnet
