"""Writes what the tests of the text-to-image transformer compare with: diffusers' PixArtTransformer2DModel, small, with
random weights.

pixart_<name>.model.safetensors (weights by diffusers' names, its config.json in the metadata "config") and
pixart_<name>.io.safetensors: x, t, text, text_mask → out. "sigma": Σ, positions interpolated by 2, latents 8 × 12;
"alpha": α with its micro-conditions; "lit": Σ with each self-attention replaced by LiT's (dit_reference.py), its weights
by the original's names.

The committed files were made with torch 2.15.0 and diffusers 0.42.1.

    python tests/reference/make_pixart_dumps.py
"""

import argparse
import json
import pathlib

import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file

from dit_reference import LinearAttention

COMMON = {"num_attention_heads": 3, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
          "cross_attention_dim": 24, "caption_channels": 20, "patch_size": 2, "norm_elementwise_affine": False,
          "norm_eps": 1e-6, "attention_bias": True, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single"}
MODELS = {  # configuration, height and width of the latents
    "sigma": ({"sample_size": 16, "interpolation_scale": 2, "use_additional_conditions": False}, (8, 12)),
    "alpha": ({"sample_size": 8, "interpolation_scale": 1, "use_additional_conditions": True}, (8, 6)),
    "lit": ({"sample_size": 8, "interpolation_scale": 1, "use_additional_conditions": False}, (8, 8)),
}
LENGTHS = [7, 1, 4]


class LitAttention(torch.nn.Module):
    def __init__(self, width, grid):
        super().__init__()
        self.attn = LinearAttention(width, 2, grid, dwc=True)

    def forward(self, x, **ignored):
        return self.attn(x)


def randomise(model):
    generator = torch.Generator().manual_seed(11)
    for _, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = values * (1.2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.2)
    return model.eval()


def original_names(state):
    """Those of PixArt's own code, of the tensors that are one in both; LiT's attention has them already."""
    pairs = {"pos_embed.proj": "x_embedder.proj", "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
             "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2", "adaln_single.linear": "t_block.1",
             "caption_projection.linear_1": "y_embedder.y_proj.fc1", "caption_projection.linear_2": "y_embedder.y_proj.fc2",
             "proj_out": "final_layer.linear", "transformer_blocks": "blocks", "attn1.attn": "attn",
             "attn2.to_q": "cross_attn.q_linear", "attn2.to_out.0": "cross_attn.proj", "ff.net.0.proj": "mlp.fc1",
             "ff.net.2": "mlp.fc2"}
    result = {}
    for name, value in state.items():
        if "attn2.to_v" in name:
            continue
        if "attn2.to_k" in name:
            value = torch.cat([value, state[name.replace("to_k", "to_v")]])
            name = name.replace("attn2.to_k", "cross_attn.kv_linear")
        if name == "scale_shift_table":
            name = "final_layer.scale_shift_table"
        for theirs, ours in pairs.items():
            name = name.replace(theirs, ours)
        result[name] = value
    return result


def make(name, folder):
    config, (height, width) = MODELS[name]
    model = PixArtTransformer2DModel(**COMMON, **config)
    if name == "lit":
        for block in model.transformer_blocks:
            block.attn1 = LitAttention(24, height // 2)
    randomise(model)
    generator = torch.Generator().manual_seed(12)
    x = torch.randn(3, 4, height, width, generator=generator)
    t = torch.tensor([0.0, 417.5, 999.0])
    text = torch.randn(3, 9, 20, generator=generator)
    mask = torch.tensor([[int(i < length) for i in range(9)] for length in LENGTHS])
    conditions = {"resolution": None, "aspect_ratio": None}
    if config["use_additional_conditions"]:
        conditions = {"resolution": torch.tensor([[height * 8.0, width * 8.0]] * 3),
                      "aspect_ratio": torch.tensor([[height / width]] * 3)}
    with torch.no_grad():
        out = model(x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t,
                    added_cond_kwargs=conditions).sample
    state = {key: value.clone() for key, value in model.state_dict().items() if key != "pos_embed.pos_embed"}
    if name == "lit":
        state = original_names(state)
    save_file(state, folder / f"pixart_{name}.model.safetensors", {"config": json.dumps({**COMMON, **config})})
    save_file({"x": x, "t": t, "text": text, "text_mask": mask, "out": out}, folder / f"pixart_{name}.io.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "data/reference")
    arguments = parser.parse_args()
    for name in MODELS:
        make(name, arguments.folder)
