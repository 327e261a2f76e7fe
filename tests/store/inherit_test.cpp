// Weight inheritance: every tensor is the teacher's or fresh, as asked, and what does not fit is named.
#include "store/inherit.h"

#include <gtest/gtest.h>

#include <map>

#include "store/model_file.h"
#include "support/tiny_dit.h"

namespace linnet {
namespace {

class Inherit : public testing::Test {
 protected:
  // A teacher of which every number tells the tensor and the place it comes from.
  Inherit() : teacher_("teacher.pt") {
    DiT model(config());
    float base = 0;
    for (auto& [name, parameter] : nn::learned_parameters(model)) {
      Tensor value = Tensor::empty(parameter->shape);
      for (int64_t i = 0; i < value.numel(); ++i) value.mutable_data<float>()[i] = base + static_cast<float>(i);
      base += 1e5f;
      teacher_.add({name, "F32", DType::f32, value.shape(), [value] { return value; }});
    }
  }
  static DiTConfig config() {
    DiTConfig config = test::tiny_dit();
    config.depth = 2;
    config.num_heads = 4;
    return config;
  }
  static std::vector<float> values(DiT& model, const std::string& name) {
    for (auto& [found, parameter] : nn::learned_parameters(model))
      if (found == name)
        return {parameter->value.values<float>().begin(), parameter->value.values<float>().end()};
    return {};
  }
  std::vector<float> rows_of_teacher(const std::string& name, int64_t first, int64_t count) const {
    const Tensor rows = teacher_.tensor(name).rows(first, first + count);
    return {rows.values<float>().begin(), rows.values<float>().end()};
  }
  DiT student(std::string_view also) const {
    DiT model(student_of(config(), nn::Mixer::lit, 2));
    inherit(model, teacher_, also_inherit_from_name(also), 7);
    return model;
  }

  Weights teacher_;
};

TEST_F(Inherit, CopiesAllButTheAttention) {
  DiT lit = student(""), fresh(lit.config());
  nn::initialize(fresh, 7);
  for (auto& [name, parameter] : nn::learned_parameters(lit)) {
    if (name.find(".attn.") != std::string::npos)
      EXPECT_EQ(values(lit, name), values(fresh, name)) << name;
    else
      EXPECT_EQ(values(lit, name), rows_of_teacher(name, 0, parameter->shape[0])) << name;
  }
}

TEST_F(Inherit, TakesTheProjectionsThatAreAskedFor) {
  DiT fresh = student(""), kv = student("kv"), v = student("v"), q = student("q"), o = student("o"),
      all = student("qkv");
  const std::string block = "blocks.1.attn.";
  for (const char* kind : {"weight", "bias"}) {
    const std::string joined = block + "qkv." + kind;
    const auto of_q = rows_of_teacher(joined, 0, 16), of_kv = rows_of_teacher(joined, 16, 32),
               of_v = rows_of_teacher(joined, 32, 16);
    EXPECT_EQ(values(kv, block + "kv." + kind), of_kv);
    EXPECT_EQ(values(all, block + "kv." + kind), of_kv);
    EXPECT_EQ(values(all, block + "q." + kind), of_q);
    EXPECT_EQ(values(q, block + "q." + kind), of_q);
    EXPECT_EQ(values(q, block + "kv." + kind), values(fresh, block + "kv." + kind));
    EXPECT_EQ(values(o, block + "proj." + kind), rows_of_teacher(block + "proj." + kind, 0, 16));
    EXPECT_EQ(values(all, block + "proj." + kind), values(fresh, block + "proj." + kind));
    const auto half = values(v, block + "kv." + kind);
    EXPECT_EQ(std::vector<float>(half.begin() + static_cast<ptrdiff_t>(half.size() / 2), half.end()), of_v);
  }
}

TEST_F(Inherit, ReportsEveryTensor) {
  DiT model(student_of(config(), nn::Mixer::lit, 2));
  const auto report = inherit(model, teacher_, also_inherit_from_name("v"), 7);
  EXPECT_EQ(report.size(), nn::learned_parameters(model).size());
  std::map<std::string, std::string> sources;
  for (const Inherited& row : report) sources[row.tensor] = row.source;
  EXPECT_EQ(sources["blocks.0.attn.kv.weight"], "blocks.0.attn.qkv.weight, rows 32 to 47; the rest fresh");
  EXPECT_EQ(sources["blocks.0.attn.dwc.weight"], "");
  EXPECT_EQ(sources["blocks.0.mlp.fc1.weight"], "blocks.0.mlp.fc1.weight");
}

TEST_F(Inherit, StartsWhatFocusedAttentionLearnsAfresh) {
  for (const nn::Mixer mixer : {nn::Mixer::focused, nn::Mixer::focused_gelu}) {
    DiT model(student_of(config(), mixer, 2));
    std::map<std::string, std::string> sources;
    for (const Inherited& row : inherit(model, teacher_, also_inherit_from_name("qkvo"), 7))
      sources[row.tensor] = row.source;
    EXPECT_EQ(sources.at("blocks.1.attn.kv.weight"),
              "blocks.1.attn.qkv.weight, rows 16 to 31; blocks.1.attn.qkv.weight, rows 32 to 47");
    for (const char* name : {"scale", "positional_encoding", "dwc.weight", "dwc.bias"})
      EXPECT_EQ(sources.at(fmt::format("blocks.1.attn.{}", name)), "") << name;
    EXPECT_EQ(values(model, "blocks.1.attn.scale"), std::vector<float>(16, 0.0f));
    EXPECT_EQ(values(model, "blocks.1.attn.positional_encoding"), std::vector<float>(16 * 16, 0.0f));
  }
}

TEST_F(Inherit, NamesWhatDoesNotFit) {
  const auto refusal = [&](DiTConfig config) -> std::string {
    try {
      config.mixer = nn::Mixer::lit;
      DiT model(config);
      inherit(model, teacher_, {}, 1);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  DiTConfig wider = config(), shallower = config(), deeper = config();
  wider.hidden_size = 32;
  shallower.depth = 1;
  deeper.depth = 3;
  EXPECT_NE(refusal(wider).find("has shape (16, 4, 2, 2), the student's (32, 4, 2, 2)"), std::string::npos)
      << refusal(wider);
  EXPECT_NE(refusal(shallower).find("it has more blocks than the student's 1"), std::string::npos)
      << refusal(shallower);
  EXPECT_NE(refusal(deeper).find("'blocks.2."), std::string::npos) << refusal(deeper);
}

TEST_F(Inherit, RefusesOtherLetters) {
  for (const char* name : {"x", "qq", "kvx", "all"})
    EXPECT_THROW(also_inherit_from_name(name), UsageError) << name;
}

}  // namespace
}  // namespace linnet
