// The operations that only move values, against index formulas, in both directions; and the two embeddings.
#include "ops/arrange.h"
#include "ops/operation_table.h"

namespace linnet::ops::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

TEST(Arrange, PatchifyGivesTheRowsThatAConvolutionSees) {
  for (const int64_t patch : {1, 2, 3})
    for (const auto& [rows, columns] : {std::pair{1, 1}, std::pair{3, 5}, std::pair{7, 1}, std::pair{1, 9}}) {
      const Shape s{2, 3, rows * patch, columns * patch};
      check_row({fmt::format("patchify {} by {}", to_string(s), patch),
                 {random(s, 1)},
                 [patch](const Inputs& in) { return patchify(in[0], patch); },
                 [s, patch, columns = columns](const std::vector<Values>& in) {
                   Values out(in[0].size());
                   const int64_t tokens = s[2] * s[3] / patch / patch;
                   for (int64_t b = 0; b < s[0]; ++b)
                     for (int64_t c = 0; c < s[1]; ++c)
                       for (int64_t y = 0; y < s[2]; ++y)
                         for (int64_t x = 0; x < s[3]; ++x) {
                           const int64_t token = y / patch * columns + x / patch;
                           const int64_t channel = (c * patch + y % patch) * patch + x % patch;
                           out[at((b * tokens + token) * s[1] * patch * patch + channel)] =
                               in[0][at(((b * s[1] + c) * s[2] + y) * s[3] + x)];
                         }
                   return out;
                 }});
    }
}

TEST(Arrange, UnpatchifyPutsChannelsLastTokensBack) {
  for (const int64_t patch : {1, 2, 3})
    for (const auto& [rows, columns] : {std::pair{1, 1}, std::pair{3, 5}, std::pair{7, 1}, std::pair{1, 9}}) {
      const int64_t channels = 5, tokens = rows * columns, height = rows * patch, width = columns * patch;
      check_row({fmt::format("unpatchify {}x{} of {}", rows, columns, patch),
                 {random({2, tokens, patch * patch * channels}, 1)},
                 [=, rows = rows, columns = columns](const Inputs& in) {
                   return unpatchify(in[0], rows, columns, patch);
                 },
                 [=, columns = columns](const std::vector<Values>& in) {
                   Values out;
                   for (int64_t b = 0; b < 2; ++b)
                     for (int64_t c = 0; c < channels; ++c)
                       for (int64_t y = 0; y < height; ++y)
                         for (int64_t x = 0; x < width; ++x) {
                           const int64_t token = y / patch * columns + x / patch;
                           const int64_t place = (y % patch * patch + x % patch) * channels + c;
                           out.push_back(in[0][at((b * tokens + token) * patch * patch * channels + place)]);
                         }
                   return out;
                 }});
    }
}

TEST(Arrange, ChunkCutsRowsAndGathersTheGradientsOfThePartsUsed) {
  for (const size_t part : {0u, 1u, 2u})
    check_row({fmt::format("chunk, part {}", part),
               {random({5, 9}, 1)},
               [part](const Inputs& in) { return chunk(in[0], 3)[part]; },
               [part](const std::vector<Values>& in) {
                 Values out;
                 for (size_t r = 0; r < 5; ++r)
                   for (size_t i = 0; i < 3; ++i) out.push_back(in[0][r * 9 + part * 3 + i]);
                 return out;
               }});
  for (const DType dtype : {DType::f32, DType::bf16})
    check_row({fmt::format("chunk of tokens, {}", name_of(dtype)),
               {random({2, 3, 10}, 1, dtype)},
               [](const Inputs& in) { return chunk(in[0], 2)[1]; },
               [](const std::vector<Values>& in) {
                 Values out;
                 for (size_t r = 0; r < 6; ++r)
                   for (size_t i = 0; i < 5; ++i) out.push_back(in[0][r * 10 + 5 + i]);
                 return out;
               }});
  check_row({"chunk, all parts together",
             {random({4, 6}, 1)},
             [](const Inputs& in) {
               const auto parts = chunk(in[0], 3);
               return add(add(parts[0], parts[1]), add(parts[2], parts[0]));
             },
             [](const std::vector<Values>& in) {
               Values out;
               for (size_t r = 0; r < 4; ++r)
                 for (size_t i = 0; i < 2; ++i) {
                   const double* row = in[0].data() + r * 6 + i;
                   out.push_back(2 * row[0] + row[2] + row[4]);
                 }
               return out;
             }});
}

TEST(Arrange, PositionsAreAddedToEverySample) {
  Tensor x = random({3, 5, 7}, 1), positions = random({5, 7}, 2);
  const Tensor g = random({3, 5, 7}, 3);
  const Result result = run([](const Inputs& in) { return add_positions(in[0], in[1]); }, {x, positions}, g);
  Values expected = values_of(x);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += values_of(positions)[i % 35];
  EXPECT_LT(relative_error(result.output, expected), 1e-6);
  EXPECT_LT(relative_error(result.gradients[0], values_of(g)), 1e-6);
  EXPECT_FALSE(result.gradients[1].defined());
}

TEST(Arrange, MeanTokensFollowsItsFormula) {
  for (const Shape& s : {Shape{1, 1, 1}, Shape{2, 3, 5}, Shape{3, 64, 20}})
    check_row({fmt::format("mean over tokens {}", to_string(s)),
               {random(s, 1)},
               [](const Inputs& in) { return mean_tokens(in[0]); },
               [s](const std::vector<Values>& in) {
                 Values out(at(s[0] * s[2]));
                 for (int64_t i = 0; i < s.numel(); ++i)
                   out[at(i / (s[1] * s[2]) * s[2] + i % s[2])] += in[0][at(i)] / static_cast<double>(s[1]);
                 return out;
               }});
}

TEST(Arrange, EmbeddingPicksRowsAndAddsTheGradientsOfRepeatedOnes) {
  const Tensor indices = Tensor::from<int64_t>({4, 0, 4, 2, 4});
  for (const DType dtype : {DType::f32, DType::bf16})
    check_row({fmt::format("embedding {}", name_of(dtype)),
               {random({5, 7}, 1, dtype), indices},
               [](const Inputs& in) { return embedding(in[0], in[1]); },
               [](const std::vector<Values>& in) {
                 Values out;
                 for (const double index : in[1])
                   for (size_t i = 0; i < 7; ++i) {
                     // Finite differences also nudge the index, which rounds back.
                     out.push_back(in[0][static_cast<size_t>(std::lround(index)) * 7 + i]);
                   }
                 return out;
               }});
}

TEST(Arrange, TimestepEmbeddingIsCosinesThenSines) {
  for (const int64_t width : {2, 6, 256})
    check_row({fmt::format("timestep_embedding {}", width),
               {Tensor::from<float>({0.0f, 1.0f, 17.5f, 500.0f, 999.0f})},
               [width](const Inputs& in) { return timestep_embedding(in[0], width); },
               [width](const std::vector<Values>& in) {
                 Values out;
                 for (const double t : in[0])
                   for (int64_t i = 0; i < width; ++i) {
                     const int64_t half = width / 2;
                     const double angle =
                         t * std::pow(10000.0, -static_cast<double>(i % half) / static_cast<double>(half));
                     out.push_back(i < half ? std::cos(angle) : std::sin(angle));
                   }
                 return out;
               },
               false});
}

}  // namespace
}  // namespace linnet::ops::test
