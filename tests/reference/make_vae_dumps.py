"""Writes what the tests of the autoencoder compare with: diffusers' AutoencoderKL at small sizes, with random weights.

vae_pipeline.safetensors holds the pictures, 0 to 255, that the first makes of what PyTorch sampled with the model of
make_dumps.py, from the same noise: what `linnet generate` must paint. For each configuration vae_<name>.model.safetensors (weights, the configuration in the metadata) and
vae_<name>.io.safetensors (sample → mean, logvar; latent → decoded), and, of the first, its weights by the names that
files of latent diffusion have, which diffusers' own converter is asked to confirm.

The committed files were made with torch 2.15.0 and diffusers 0.42.1.

    python tests/reference/make_vae_dumps.py
"""

import argparse
import json
import pathlib
import re

import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

COMMON = {"act_fn": "silu", "layers_per_block": 2}
MODELS = {  # configuration, and height and width of the pictures
    "plain": ({"block_out_channels": [8, 16, 16], "norm_num_groups": 4}, (24, 40)),
    "deep": ({"block_out_channels": [8, 8, 16, 24], "norm_num_groups": 8, "layers_per_block": 1,
              "scaling_factor": 0.13025}, (48, 32)),
    "bare": ({"block_out_channels": [6, 12], "norm_num_groups": 3, "latent_channels": 16, "use_quant_conv": False,
              "use_post_quant_conv": False, "mid_block_add_attention": False, "scaling_factor": 0.3611,
              "shift_factor": 0.1159}, (18, 22)),
}


def randomise(model, seed):
    """Norms away from 1 and 0, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.data = values * (1.5 / parameter[0].numel() ** 0.5)
        else:
            parameter.data = (1 if "norm" in name and "weight" in name else 0) + 0.2 * values
    return model.eval()


def ldm_names(weights, levels):
    """The names of the original implementation of latent diffusion."""
    def rename(name):
        name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        for ours, theirs in {"mid_block.attentions.0": "mid.attn_1", "group_norm": "norm", "to_q": "q", "to_k": "k",
                             "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
                             "conv_shortcut": "nin_shortcut"}.items():
            name = name.replace(ours, theirs)
        return name

    attention = re.compile(r"attentions\.0\.to_.*weight")
    return {rename(name): value[:, :, None, None] if attention.search(name) else value
            for name, value in weights.items()}


@torch.no_grad()
def dump(folder, name, overrides, size, seed):
    levels = len(overrides["block_out_channels"])
    config = {**COMMON, **overrides, "down_block_types": ["DownEncoderBlock2D"] * levels,
              "up_block_types": ["UpDecoderBlock2D"] * levels}
    model = randomise(AutoencoderKL(**config), seed)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / f"vae_{name}.model.safetensors", {"config": json.dumps(config)})
    generator = torch.Generator().manual_seed(seed + 1)
    sample = torch.rand(2, 3, *size, generator=generator) * 2 - 1
    posterior = model.encode(sample).latent_dist
    latent = torch.randn(posterior.mean.shape, generator=generator)
    save_file({"sample": sample, "mean": posterior.mean.contiguous(), "logvar": posterior.logvar.contiguous(),
               "latent": latent, "decoded": model.decode(latent).sample.contiguous()},
              folder / f"vae_{name}.io.safetensors")
    return model, weights, levels


@torch.no_grad()
def dump_pipeline(folder, model):
    sampled = load_file(folder / "sampling.safetensors")
    pictures = model.decode(sampled["ddim.10.cfg3"] / model.config.scaling_factor).sample
    pixels = (127.5 * pictures + 128).clamp(0, 255).to(torch.uint8)
    inside = ((pixels > 0) & (pixels < 255)).float().mean().item()
    assert inside > 0.5, f"only {inside:.0%} of the pixels are neither black nor white"
    save_file({"noise": sampled["x_T"], "classes": sampled["y"], "pictures": pixels.permute(0, 2, 3, 1).contiguous()},
              folder / "vae_pipeline.safetensors")


def dump_ldm(path, config, weights, levels):
    renamed = ldm_names(weights, levels)
    back = convert_ldm_vae_checkpoint({"first_stage_model." + key: value for key, value in renamed.items()}, config)
    assert back.keys() == weights.keys() and all(torch.equal(back[key], weights[key]) for key in weights)
    save_file({key: value.half().contiguous() for key, value in renamed.items()}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).parent.parent / "data" / "reference"
    parser.add_argument("--folder", type=pathlib.Path, default=default)
    folder = parser.parse_args().folder
    for seed, (name, (overrides, size)) in enumerate(MODELS.items()):
        made = dump(folder, name, overrides, size, 10 * seed)
        if name == "plain":
            model, weights, levels = made
            dump_ldm(folder / "vae_plain.ldm.safetensors", model.config, weights, levels)
            dump_pipeline(folder, model)
