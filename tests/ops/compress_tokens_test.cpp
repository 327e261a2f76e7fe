// Squares of tokens that become one, against the convolution's formula, both ways.
#include "ops/compress_tokens.h"

#include "ops/operation_table.h"

namespace linnet::ops::test {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

struct Case {
  int64_t batch, rows, columns, d, size;
};

Values convolved(const Case& c, const std::vector<Values>& in) {
  Values out;
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t row = 0; row + c.size <= c.rows; row += c.size)
      for (int64_t column = 0; column + c.size <= c.columns; column += c.size)
        for (int64_t i = 0; i < c.d; ++i) {
          double sum = in[2][at(i)];
          for (int64_t y = 0; y < c.size; ++y)
            for (int64_t x = 0; x < c.size; ++x)
              sum += in[0][at(((b * c.rows + row + y) * c.columns + column + x) * c.d + i)] *
                     in[1][at((i * c.size + y) * c.size + x)];
          out.push_back(sum);
        }
  return out;
}

// Among them grids with a rest, and one that is a single square.
TEST(CompressTokens, FollowsItsFormula) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Case& c : {Case{1, 1, 1, 3, 1}, Case{2, 4, 6, 24, 2}, Case{3, 5, 7, 9, 2}, Case{1, 3, 3, 37, 3},
                          Case{2, 7, 11, 17, 3}, Case{1, 9, 4, 16, 4}})
      check_row({fmt::format("{} grids of {}x{}, {} channels, squares of {}, {}", c.batch, c.rows, c.columns,
                             c.d, c.size, name_of(dtype)),
                 {random({c.batch, c.rows * c.columns, c.d}, 1, dtype), random({c.d, 1, c.size, c.size}, 2),
                  random({c.d}, 3)},
                 [c](const Inputs& in) { return compress_tokens(in[0], in[1], in[2], c.rows, c.columns); },
                 [c](const std::vector<Values>& in) { return convolved(c, in); }});
}

}  // namespace
}  // namespace linnet::ops::test
