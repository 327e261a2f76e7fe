// A training run's folder: what is saved when a run ends by an error.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <limits>

#include "io/safetensors.h"
#include "support/refusal.h"
#include "support/temporary_folder.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace linnet {
namespace {

class TrainingRun : public testing::Test {
 protected:
  // Two pictures a step; those of one step may be no numbers.
  void write_batches(int64_t spoilt_step = -1) const {
    const int64_t steps = 6, n = 2;
    const Shape shape{steps, n, 4, 8, 8};
    Tensor x0 = Tensor::full(shape, 0.5f);
    const int64_t each = shape.numel() / steps;
    if (spoilt_step >= 0)
      std::fill_n(x0.mutable_data<float>() + spoilt_step * each, each, std::numeric_limits<float>::quiet_NaN());
    Tensor t = Tensor::empty({steps, n}, DType::i64), y = Tensor::empty({steps, n}, DType::i64);
    std::fill_n(t.mutable_data<int64_t>(), steps * n, 500);
    std::fill_n(y.mutable_data<int64_t>(), steps * n, 1);
    write_safetensors(folder_ / "batches.safetensors",
                      {{"x0", x0}, {"noise", Tensor::full(shape, 0.1f)}, {"t", t}, {"y", y}}, {});
  }

  TrainConfig config(const std::vector<std::string>& more = {}) const {
    return parse_train_config(
        fmt::format("[data]\nreplay = '{0}/batches.safetensors'\n[train]\nsteps = 6\nbatch = 2\n[model]\n"
                    "input_size = 8\nhidden_size = 16\ndepth = 1\nnum_heads = 2\nnum_classes = 3\n"
                    "[output]\ndir = '{0}/run'\nsave_every = 100\n",
                    folder_.path().string()),
        more);
  }
  bool is_saved() const { return std::filesystem::exists(folder_ / "run" / checkpoint_name); }
  int64_t saved_step() const { return open_checkpoint(folder_ / "run" / checkpoint_name).step; }

  TemporaryFolder folder_;
};

TEST_F(TrainingRun, AnErrorOfASheetPassesOnceTheStepsAreSaved) {
  write_batches();
  RunCallbacks callbacks;
  int64_t told = 0;
  callbacks.on_sample = [](Trainer&) { fail("no sheet"); };
  callbacks.on_rescue = [&](int64_t step) { told = step; };
  test::expect_refused("no sheet", [&] { run_training(config({"output.sample_every=3"}), false, callbacks); });
  EXPECT_EQ(saved_step(), 3);
  EXPECT_EQ(told, 3);
}

TEST_F(TrainingRun, AModelThatIsNotFiniteIsNotSavedOnAnError) {
  write_batches(3);
  RunCallbacks callbacks;
  bool told = false;
  callbacks.on_rescue = [&](int64_t) { told = true; };
  test::expect_refused("no longer a number at step 4", [&] { run_training(config(), false, callbacks); });
  EXPECT_FALSE(is_saved());
  EXPECT_FALSE(told);
}

// Whether it has saved yet or not.
TEST_F(TrainingRun, ASecondRunIsRefusedWhileTheFirstWorks) {
  write_batches();
  RunCallbacks callbacks;
  std::string refusal;
  callbacks.on_step = [&](const StepMetrics&, double, double) {
    refusal = test::refusal([&] { run_training(config(), false, {}); });
  };
  run_training(config(), false, callbacks);
  EXPECT_EQ(refusal, fmt::format("another run is working in {}/run", folder_.path().string()));
  EXPECT_EQ(saved_step(), 6);
}

// Everything is permitted to the superuser, so the child stops being that.
TEST_F(TrainingRun, MetricsThatCannotBeReadStay) {
  namespace fs = std::filesystem;
  write_batches();
  run_training(config({"output.log_every=1"}), false, {});
  const fs::path metrics = folder_ / "run/metrics.jsonl";
  const auto size = fs::file_size(metrics);
  fs::permissions(metrics, fs::perms::none);
  for (const fs::path& folder : {folder_.path(), folder_ / "run"}) fs::permissions(folder, fs::perms::all);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
    const std::string sentence = test::refusal([&] { RunFolder(config(), true).begin(6); });
    ::_exit(sentence.find("metrics.jsonl: Permission denied") != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(fs::file_size(metrics), size);
  EXPECT_GT(size, 0u);
}

}  // namespace
}  // namespace linnet
