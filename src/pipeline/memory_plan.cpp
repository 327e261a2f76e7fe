#include "pipeline/memory_plan.h"

#include <algorithm>

#include "core/gpu.h"
#include "nn/placement.h"
#include "nn/product_type.h"
#include "ops/int8_linear.h"

namespace linnet {
namespace {

// Of a whole module's parameters as they are used: matrices in a type of `bytes_of` a value, the rest in f32.
template <class Module, class BytesOf>
size_t packed_bytes(Module& module, BytesOf bytes_of) {
  size_t bytes = 0;
  module.visit("", [&](const std::string&, nn::Parameter& p) {
    const bool matrix = p.shape.rank() > 1;
    bytes += static_cast<size_t>(p.shape.numel()) * (matrix ? bytes_of(p) : size_of(DType::f32));
  });
  return bytes;
}
template <class Module>
size_t packed_bytes(Module& module, DType dtype) {
  return packed_bytes(module, [dtype](const nn::Parameter&) { return size_of(dtype); });
}

// Of a transformer, whose blocks' matrices may be in 8 bits: those that are rounded here stay beside their
// packed copy.
size_t transformer_bytes(PixArt& shapes, const StageSizes& sizes) {
  if (sizes.products != DType::i8) return packed_bytes(shapes, sizes.products);
  const size_t floats = size_of(nn::hidden_type(DType::i8));
  const size_t rounded = (ops::have_int8_products() ? 1 : floats) + (sizes.stored_in_8_bits ? 0 : 1);
  return packed_bytes(shapes, [=](const nn::Parameter& p) { return p.block_matrix ? rounded : floats; });
}

// The middle is what most is packed of before the file's pages are let go.
size_t stored_bytes_of_middle(Vae& vae) {
  size_t bytes = 0;
  vae.visit("", [&](const std::string& name, nn::Parameter& p) {
    if (name.starts_with("decoder.mid_block.")) bytes += p.value.bytes();
  });
  return bytes;
}

size_t largest_block(const T5Encoder& encoder) {
  const T5Config& c = encoder.config();
  const int64_t values = 4 * c.width * c.heads * c.head_size + 3 * c.width * c.hidden;
  return static_cast<size_t>(values) * size_of(encoder.stored_dtype());
}

}  // namespace

size_t room_for_weights(int64_t tokens, int64_t width) {
  constexpr size_t channel = 48;                // as below, in f32
  constexpr size_t beside = size_t{256} << 20;  // cuBLASLt's and cuDNN's own, and a matrix that visits
  const size_t activations = 2 * channel * static_cast<size_t>(tokens * width) + beside;
  const size_t available = gpu().available();
  return available - std::min(available, activations);
}

void place(DiT& model, const Device& device, int64_t pictures) {
  if (!device.is_gpu()) return;
  open_gpu(device);
  const DiTConfig& c = model.config();
  nn::place(model, device, nn::hidden_type(model.product_dtype(), device),
            room_for_weights(pictures * c.tokens(), c.hidden_size));
}

void place(PixArt& model, const Device& device, int64_t pictures, int64_t height, int64_t width) {
  if (!device.is_gpu()) return;
  open_gpu(device);
  const PixArtConfig& c = model.config();
  nn::place(model, device, nn::hidden_type(model.product_dtype(), device),
            room_for_weights(pictures * height * width / c.patch_size / c.patch_size, c.hidden_size));
}

void place(T5Encoder& encoder, const Device& device, int64_t tokens) {
  if (!device.is_gpu()) return;
  open_gpu(device);
  const T5Config& c = encoder.config();
  nn::place(encoder, device, encoder.product_dtype(),
            room_for_weights(tokens, c.width + c.heads * c.head_size + c.hidden), nn::Called::seldom);
}

// The autoencoder that has decoded a picture stays beside the transformer that paints the next.
size_t StageMemory::smallest() const {
  return process + std::max({text, transformer + vae, vae + decode_least});
}

StageMemory plan_memory(const T5Encoder& encoder, const PixArtConfig& config, Vae* vae,
                        const StageSizes& sizes) {
  constexpr size_t megabyte = size_t{1} << 20;
  const T5Config& t5 = encoder.config();
  StageMemory memory;
  memory.process = 100 * megabyte + static_cast<size_t>(sizes.kept_tokens * t5.width) * sizeof(float);
  // Residual, normed, q, k, v, attended and two hidden states, the last three also turned and in f32.
  const auto token = static_cast<size_t>(8 * t5.width + 16 * t5.heads * t5.head_size + 16 * t5.hidden);
  memory.text = largest_block(encoder) + static_cast<size_t>(sizes.text_tokens) * token + 16 * megabyte;

  PixArt shapes(config);
  const size_t block = packed_bytes(shapes, DType::f32) / static_cast<size_t>(config.depth + 2);
  const auto tokens =
      static_cast<size_t>(sizes.pictures * sizes.height * sizes.width / config.patch_size / config.patch_size);
  // Compressed keys and values, or q, k and v apart for their norms, take no more than what is said here.
  // 26 bytes for each of a token's channels in bf16 were measured (docs/performance.md), and 4 for each of the
  // matrices' types more in f32.
  const size_t channel = sizes.products == DType::f32 ? 48 : 32;
  memory.transformer = transformer_bytes(shapes, sizes) + block + sizes.made_weights +
                       tokens * static_cast<size_t>(config.hidden_size) * channel;
  if (!vae) return memory;
  memory.vae = packed_bytes(*vae, vae->product_dtype()) + stored_bytes_of_middle(*vae);
  memory.decode_whole = vae->decode_memory(sizes.height, sizes.width);
  memory.decode_least = memory.decode_whole / 2;
  return memory;
}

}  // namespace linnet
