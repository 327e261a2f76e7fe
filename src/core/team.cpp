#include "core/team.h"

#include <bit>
#include <set>

#include "core/error.h"
#include "core/gpu.h"

namespace linnet {
namespace {

int exit_code_of(const std::exception_ptr& fault) {
  try {
    std::rethrow_exception(fault);
  } catch (const UsageError&) {
    return 2;
  } catch (...) {
    return 1;
  }
}

}  // namespace

Team Team::open() {
  Team team;
  if (process_share().count > 1) team.mpi_ = open_mpi();
  return team;
}

Team::~Team() {
  if (!mpi_) return;
  if (std::uncaught_exceptions() > 0 && !failed_)
    mpi_->abort(1);
  else
    mpi_->end();
}

Team& Team::alone() {
  static Team team;
  return team;
}

void Team::work_on(const Device& device) {
  if (is_alone() || !device.is_gpu()) return;
  const GpuApi& api = open_gpu(device);
  GpuTeamId id{};
  if (any(!api.can_team_up())) return;
  together([&] {
    if (leads()) api.make_team_id(&id);
  });
  mpi_->spread(&id, sizeof id);
  api.join_team(&id, index(), count());
  cards_talk_ = true;
}

// The first that failed gives the largest number.
void Team::settle(const std::exception_ptr& fault) {
  const int64_t worst = mpi_->largest(fault ? (count() - index()) * 4 + exit_code_of(fault) : 0);
  if (worst == 0) return;
  failed_ = true;
  if (fault && worst / 4 == count() - index()) std::rethrow_exception(fault);
  throw FailedElsewhere{static_cast<int>(worst % 4)};
}

bool Team::any(bool here) const { return mpi_ ? mpi_->largest(here ? 1 : 0) != 0 : here; }

bool Team::all_same(float value) const {
  if (is_alone()) return true;
  const int64_t bits = std::bit_cast<int32_t>(value);
  return mpi_->largest(bits) == -mpi_->largest(-bits);
}

void Team::sum(std::vector<Tensor> tensors) const {
  if (is_alone()) return;
  std::set<const void*> seen;
  std::erase_if(tensors, [&](const Tensor& t) { return !seen.insert(t.address()).second; });
  for (const Tensor& t : tensors)
    check(t.dtype() == DType::f32, "processes add f32 alone, not {}", name_of(t.dtype()));
  if (cards_talk_) {
    std::vector<float*> values;
    std::vector<size_t> sizes;
    for (const Tensor& t : tensors) {
      values.push_back(t.view().as<float>());
      sizes.push_back(static_cast<size_t>(t.numel()));
    }
    return gpu().sum_over_team(values.data(), sizes.data(), values.size());
  }
  for (Tensor& t : tensors) {
    Tensor here = t.host();
    mpi_->sum(here.mutable_data<float>(), static_cast<size_t>(here.numel()));
    if (t.on_gpu()) gpu().upload(t.view().data, here.raw(), here.bytes());
  }
}

}  // namespace linnet
