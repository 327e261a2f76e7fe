// Classes as people say them: "red-star", "Red Star", "3", "red-star,blue-ring".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace linnet {

/// The thousand classes of ImageNet's challenge, in the field's order.
const std::vector<std::string>& imagenet_class_names();

/// A model's own names; for want of them ImageNet's, if it has a thousand classes.
std::vector<std::string> names_of_classes(std::vector<std::string> own, int64_t count);

/// The indices of the names that hold the text, whatever its case; all of them if it is empty.
std::vector<int64_t> search_classes(std::string_view text, std::span<const std::string> names);

/// The class that text names: one of the names (case does not matter, and blanks stand for hyphens), or an
/// index 0..count-1. names may be empty. Throws UsageError that suggests the nearest name.
int64_t find_class(std::string_view text, std::span<const std::string> names, int64_t count);

/// A list with commas; a text that is itself a name with a comma in it ("tench, Tinca tinca") is that class.
std::vector<int64_t> find_classes(std::string_view text, std::span<const std::string> names, int64_t count);

/// The class's name, or its index where classes have none.
std::string class_name(int64_t index, std::span<const std::string> names);

}  // namespace linnet
