// The command with --device cuda as a user calls it, on the GPU that is emulated (src/cuda/emulation), beside
// the same on the CPU.
#pragma once

#include <cmath>

#include "cli/command.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet::test {

#ifdef LINNET_EMULATED_GPU
constexpr const char* emulated_gpu = LINNET_EMULATED_GPU;
#else
constexpr const char* emulated_gpu = "";  // as with the thread sanitizer
#endif

inline Arguments with(Arguments all, const Arguments& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

/// Skips where the emulated GPU is not built. Commands run in a folder of their device, so that one name means
/// the file of either.
class GpuCommand : public testing::Test {
 protected:
  void SetUp() override {
    if (*emulated_gpu == '\0') GTEST_SKIP() << "not run: the emulated GPU is not built here";
    for (const char* device : {"cpu", "cuda"}) std::filesystem::create_directories(folder_ / device);
  }
  static Result run_in(const std::filesystem::path& folder, const Arguments& arguments) {
    return run(arguments, {.folder = folder, .environment = {{"LINNET_CUDA_LIBRARY", emulated_gpu}}});
  }
  Result on(const std::string& device, const Arguments& arguments) const {
    return run_in(folder_ / device, with(arguments, {"--device", device}));
  }
  Result on_gpu(const Arguments& arguments) const { return on("cuda", arguments); }
  Result on_cpu(const Arguments& arguments) const { return on("cpu", arguments); }

  Tensor tensor(const std::string& device, const std::string& file, const std::string& name) const {
    return SafetensorsFile::open(folder_ / device / file).tensor(name);
  }
  /// Of one tensor in both devices' files: ‖gpu − cpu‖ / ‖cpu‖.
  double difference(const std::string& file, const std::string& name) const {
    return relative_error(tensor("cuda", file, name), tensor("cpu", file, name));
  }
  /// Of one picture, at the pixel that differs most.
  int furthest(const std::string& file) const {
    const Image a = read_image(folder_ / "cuda" / file), b = read_image(folder_ / "cpu" / file);
    if (a.rgb.size() != b.rgb.size()) return 256;
    int most = 0;
    for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
    return most;
  }
  std::string bytes(const std::string& file) const { return contents(folder_ / "cuda" / file); }

  TemporaryFolder folder_;
};

}  // namespace linnet::test
