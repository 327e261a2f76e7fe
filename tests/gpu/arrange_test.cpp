// The operations that move values, and sums: sizes whose rows are read in packs, and sizes whose are not.
#include "ops/arrange.h"
#include "gpu/support.h"
#include "ops/cast.h"
#include "ops/compress_tokens.h"
#include "ops/cross_entropy.h"
#include "ops/reduce.h"

namespace linnet::ops::test {
namespace {

const std::vector<DType> only_f32 = {DType::f32};

void check_f32(const std::string& name, const Inputs& inputs, const Operation& operation) {
  check_on_gpu({.name = name,
                .inputs = inputs,
                .operation = [&](const Inputs& in, DType) { return operation(in); },
                .types = only_f32});
}

Tensor indices(std::vector<int64_t> values) { return Tensor::from(values); }

TEST(GpuOperations, Patches) {
  LINNET_NEED_GPU();
  for (const int64_t patch : {1, 2, 3})
    for (const int64_t batch : {1, 3}) {
      check_f32(fmt::format("patchify {} {}", patch, batch), {random({batch, 3, 5 * patch, 4 * patch}, 1)},
                [&](const Inputs& in) { return patchify(in[0], patch); });
      check_f32(fmt::format("unpatchify {} {}", patch, batch), {random({batch, 20, patch * patch * 5}, 2)},
                [&](const Inputs& in) { return unpatchify(in[0], 5, 4, patch); });
    }
}

TEST(GpuOperations, Chunks) {
  LINNET_NEED_GPU();
  for (const int64_t width : {1, 3, 4, 8, 40, 1032})
    for (int64_t part = 0; part < 3; ++part)
      check_on_gpu({.name = fmt::format("chunk {} of {}", part, width),
                    .inputs = {random({2, 5, 3 * width}, 1)},
                    .operation = [&](const Inputs& in, DType) { return chunk(in[0], 3)[part]; }});
  check_on_gpu(
      {.name = "all chunks", .inputs = {random({37, 2 * 24}, 1)}, .operation = [](const Inputs& in, DType) {
         const auto parts = chunk(in[0], 2);
         return concat_columns(cast(parts[1], DType::f32), cast(parts[0], DType::f32));
       }});
}

TEST(GpuOperations, ChunksOfAnyType) {
  LINNET_NEED_GPU();
  const Tensor x = indices({1, 2, 3, 4, 5, 6, 7, 8}).reshape({2, 4});
  const auto here = chunk(x, 2), there = chunk(x.to(the_gpu), 2);
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(same_bytes(there[i].host(), here[i]));
}

TEST(GpuOperations, Transpose) {
  LINNET_NEED_GPU();
  for (const auto& [rows, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {1, 70}, {33, 31}, {65, 3}, {64, 32}})
    check_f32(fmt::format("transpose {}x{}", rows, columns), {random({rows, columns}, 1)},
              [](const Inputs& in) { return transpose(in[0]); });
}

TEST(GpuOperations, Additions) {
  LINNET_NEED_GPU();
  for (const int64_t d : {1, 7, 24, 300}) {
    check_f32(fmt::format("add {}", d), {random({3, d}, 1), random({3, d}, 2)},
              [](const Inputs& in) { return add(in[0], in[1]); });
    for (const int64_t n : {1, 19, 300}) {
      check_f32(fmt::format("add_row {}x{}", n, d), {random({n, d}, 1), random({d}, 2)},
                [](const Inputs& in) { return add_row(in[0], in[1]); });
      check_f32(fmt::format("concat_columns {}x{}", n, d), {random({n, d}, 1), random({n, 8}, 2)},
                [](const Inputs& in) { return concat_columns(in[0], in[1]); });
    }
    const Tensor positions = random({5, d}, 3);
    check_f32(fmt::format("add_positions {}", d), {random({4, 5, d}, 1)}, [&](const Inputs& in) {
      return add_positions(in[0], in[0].on_gpu() ? positions.to(the_gpu) : positions);
    });
  }
  check_on_gpu({.name = "a row of any type",
                .inputs = {random({6, 24}, 1), random({24}, 2)},
                .typed = ".t",
                .operation = [](const Inputs& in, DType) { return add_row(in[0], in[1]); }});
}

// The first operand is on the GPU or the second; with the other one here, the result must be the same.
TEST(GpuOperations, TheGpuWins) {
  LINNET_NEED_GPU();
  const Tensor x = random({4, 12}, 1), y = random({4, 12}, 2), row = random({12}, 3);
  const Tensor tokens = random({2, 3, 12}, 4), positions = random({3, 12}, 5);
  const std::vector<std::pair<std::string, std::function<Tensor(const Tensor&, const Tensor&)>>> operations = {
      {"add", add}, {"concat_columns", concat_columns}, {"add_row", add_row}, {"add_positions", add_positions}};
  const std::vector<Inputs> inputs = {{x, y}, {x, y}, {x, row}, {tokens, positions}};
  for (size_t i = 0; i < operations.size(); ++i)
    for (const bool first : {true, false}) {
      const auto& [name, operation] = operations[i];
      SCOPED_TRACE(fmt::format("{}, {} on the GPU", name, first ? "first" : "second"));
      Tensor a = inputs[i][0].detach(), b = inputs[i][1].detach();
      const Tensor expected = operation(a, b);
      a.set_requires_grad(true);
      Tape tape;
      const Tensor actual = first ? operation(a.to(the_gpu), b) : operation(a, b.to(the_gpu));
      ASSERT_TRUE(actual.on_gpu());
      EXPECT_TRUE(same_bytes(actual.host(), expected));
      tape.backward(actual);
      ASSERT_TRUE(a.grad().defined());
      EXPECT_TRUE(same_bytes(a.grad().host(), Tensor::full(a.shape(), 1.0f)));
    }
}

TEST(GpuOperations, MeanOfTokens) {
  LINNET_NEED_GPU();
  for (const int64_t tokens : {1, 5, 700})
    for (const int64_t d : {1, 12, 33})
      check_f32(fmt::format("mean of {} tokens of {}", tokens, d), {random({3, tokens, d}, 1)},
                [](const Inputs& in) { return mean_tokens(in[0]); });
}

TEST(GpuOperations, Embedding) {
  LINNET_NEED_GPU();
  for (const int64_t d : {1, 8, 37, 300}) {
    const Tensor repeated = indices({2, 0, 2, 6, 2, 0, 5});
    check_on_gpu({.name = fmt::format("embedding {}", d),
                  .inputs = {random({7, d}, 1), repeated},
                  .operation = [](const Inputs& in, DType) { return embedding(in[0], in[1]); }});
    check_on_gpu({.name = fmt::format("embedding {} of indices on the CPU", d),
                  .inputs = {random({7, d}, 1)},
                  .operation = [&](const Inputs& in, DType) { return embedding(in[0], repeated); }});
  }
  const Tensor table = random({7, 4}, 1).to(the_gpu);
  EXPECT_EQ(error_of([&] {
              embedding(table, indices({1, 7}));
            }),
            "embedding: index 7 is outside a table of 7 rows");
}

TEST(GpuOperations, TimestepEmbedding) {
  LINNET_NEED_GPU();
  for (const int64_t width : {2, 10, 256})
    check_on_gpu({.name = fmt::format("timestep_embedding {}", width),
                  .inputs = {Tensor::from<float>({0.0f, 1.0f, 17.5f, 999.0f})},
                  .operation = [&](const Inputs& in, DType) { return timestep_embedding(in[0], width); },
                  .differentiable = false,
                  .types = only_f32});
}

TEST(GpuOperations, Cast) {
  LINNET_NEED_GPU();
  for (const DType to : {DType::f32, DType::bf16, DType::f16}) {
    for (const DType from : {DType::f32, DType::bf16, DType::f16}) {
      const Tensor x = random({3, 11}, 1, from);
      EXPECT_TRUE(same_bytes(cast(x.to(the_gpu), to).host(), cast(x, to)));
    }
    check_on_gpu({.name = fmt::format("cast to {}", name_of(to)),
                  .inputs = {random({5, 7}, 1).to(DType::bf16).to(DType::f32)},
                  .operation = [](const Inputs& in, DType dtype) { return cast(in[0], dtype); },
                  .types = {to}});
  }
}

TEST(GpuOperations, SumOfRows) {
  LINNET_NEED_GPU();
  for (const int64_t rows : {0, 1, 3, 100, 4099})
    for (const int64_t columns : {1, 7, 8, 72, 264, 301})
      check_on_gpu({.name = fmt::format("sum_rows {}x{}", rows, columns),
                    .inputs = {random({rows, columns}, 1)},
                    .operation = [](const Inputs& in, DType) { return sum_rows(in[0]); },
                    .differentiable = false});
}

TEST(GpuOperations, SumOfRowsIsTheSameEachTime) {
  LINNET_NEED_GPU();
  const Tensor x = random({3000, 40}, 1, DType::bf16).to(the_gpu);
  EXPECT_TRUE(same_bytes(sum_rows(x).host(), sum_rows(x).host()));
}

TEST(GpuOperations, CompressTokens) {
  LINNET_NEED_GPU();
  for (const auto& [batch, d] : std::vector<std::pair<int64_t, int64_t>>{{2, 1}, {2, 7}, {2, 8}, {16, 72}})
    for (const int64_t size : {1, 2, 3})
      check_on_gpu(
          {.name = fmt::format("compress_tokens {} {}", d, size),
           .inputs = {random({batch, 5 * 7, d}, 1), random({d, 1, size, size}, 2), random({d}, 3)},
           .typed = "t..",
           .operation = [](const Inputs& in, DType) { return compress_tokens(in[0], in[1], in[2], 5, 7); }});
}

TEST(GpuOperations, CrossEntropy) {
  LINNET_NEED_GPU();
  for (const int64_t classes : {1, 10, 1001}) {
    const Tensor labels = indices({0, classes - 1, classes / 2});
    check_f32(fmt::format("cross_entropy {}", classes), {random({3, classes}, 1, DType::f32, 5.0f), labels},
              [](const Inputs& in) { return cross_entropy(in[0], in[1]); });
    check_f32(fmt::format("cross_entropy {} of labels on the CPU", classes), {random({3, classes}, 1)},
              [&](const Inputs& in) { return cross_entropy(in[0], labels); });
  }
  const Tensor logits = random({1, 4}, 1).to(the_gpu);
  EXPECT_EQ(error_of([&] { cross_entropy(logits, indices({4})); }),
            "cross_entropy: label 4 is outside 4 classes");
}

// Kernels that know f32 only must not read anything else as that.
TEST(GpuOperations, OtherTypesAreRefused) {
  LINNET_NEED_GPU();
  const Tensor x = random({2, 4}, 1, DType::bf16).to(the_gpu), y = random({2, 4}, 2).to(the_gpu);
  for (const auto& body : std::vector<std::function<void()>>{[&] {
                                                               patchify(x.reshape({1, 1, 2, 4}), 2);
                                                             },
                                                             [&] {
                                                               unpatchify(x.reshape({1, 2, 4}), 2, 1, 2);
                                                             },
                                                             [&] { add(x, y); }, [&] { add(y, x); },
                                                             [&] { add_row(x, y.rows(0, 1)); },
                                                             [&] {
                                                               add_positions(x.reshape({1, 2, 4}), y);
                                                             },
                                                             [&] {
                                                               mean_tokens(x.reshape({1, 2, 4}));
                                                             },
                                                             [&] { timestep_embedding(x, 4); },
                                                             [&] {
                                                               cross_entropy(x, indices({0, 1}));
                                                             }})
    EXPECT_EQ(error_of(body), "a tensor of f32 was expected, this one is bf16");
}

// Gradients may come in another type than the result's.
TEST(GpuOperations, GradientsOfAnyType) {
  LINNET_NEED_GPU();
  const Tensor table = random({3, 4}, 1);
  const std::vector<std::pair<Tensor, Operation>> rows = {
      {random({1, 2, 4, 4}, 1), [](const Inputs& in) { return patchify(in[0], 2); }},
      {random({1, 4, 4}, 1), [](const Inputs& in) { return unpatchify(in[0], 2, 2, 2); }},
      {random({3, 5}, 1), [](const Inputs& in) { return transpose(in[0]); }},
      {random({5}, 1),
       [](const Inputs& in) {
         return add_row(Tensor::zeros({3, 5}), in[0]);
       }},
      {random({3, 5}, 1),
       [](const Inputs& in) {
         return concat_columns(in[0], Tensor::zeros({3, 2}));
       }},
      {random({2, 3, 5}, 1), [](const Inputs& in) { return mean_tokens(in[0]); }},
      {random({4, 5}, 1),
       [](const Inputs& in) {
         return embedding(in[0], indices({3, 3, 1}));
       }},
      {random({3, 4}, 1), [](const Inputs& in) { return chunk(in[0], 2)[1]; }},
      {random({1, 4, 3}, 1), [](const Inputs& in) {
         const Device device = in[0].device();
         return compress_tokens(in[0], random({3, 1, 2, 2}, 2).to(device), random({3}, 3).to(device), 2, 2);
       }}};
  for (const DType dtype : {DType::bf16, DType::f16})
    for (size_t i = 0; i < rows.size(); ++i) {
      SCOPED_TRACE(fmt::format("{} {}", i, name_of(dtype)));
      const auto& [input, operation] = rows[i];
      const Tensor weights = random(operation({input}).shape(), 9, dtype);
      const Result expected = run(operation, {input}, weights.to(DType::f32));
      const Result actual = run(operation, {input.to(the_gpu)}, weights.to(the_gpu));
      EXPECT_LT(relative_error(actual.gradients[0].host(), values_of(expected.gradients[0])), 1e-4);
    }
}

}  // namespace
}  // namespace linnet::ops::test
