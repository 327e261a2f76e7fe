#include <nlohmann/json.hpp>

#include "core/printable.h"
#include "models/vae.h"

namespace linnet {
namespace {

void require(bool condition, std::string_view sentence) {
  if (!condition) throw UsageError(fmt::format("impossible autoencoder: {}", sentence));
}

// What is there must be of the right type; what is missing, or null, stays as it is.
template <class T>
void read(const nlohmann::json& json, const char* key, T& value) {
  if (const auto found = json.find(key); found != json.end() && !found->is_null()) found->get_to(value);
}

// Blocks of another kind than Linnet's would be computed wrongly.
void check_blocks(const nlohmann::json& json, const char* key, std::string_view known, size_t count) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return;
  check(found->size() == count, "the autoencoder's {} and block_out_channels do not go together", key);
  for (const auto& block : *found)
    check(block.get<std::string>() == known, "an autoencoder of blocks \"{}\" is none that Linnet knows",
          printable(block.get<std::string>()));
}

}  // namespace

void VaeConfig::validate() const {
  const auto fits = [](int64_t channels) { return channels > 0 && channels <= 64; };
  require(fits(in_channels) && fits(out_channels) && fits(latent_channels), "it has 1 to 64 channels outside");
  require(!block_out_channels.empty() && block_out_channels.size() <= 8, "it has 1 to 8 levels");
  require(layers_per_block > 0 && layers_per_block <= 16, "layers_per_block must lie in 1..16");
  require(norm_num_groups > 0, "norm_num_groups must be above 0");
  for (const int64_t width : block_out_channels)
    require(width > 0 && width <= 8192 && width % norm_num_groups == 0,
            "block_out_channels are multiples of norm_num_groups, at most 8192");
  require(scaling_factor > 0 && scaling_factor < 1e6, "scaling_factor must be above 0");
}

VaeConfig vae_config_from_json(std::string_view text) {
  try {
    const auto json = nlohmann::json::parse(text);
    check(json.is_object(), "the autoencoder's configuration is no object");
    VaeConfig config;
    config.block_out_channels = {64};  // diffusers' defaults from here on
    config.layers_per_block = 1;
    read(json, "in_channels", config.in_channels);
    read(json, "out_channels", config.out_channels);
    read(json, "latent_channels", config.latent_channels);
    read(json, "block_out_channels", config.block_out_channels);
    read(json, "layers_per_block", config.layers_per_block);
    read(json, "norm_num_groups", config.norm_num_groups);
    read(json, "use_quant_conv", config.use_quant_conv);
    read(json, "use_post_quant_conv", config.use_post_quant_conv);
    read(json, "mid_block_add_attention", config.mid_block_add_attention);
    read(json, "scaling_factor", config.scaling_factor);
    read(json, "shift_factor", config.shift_factor);
    std::string activation = "silu";
    read(json, "act_fn", activation);
    check(activation == "silu" || activation == "swish",
          "an autoencoder with the activation \"{}\" is none that Linnet knows", printable(activation));
    check_blocks(json, "down_block_types", "DownEncoderBlock2D", config.block_out_channels.size());
    check_blocks(json, "up_block_types", "UpDecoderBlock2D", config.block_out_channels.size());
    config.validate();
    return config;
  } catch (const UsageError& error) {  // nobody's usage is wrong: the file is
    fail("{}", error.what());
  } catch (const nlohmann::json::exception& error) {
    fail("the autoencoder's configuration is not readable ({})", error.what());
  }
}

std::string to_json(const VaeConfig& config) {
  const size_t levels = config.block_out_channels.size();
  nlohmann::ordered_json json;
  json["_class_name"] = "AutoencoderKL";
  json["act_fn"] = "silu";
  json["block_out_channels"] = config.block_out_channels;
  json["down_block_types"] = std::vector<std::string>(levels, "DownEncoderBlock2D");
  json["in_channels"] = config.in_channels;
  json["latent_channels"] = config.latent_channels;
  json["layers_per_block"] = config.layers_per_block;
  json["mid_block_add_attention"] = config.mid_block_add_attention;
  json["norm_num_groups"] = config.norm_num_groups;
  json["out_channels"] = config.out_channels;
  json["scaling_factor"] = config.scaling_factor;
  json["shift_factor"] = config.shift_factor;
  json["up_block_types"] = std::vector<std::string>(levels, "UpDecoderBlock2D");
  json["use_post_quant_conv"] = config.use_post_quant_conv;
  json["use_quant_conv"] = config.use_quant_conv;
  return json.dump(2);
}

namespace {

struct Flops {
  double total = 0;
  void conv(double pixels, double in, double out, double taps = 9) { total += 2 * pixels * in * out * taps; }
  void resnet(double pixels, double in, double out) {
    conv(pixels, in, out);
    conv(pixels, out, out);
    if (in != out) conv(pixels, in, out, 1);
  }
};

}  // namespace

double decode_flops(const VaeConfig& config, int64_t latent_height, int64_t latent_width) {
  Flops flops;
  double pixels = static_cast<double>(latent_height * latent_width),
         width = static_cast<double>(config.block_out_channels.back());
  const auto latent = static_cast<double>(config.latent_channels);
  if (config.use_post_quant_conv) flops.conv(pixels, latent, latent, 1);
  flops.conv(pixels, latent, width);
  flops.resnet(pixels, width, width);
  flops.resnet(pixels, width, width);
  if (config.mid_block_add_attention) {
    flops.conv(pixels, width, 4 * width, 1);
    flops.total += 4 * pixels * pixels * width;
  }
  for (size_t i = config.block_out_channels.size(); i-- > 0;) {
    const auto out = static_cast<double>(config.block_out_channels[i]);
    for (int64_t j = 0; j <= config.layers_per_block; ++j) flops.resnet(pixels, j == 0 ? width : out, out);
    width = out;
    if (i == 0) break;
    flops.conv(4 * pixels, width, width, 4);  // as four of 2×2
    pixels *= 4;
  }
  flops.conv(pixels, width, static_cast<double>(config.out_channels));
  return flops.total;
}

}  // namespace linnet
