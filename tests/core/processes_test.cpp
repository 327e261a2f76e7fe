#include "core/processes.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

namespace linnet {
namespace {

using Variables = std::map<std::string, std::string>;

// What a process thinks of its place where these variables are set and no others of launchers.
class Launched : public testing::Test {
 protected:
  ~Launched() override { forget(); }
  static void forget() {
    for (const char* name :
         {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_RANK", "PMI_SIZE",
          "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS",
          "SLURM_NTASKS", "SLURM_LOCALID", "CUDA_VISIBLE_DEVICES"})
      ::unsetenv(name);
  }
  static void launch(const Variables& variables) {
    forget();
    for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  }
  static void expect_place(const Variables& variables, int index, int count, int index_here) {
    launch(variables);
    const ProcessShare share = process_share();
    EXPECT_EQ(share.index, index);
    EXPECT_EQ(share.count, count);
    EXPECT_EQ(share.index_here, index_here);
  }
};

TEST_F(Launched, ByEachKnownLauncherKnowsItsPlace) {
  expect_place(
      {{"OMPI_COMM_WORLD_RANK", "5"}, {"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}}, 5, 8,
      1);
  expect_place({{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}, {"MPI_LOCALRANKID", "1"}}, 5, 8, 1);
  expect_place({{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}, {"SLURM_LOCALID", "1"}}, 5, 8, 1);
  expect_place({{"SLURM_PROCID", "5"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_LOCALID", "1"}}, 5, 8, 1);
}

// Slurm tells every script of a job how many tasks it may start.
TEST_F(Launched, ByNobodyIsAlone) {
  expect_place({}, 0, 1, 0);
  expect_place({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}}, 0, 1, 0);
  for (const char* wrong : {"8", "-1", "x", "", "1 "})
    expect_place({{"OMPI_COMM_WORLD_RANK", wrong}, {"OMPI_COMM_WORLD_SIZE", "8"}}, 0, 1, 0);
}

TEST_F(Launched, HasACardOfItsOwn) {
  Variables variables{{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}, {"MPI_LOCALRANKID", "1"}};
  launch(variables);
  EXPECT_EQ(own_device("cuda"), "cuda:1");
  EXPECT_EQ(own_device("cuda:3"), "cuda:3");
  EXPECT_EQ(own_device("cpu"), "cpu");
  EXPECT_EQ(which_process(process_share()), "process 6 of 8: ");
  variables["CUDA_VISIBLE_DEVICES"] = "0,1";
  launch(variables);
  EXPECT_EQ(own_device("cuda"), "cuda:1");
  variables["CUDA_VISIBLE_DEVICES"] = "7";
  launch(variables);
  EXPECT_EQ(own_device("cuda"), "cuda:0");
  launch({{"CUDA_VISIBLE_DEVICES", "7"}});
  EXPECT_EQ(own_device("cuda"), "cuda");
  EXPECT_EQ(which_process(process_share()), "");
}

}  // namespace
}  // namespace linnet
