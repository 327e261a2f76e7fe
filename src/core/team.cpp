#include "core/team.h"

#include <map>

#include "core/error.h"
#include "core/gpu.h"
#include "core/random.h"

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
  together([&] { api.join_team(&id, index(), count()); });  // which fails in all of them, or waits
  cards_talk_ = true;
}

// The first that failed gives the largest number, which also holds its exit code, 1 or 2.
void Team::settle(const std::exception_ptr& fault) {
  constexpr int64_t codes = 4;
  const int64_t processes_from_here = count() - index();
  const int64_t worst = mpi_->largest(fault ? processes_from_here * codes + exit_code_of(fault) : 0);
  if (worst == 0) return;
  failed_ = true;
  if (fault && worst / codes == processes_from_here) std::rethrow_exception(fault);
  throw FailedElsewhere{static_cast<int>(worst % codes)};
}

bool Team::any(bool here) const { return mpi_ ? mpi_->largest(here ? 1 : 0) != 0 : here; }

bool Team::all_same(uint64_t hash) const {
  if (is_alone()) return true;
  // Without a bit, so that it has a negative; mixed, as a count's lowest bit must not be the one that goes.
  const auto positive = static_cast<int64_t>(mix(hash, 0) >> 1);
  return mpi_->largest(positive) == -mpi_->largest(-positive);
}

void Team::sum(std::vector<Tensor> tensors) const {
  if (is_alone()) return;
  std::map<const void*, int64_t> seen;
  std::erase_if(tensors, [&](const Tensor& t) {
    const auto [place, is_new] = seen.emplace(t.address(), t.numel());
    check(is_new || place->second == t.numel(), "tensors of two sizes share memory that is to be added");
    return !is_new;
  });
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
