#include "core/processes.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace linnet {
namespace {

std::optional<int> number_in(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return std::nullopt;
  int number = -1;
  const std::string_view all = text;
  const auto [end, problem] = std::from_chars(all.data(), all.data() + all.size(), number);
  return problem == std::errc() && end == all.data() + all.size() && number >= 0 ? std::optional(number)
                                                                                 : std::nullopt;
}

// Of a process to which a launcher gave a card of its own, this is the only one that it sees.
bool sees_one_card() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible && *visible && !std::strchr(visible, ',');
}

// Whoever told the place need not tell this one: Slurm's PMI says it by its own name alone.
int index_on_machine() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK",
                           "PALS_LOCAL_RANKID", "SLURM_LOCALID"})
    if (const auto index = number_in(name)) return *index;
  return 0;
}

}  // namespace

ProcessShare process_share() {
  constexpr std::pair<const char*, const char*> places[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                                            {"PMI_RANK", "PMI_SIZE"},
                                                            {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};
  for (const auto& [index_name, count_name] : places) {
    const auto index = number_in(index_name), count = number_in(count_name);
    if (index && count && *index < *count) return {*index, *count, index_on_machine()};
  }
  return {};
}

std::string which_process(const ProcessShare& share) {
  if (share.count == 1) return "";
  return "process " + std::to_string(share.index + 1) + " of " + std::to_string(share.count) + ": ";
}

std::string own_device(const std::string& name) {
  const ProcessShare share = process_share();
  if (share.count == 1 || name != "cuda") return name;
  return "cuda:" + std::to_string(sees_one_card() ? 0 : share.index_here);
}

}  // namespace linnet
