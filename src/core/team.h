// The processes that do one work together, as those that train one model: they add up what each has computed,
// and go on or end together. One process alone is a team, too, to which all of this costs nothing. Used by one
// thread. Calls that all must make, in the same order, are marked "collective".
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/device.h"
#include "core/mpi.h"
#include "core/processes.h"
#include "core/tensor.h"

namespace linnet {

/// Thrown where there is no more to say: this process could go on and another could not, which tells of its
/// error.
struct FailedElsewhere {
  int exit_code;
};

class Team {
 public:
  /// One process alone.
  Team() = default;
  /// Collective: all that mpirun or srun started (process_share), if they are several. Throws Error if Linnet's
  /// library for MPI is missing.
  static Team open();
  Team(Team&& other) noexcept : mpi_(std::exchange(other.mpi_, std::nullopt)) {}
  Team& operator=(Team&&) = delete;
  /// Collective if all goes well or all know that it does not; else ends the others.
  ~Team();

  /// A team of one that lives as long as the program.
  static Team& alone();

  bool is_alone() const { return !mpi_; }
  int index() const { return mpi_ ? mpi_->index : 0; }
  int count() const { return mpi_ ? mpi_->count : 1; }
  /// Whether it is this process that speaks and writes for all.
  bool leads() const { return index() == 0; }

  /// Collective: how tensors that lie there are added from here on.
  void work_on(const Device& device);
  /// Whether cards add without the processors' help.
  bool cards_talk() const { return cards_talk_; }

  /// Collective: does `work`, which must not be collective, and goes on if all could. Otherwise throws in all
  /// of them: what it threw, in the first that failed, and FailedElsewhere in the others.
  template <class Work>
  std::invoke_result_t<Work&> together(Work work);
  /// Whether all know that one has failed.
  bool has_failed() const { return failed_; }

  /// Collective: whether it is so in any process.
  bool any(bool here) const;
  /// Collective: whether all gave the same number, as of what is to be alike in all of them.
  bool all_same(uint64_t hash) const;
  /// Collective: each value becomes the sum over the processes, the same bits in all of them. Tensors of f32 on
  /// the device that was named; one that comes twice, as gradients of two parameters may be one tensor, is
  /// added once.
  void sum(std::vector<Tensor> tensors) const;
  /// Collective: returns when all have come here.
  void meet() const { any(false); }

 private:
  void settle(const std::exception_ptr& fault);

  std::optional<MpiApi> mpi_;
  bool cards_talk_ = false, failed_ = false;
};

template <class Work>
std::invoke_result_t<Work&> Team::together(Work work) {
  using Made = std::invoke_result_t<Work&>;
  if (is_alone()) return work();
  std::exception_ptr fault;
  if constexpr (std::is_void_v<Made>) {
    try {
      work();
    } catch (...) {
      fault = std::current_exception();
    }
    settle(fault);
  } else {
    std::optional<Made> made;
    try {
      made.emplace(work());
    } catch (...) {
      fault = std::current_exception();
    }
    settle(fault);
    return std::move(*made);
  }
}

}  // namespace linnet
