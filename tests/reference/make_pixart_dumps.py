"""Writes what the tests of the text-to-image transformer compare with: diffusers' PixArtTransformer2DModel, small, with
random weights.

pixart_<name>.model.safetensors (weights by diffusers' names, its config.json in the metadata "config") and
pixart_<name>.io.safetensors: x, t, text, text_mask → out. "sigma": Σ, positions interpolated by 2, latents 8 × 12;
"alpha": α with its micro-conditions; "lit": Σ with each self-attention replaced by LiT's (dit_reference.py); "compressed"
and "normed": Σ with what diffusers lacks of its original, the compression of keys and values, and with it the norms of q
and k. The weights of the last three have the original's names.

pixart_lit.gradients.safetensors holds the gradients of Σ out · weight in all parameters and in the texts' states:
weight, text (as in the io file), grad.<name>.

pixart_sampling.safetensors holds what the samplers of diffusion_reference.py make of "lit" with guidance away from an
embedding of no text, under the mask of the prompt's as in PixArt's own code: x, text, text_mask, null, scale, noise →
ddim.7, ddpm.5.

pixart_lit.pth is "lit" with that embedding as PixArt's own training saves it.

text_pipeline.safetensors holds what diffusers' PixArtSigmaPipeline paints with the models of make_text_dumps.py and
make_vae_dumps.py and a transformer of its own (pixart_pipeline.model): noise → latents, pictures (0 to 255), for the
prompts in the metadata.

The committed files were made with torch 2.15.0 and diffusers 0.42.1.

    python tests/reference/make_pixart_dumps.py             # --only NAME: one of the models alone
"""

import argparse
import json
import pathlib

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from diffusion_reference import Schedule, ddim, ddpm
from dit_reference import LinearAttention
from make_text_dumps import read_tokenizer

COMMON = {"num_attention_heads": 3, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2,
          "cross_attention_dim": 24, "caption_channels": 20, "patch_size": 2, "norm_elementwise_affine": False,
          "norm_eps": 1e-6, "attention_bias": True, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single"}
MODELS = {  # configuration, height and width of the latents
    "sigma": ({"sample_size": 16, "interpolation_scale": 2, "use_additional_conditions": False}, (8, 12)),
    "alpha": ({"sample_size": 8, "interpolation_scale": 1, "use_additional_conditions": True}, (8, 6)),
    "lit": ({"sample_size": 8, "interpolation_scale": 1, "use_additional_conditions": False}, (8, 8)),
    "compressed": ({"sample_size": 16, "interpolation_scale": 2, "use_additional_conditions": False}, (10, 14)),
    "normed": ({"sample_size": 16, "interpolation_scale": 2, "use_additional_conditions": False}, (8, 12)),
}
EXTRAS = {"compressed": (False, [1, 2]), "normed": (True, [2, 1])}  # qk_norm; for each block, tokens a side made one
LENGTHS = [7, 1, 4]


class LitAttention(torch.nn.Module):
    def __init__(self, width, grid):
        super().__init__()
        self.attn = LinearAttention(width, 2, grid, dwc=True)

    def forward(self, x, **ignored):
        return self.attn(x)


class ExtendedAttention(torch.nn.Module):
    """PixArt-Σ's: layer norms of q and k before heads are split; keys and values of side × side tokens made one."""

    def __init__(self, width, heads, grid, qk_norm, side):
        super().__init__()
        self.heads, self.grid = heads, grid
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.proj = torch.nn.Linear(width, width)
        if qk_norm:
            self.q_norm, self.k_norm = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        if side > 1:
            self.sr = torch.nn.Conv2d(width, width, side, stride=side, groups=width)
            self.norm = torch.nn.LayerNorm(width)

    def compress(self, x):
        picture = x.transpose(1, 2).unflatten(2, self.grid)  # (batch, width, rows, columns)
        return self.norm(self.sr(picture).flatten(2).transpose(1, 2))

    def forward(self, x, **ignored):
        q, k, v = self.qkv(x).chunk(3, dim=2)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        if hasattr(self, "sr"):
            k, v = self.compress(k), self.compress(v)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def replace_attention(model, name, grid):
    for i, block in enumerate(model.transformer_blocks):
        if name == "lit":
            block.attn1 = LitAttention(24, grid[0])
        elif name in EXTRAS:
            qk_norm, sides = EXTRAS[name]
            block.attn1 = ExtendedAttention(24, 3, grid, qk_norm, sides[i])


def randomise(model):
    generator = torch.Generator().manual_seed(11)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator)
        parameter.data = values * (1.2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.2)
        if name.endswith("norm.weight"):
            parameter.data += 1
        if ".sr." in name:  # so small that the norm's epsilon counts
            parameter.data *= 0.02
    return model.eval()


def original_names(state):
    """Those of PixArt's own code, of the tensors that are one in both; replaced attention has them already."""
    pairs = {"pos_embed.proj": "x_embedder.proj", "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
             "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2", "adaln_single.linear": "t_block.1",
             "caption_projection.linear_1": "y_embedder.y_proj.fc1", "caption_projection.linear_2": "y_embedder.y_proj.fc2",
             "proj_out": "final_layer.linear", "transformer_blocks": "blocks", "attn1.attn": "attn", "attn1": "attn",
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


def random_model(name):
    config, (height, width) = MODELS[name]
    model = PixArtTransformer2DModel(**COMMON, **config)
    replace_attention(model, name, (height // 2, width // 2))
    return randomise(model)


def make(name, folder):
    config, (height, width) = MODELS[name]
    model = random_model(name)
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
    if name == "lit" or name in EXTRAS:
        state = original_names(state)
    save_file(state, folder / f"pixart_{name}.model.safetensors", {"config": json.dumps({**COMMON, **config})})
    tensors = {"x": x, "t": t, "text": text, "text_mask": mask, "out": out}
    if name == "sigma":  # sampled without guidance, from the noise x
        def predict(noisy, timestep):
            return model(noisy, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=timestep,
                         added_cond_kwargs=conditions).sample[:, :4]
        with torch.no_grad():
            for steps in (6, 12):
                tensors[f"fractional.{steps}"] = dpm_solver_fractional(predict, x.double(), steps)
    save_file(tensors, folder / f"pixart_{name}.io.safetensors")
    if name == "lit":
        save_gradients(model, x, t, text, mask, folder)


def save_gradients(model, x, t, text, mask, folder):
    weight = torch.randn(3, 8, *x.shape[2:], generator=torch.Generator().manual_seed(14))
    text = text.clone().requires_grad_()
    out = model(x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
    (out * weight).sum().backward()
    gradients = original_names({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    save_file({"weight": weight, "grad.text": text.grad, **{f"grad.{name}": value for name, value in gradients.items()}},
              folder / "pixart_lit.gradients.safetensors")


def make_sampling(folder):
    model, generator = random_model("lit"), torch.Generator().manual_seed(15)
    x, text = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 9, 20, generator=generator)
    null, noise = torch.randn(9, 20, generator=generator), torch.randn(5, 2, 4, 8, 8, generator=generator)
    mask, scale = torch.tensor([[int(i < length) for i in range(9)] for length in (7, 4)]), 3.0

    def guided(noisy, t):
        out = model(torch.cat([noisy] * 2), encoder_hidden_states=torch.cat([text, null.expand(2, 9, 20)]),
                    encoder_attention_mask=torch.cat([mask] * 2), timestep=torch.cat([t] * 2),
                    added_cond_kwargs={"resolution": None, "aspect_ratio": None}).sample
        wanted, away = out.chunk(2)
        return torch.cat([away[:, :4] + scale * (wanted[:, :4] - away[:, :4]), wanted[:, 4:]], dim=1)

    save_file({"x": x, "text": text, "text_mask": mask, "null": null, "scale": torch.tensor([scale]), "noise": noise,
               "ddim.7": ddim(guided, Schedule(7), x), "ddpm.5": ddpm(guided, Schedule(5), x, noise)},
              folder / "pixart_sampling.safetensors")
    state = {key: value.clone() for key, value in model.state_dict().items() if key != "pos_embed.pos_embed"}
    state = {**original_names(state), "y_embedder.y_embedding": null, "pos_embed": torch.zeros(1, 16, 24)}
    torch.save({"epoch": 1, "state_dict": state, "state_dict_ema": {key: value + 1 for key, value in state.items()}},
               folder / "pixart_lit.pth")


def dpm_solver_fractional(predict, x, steps):
    """DPM-Solver++(2M) as DPM-Solver's and PixArt's own code have it: even in time from 1 to 1/1000, log alpha
    interpolated between timesteps, the last step of first order only where there are less than 10."""
    log_alphas = 0.5 * torch.log(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumsum(0)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)[1:]
    times = torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)

    def at(time):
        index = torch.searchsorted(grid, time).clamp(1, 999)
        share = (time - grid[index - 1]) / (grid[index] - grid[index - 1])
        log_alpha = log_alphas[index - 1] + share * (log_alphas[index] - log_alphas[index - 1])
        alpha = log_alpha.exp()
        sigma = (1 - alpha**2).sqrt()
        return alpha, sigma, (alpha / sigma).log()

    before = None  # lambda and prediction of the step before
    for i in range(steps):
        alpha, sigma, here = at(times[i])
        alpha_next, sigma_next, there = at(times[i + 1])
        timestep = ((times[i] - 1e-3) * 1000).float().expand(len(x))
        picture = (x - sigma * predict(x.float(), timestep).double()) / alpha
        h, towards = there - here, picture
        if before is not None and not (i == steps - 1 and steps < 10):
            towards = picture + 0.5 * h / (here - before[0]) * (picture - before[1])
        x = sigma_next / sigma * x - alpha_next * torch.expm1(-h) * towards
        before = here, picture
    return x.float()


PROMPTS, NEGATIVE = ["Two red Stars above a blue ring ", "a corgi"], "Many small moons"


def config_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"])


def load(model, path):
    model.load_state_dict(load_file(path), strict=False)
    return model.eval()


def make_pipeline(folder, tokenizer):
    config = {**COMMON, "caption_channels": 24, "sample_size": 8, "interpolation_scale": 1,
              "use_additional_conditions": False}
    transformer = randomise(PixArtTransformer2DModel(**config))
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer, transformer=transformer,
        text_encoder=load(T5EncoderModel(T5Config(**config_of(folder / "t5.model.safetensors"))),
                          folder / "t5.model.safetensors"),
        vae=load(AutoencoderKL(**config_of(folder / "vae_plain.model.safetensors")), folder / "vae_plain.model.safetensors"),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"))
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(13))
    options = {"prompt": PROMPTS, "negative_prompt": NEGATIVE, "num_inference_steps": 6, "guidance_scale": 4.5, "height": 32,
               "width": 32, "use_resolution_binning": False, "clean_caption": False, "latents": noise}
    latents = pipeline(**options, output_type="latent").images
    pictures = torch.from_numpy((pipeline(**options, output_type="np").images * 255).round()).permute(0, 3, 1, 2)
    save_file({k: v.clone() for k, v in transformer.state_dict().items() if k != "pos_embed.pos_embed"},
              folder / "pixart_pipeline.model.safetensors", {"config": json.dumps(config)})
    save_file({"noise": noise, "latents": latents.contiguous(), "pictures": pictures.to(torch.uint8).contiguous()},
              folder / "text_pipeline.safetensors", {"prompts": json.dumps(PROMPTS), "negative": NEGATIVE})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "data/reference")
    parser.add_argument("--only", choices=MODELS)
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else MODELS:
        make(name, arguments.folder)
    if not arguments.only:
        make_sampling(arguments.folder)
        make_pipeline(arguments.folder, read_tokenizer(arguments.folder.parent / "tokenizer"))
