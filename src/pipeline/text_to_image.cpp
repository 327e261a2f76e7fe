#include "pipeline/text_to_image.h"

#include <algorithm>

#include "io/file.h"
#include "io/text.h"
#include "ops/matmul.h"
#include "pipeline/memory_plan.h"

namespace linnet {

void make_ready(PixArt& model, DType products, const Device& device, int64_t pictures, int64_t height,
                int64_t width) {
  model.set_product_dtype(products);
  nn::freeze(model);
  place(model, device, pictures, height, width);
  model.set_on_block(&forget_mapped_pages);  // what is packed is not needed in the file
}

void make_ready(T5Encoder& encoder, const Tokenizer& tokenizer, const TextToImageParts& parts,
                const PixArtConfig& transformer, std::string_view products, const Device& device) {
  check_belongs(encoder.config(), printable(parts.text_encoder.string()), transformer);
  check_belongs(tokenizer, printable(parts.tokenizer.string()), encoder.config());
  encoder.set_product_dtype(ops::wide_product_dtype_from_name(products, device));
}

GenerateOptions usual_options(const PixArtConfig& model) {
  return {.sampler = Sampler::dpmpp,
          .steps = 20,
          .guidance_scale = usual_guidance(model),
          .guided = usual_interval(model),
          .guided_channels = all_channels,
          .clip_x0 = model.in_channels == 3};
}

SizeInPixels size_to_paint(const std::optional<SizeInPixels>& wanted, const PixArtConfig& model,
                           int64_t reduction) {
  const int64_t base = model.sample_size * reduction;
  if (!wanted) return {base, base};
  if (!is_size(*wanted))
    throw UsageError(fmt::format("pictures of {} x {} pixels are impossible", wanted->width, wanted->height));
  return snap_size(*wanted, base, model.patch_size * reduction);
}

void complete(TextPaintRequest& request, const PixArtConfig& model, const SizeInPixels& size, int64_t reduction,
              bool with_negative) {
  request.height = size.height / reduction;
  request.width = size.width / reduction;
  check_request(request, model, with_negative);
  if (request.batch == 0) request.batch = default_batch(model, request.height, request.width);
}

void encode_for(TextPaintRequest& request, std::vector<std::string> prompts, const std::string& negative,
                const T5Encoder& encoder, const Tokenizer& tokenizer, const PixArtConfig& model,
                const std::function<void()>& on_block) {
  std::vector<std::string> texts = std::move(prompts);
  texts.resize(std::min(texts.size(), static_cast<size_t>(request.count)));
  const auto shown = static_cast<int64_t>(texts.size());
  if (request.options.guidance_scale != 1.0f) texts.push_back(negative);
  const auto ids = tokenize(tokenizer, texts, model.caption_tokens, Cleaning::lower).ids;
  take_states(request, encode_each(encoder, ids, on_block), shown);
}

}  // namespace linnet
