// What is read by a recording lives as long as it.
#include "core/recording.h"

#include <gtest/gtest.h>

namespace linnet {
namespace {

TEST(Recording, KeepsWhatItReadsWhileItIsMade) {
  const Tensor read = Tensor::zeros({4});
  std::vector<Tensor> kept;
  keep_for_recording(read);
  EXPECT_FALSE(is_recording());
  {
    const RecordingOwner owner(kept);
    EXPECT_TRUE(is_recording());
    keep_for_recording(read);
  }
  EXPECT_FALSE(is_recording());
  keep_for_recording(Tensor::zeros({1}));
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].data<float>(), read.data<float>());
}

}  // namespace
}  // namespace linnet
