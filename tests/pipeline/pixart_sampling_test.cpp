// Sampling with the text-to-image transformer as others do: on PixArt's own grid, with its own guidance, and
// with the samplers of models of classes.
#include <gtest/gtest.h>

#include <fstream>

#include "diffusion/samplers.h"
#include "io/safetensors.h"
#include "pipeline/paint_text.h"
#include "store/pixart_file.h"
#include "support/compare.h"
#include "support/temporary_folder.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

const fs::path dumps = LINNET_TEST_DATA "/reference";

fs::path weights_of(const std::string& name) { return dumps / ("pixart_" + name + ".model.safetensors"); }

// From a folder as diffusers has it, whose configuration alone tells the unit of positions.
LoadedPixArt load_from_folder(const std::string& name, const NamedTensors& more = {}) {
  const TemporaryFolder folder;
  const auto stored = SafetensorsFile::open(weights_of(name));
  NamedTensors tensors = more;
  for (const std::string& tensor : stored.names()) tensors.emplace_back(tensor, stored.tensor(tensor));
  write_safetensors(folder / "diffusion_pytorch_model.safetensors", tensors);
  std::ofstream(folder / "config.json") << stored.metadata().at("config");
  return load_pixart(folder.path());
}

// PixArt's own code samples on another grid than diffusers.
TEST(PixArtSampling, FollowsTheFractionalGrid) {
  const LoadedPixArt loaded = load_from_folder("sigma");
  const auto io = SafetensorsFile::open(dumps / "pixart_sigma.io.safetensors");
  const Tensor text = io.tensor("text"), mask = io.tensor("text_mask");
  const Denoiser model = [&](const Tensor& x, const Tensor& t) {
    TextStates texts{Tensor::empty({12, 20}), {0, 7, 8, 12}};
    for (int64_t i = 0, at = 0; i < mask.numel(); ++i)
      if (mask.data<int64_t>()[i] == 1) {
        std::copy_n(text.data<float>() + i * 20, 20, texts.states.mutable_data<float>() + at * 20);
        ++at;
      }
    return loaded.model->forward(x, t, texts);
  };
  for (const int steps : {6, 12}) {
    const Tensor expected = io.tensor(fmt::format("fractional.{}", steps));
    const Tensor painted =
        sample_dpmpp_2m(model, io.tensor("x"), NoiseSchedule::linear(), steps, {}, TimeGrid::fractional);
    EXPECT_LT(test::relative_error(painted, expected), 1e-4) << steps;
  }
}

// PixArt's own code leads away from a learned embedding of no text, under the mask of the prompt's.
class SampledByTheOriginals : public testing::Test {
 protected:
  SampledByTheOriginals() {
    loaded_ = load_from_folder("lit", {{"y_embedder.y_embedding", io_.tensor("null")}});
    const Tensor text = io_.tensor("text").reshape({18, 20});
    texts_ = {text.rows(0, 7), text.rows(9, 13)};
  }

  SafetensorsFile io_ = SafetensorsFile::open(dumps / "pixart_sampling.safetensors");
  LoadedPixArt loaded_;
  std::vector<Tensor> texts_;
};

TEST_F(SampledByTheOriginals, ByDdimAndAwayFromNoText) {
  TextPaintRequest request;
  request.texts = texts_;
  request.count = 2;
  request.height = request.width = 8;
  request.noise = io_.tensor("x");
  request.options.sampler = Sampler::ddim;
  request.options.steps = 7;
  request.options.guidance_scale = io_.tensor("scale").item();
  request.options.guided_channels = 4;
  request.options.clip_x0 = false;
  EXPECT_LT(test::relative_error(paint_batch(*loaded_.model, request, 0, 2), io_.tensor("ddim.7")), 1e-4);
}

TEST_F(SampledByTheOriginals, ByDdpm) {
  const Tensor null = loaded_.model->null_text().states;
  const TextStates both = join({texts_[0], texts_[1], null.rows(0, 7), null.rows(0, 4)});
  const Denoiser model =
      guide({{}, [&](const Tensor& x, const Tensor& t) { return loaded_.model->forward(x, t, both); }},
            io_.tensor("scale").item(), 4);
  int64_t next = 0;
  const auto noise = [&](const Shape& shape) {
    return ++next, io_.tensor("noise").rows(next - 1, next).reshape(shape);
  };
  const Tensor painted = sample_ddpm(model, io_.tensor("x"), NoiseSchedule::linear().spaced(5), noise);
  EXPECT_LT(test::relative_error(painted, io_.tensor("ddpm.5")), 1e-4);
}

}  // namespace
}  // namespace linnet
