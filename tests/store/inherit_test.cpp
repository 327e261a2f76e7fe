// Weight inheritance: every tensor is the teacher's or fresh, as asked, and what does not fit is named.
#include "store/inherit.h"

#include <gtest/gtest.h>

#include <map>

#include "store/convert.h"
#include "store/dit_file.h"
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

TEST_F(Inherit, OfATeacherInEightBitsItCopiesTheFloatsThatTheyStandFor) {
  DiT teacher(config()), from_rounded(student_of(config(), nn::Mixer::lit, 2)),
      from_floats(from_rounded.config());
  const Weights rounded = in_8_bits(teacher_, nn::all_parameters(teacher));
  inherit(from_rounded, rounded, also_inherit_from_name("qkv"), 7);
  inherit(from_floats, with_float_matrices(rounded), also_inherit_from_name("qkv"), 7);
  EXPECT_EQ(fingerprint(from_rounded), fingerprint(from_floats));
}

// Every row of every attention tensor: the teacher's row of the same projection, or what was drawn.
class InheritProjections : public Inherit, public testing::WithParamInterface<std::string> {
 protected:
  static constexpr int64_t width = 16;

  // Projection 0, 1, 2: q, k, v. Where its rows lie in the teacher's attn.qkv, and whether they are asked for.
  std::vector<float> of_teacher(const std::string& block, int projection, const std::string& kind) const {
    return rows_of_teacher(block + "qkv." + kind, projection * width, width);
  }
  static bool asked_for(char projection) { return GetParam().find(projection) != std::string::npos; }

  // `name` holds these projections one after the other.
  void expect_projections(DiT& student, DiT& fresh, const std::string& block, const std::string& layer,
                          const std::vector<int>& projections) const {
    for (const std::string kind : {"weight", "bias"}) {
      const std::string name = block + layer + "." + kind;
      const auto found = values(student, name), drawn = values(fresh, name);
      const auto part = static_cast<ptrdiff_t>(found.size() / projections.size());
      for (size_t i = 0; i < projections.size(); ++i) {
        const auto first = static_cast<ptrdiff_t>(i) * part;
        const std::vector<float> rows(found.begin() + first, found.begin() + first + part);
        const std::vector<float> before(drawn.begin() + first, drawn.begin() + first + part);
        const int projection = projections[i];
        const bool taken = asked_for("qkv"[projection]);
        EXPECT_EQ(rows, taken ? of_teacher(block, projection, kind) : before)
            << name << ", projection " << projection;
      }
    }
  }
  void expect_output(DiT& student, DiT& fresh, const std::string& block) const {
    for (const std::string kind : {"weight", "bias"}) {
      const std::string name = block + "proj." + kind;
      EXPECT_EQ(values(student, name), asked_for('o') ? rows_of_teacher(name, 0, width) : values(fresh, name))
          << name;
    }
  }
};

TEST_P(InheritProjections, AreTheTeachersOrFreshWhateverTheMixerAndTheHeads) {
  for (const auto& [mixer, heads] : {std::pair{nn::Mixer::lit, 1},
                                     {nn::Mixer::lit, 2},
                                     {nn::Mixer::linear, 8},
                                     {nn::Mixer::softmax, 4},
                                     {nn::Mixer::softmax, 2}}) {
    DiT student(student_of(config(), mixer, heads)), fresh(student.config());
    inherit(student, teacher_, also_inherit_from_name(GetParam()), 7);
    nn::initialize(fresh, 7);
    for (const std::string block : {"blocks.0.attn.", "blocks.1.attn."}) {
      if (mixer == nn::Mixer::softmax) {
        expect_projections(student, fresh, block, "qkv", {0, 1, 2});
      } else {
        expect_projections(student, fresh, block, "q", {0});
        expect_projections(student, fresh, block, "kv", {1, 2});
      }
      expect_output(student, fresh, block);
      for (const std::string kind : {"dwc.weight", "dwc.bias"})
        EXPECT_EQ(values(student, block + kind), values(fresh, block + kind)) << kind;
    }
    EXPECT_EQ(values(student, "blocks.1.mlp.fc1.weight"),
              rows_of_teacher("blocks.1.mlp.fc1.weight", 0, 4 * width));
  }
}

INSTANTIATE_TEST_SUITE_P(Also, InheritProjections, testing::Values("", "qkv", "kv", "v", "q", "k", "o", "qkvo"),
                         [](const auto& instance) {
                           return instance.param.empty() ? "nothing" : instance.param;
                         });

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
