#include "core/processes.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace linnet {
namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return std::nullopt;
  int number = -1;
  const std::string_view all = text;
  const auto [end, problem] = std::from_chars(all.data(), all.data() + all.size(), number);
  return problem == std::errc() && end == all.data() + all.size() ? std::optional(number) : std::nullopt;
}

}  // namespace

ProcessShare process_share() {
  constexpr std::pair<const char*, const char*> variables[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                                               {"PMI_RANK", "PMI_SIZE"},
                                                               {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  for (const auto& [rank, size] : variables) {
    const auto index = number_in(rank), count = number_in(size);
    if (index && count && *count >= 1 && *index >= 0 && *index < *count) return {*index, *count};
  }
  return {};
}

}  // namespace linnet
