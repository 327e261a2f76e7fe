// Small helpers for names that people type.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace linnet {

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to make a into b.
size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate that the name was probably meant to be: the fewest edits, the first of equals; empty when
/// every candidate differs in more than two fifths of its characters.
std::string nearest(std::string_view name, std::span<const std::string> candidates);

}  // namespace linnet
