"""DiT and LiT in plain PyTorch: the slow, readable side that the C++ models are compared with.

Not a training code base: no weight initialisation, no mixed precision, no checkpoint formats beyond names.
Names, shapes and numerics follow DiT (Peebles and Xie, arXiv 2212.09748) as its authors released it; the linear
attention follows LiT (arXiv 2501.12976): the ReLU feature map of section 3.1 and the depth-wise convolution on v;
the focused feature map follows FLatten (arXiv 2308.00442).
"""

import json
import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

FREQUENCIES = 256  # width of the sinusoidal timestep embedding
KERNEL = 5  # depth-wise convolution, padding 2
MIXERS = ("softmax", "linear", "lit", "focused", "focused_gelu")


@dataclass
class Config:
    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    learn_sigma: bool = True
    mixer: str = "softmax"  # one of MIXERS
    class_dropout: float = 0.1

    @property
    def grid(self):
        return self.input_size // self.patch_size

    @property
    def out_channels(self):
        return self.in_channels * (2 if self.learn_sigma else 1)

    def json(self):
        """What a checkpoint stores under the safetensors metadata key "linnet.config"."""
        return json.dumps({"model": "dit", **asdict(self)})


def sincos_1d(positions, width):
    """(tokens,) float64 -> (tokens, width): sines of all frequencies, then cosines."""
    frequencies = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(width, grid):
    """(1, grid * grid, width): the first half of the channels from the column x, the second from the row y."""
    index = torch.arange(grid * grid)
    column, row = (index % grid).double(), (index // grid).double()
    return torch.cat([sincos_1d(column, width // 2), sincos_1d(row, width // 2)], dim=1).float()[None]


def timestep_frequencies(t):
    """(batch,), may be fractional -> (batch, 256): cosines, then sines; computed in f32 as the original."""
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class SoftmaxAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head channels)
        o = F.scaled_dot_product_attention(q, k, v)
        return self.proj(o.transpose(1, 2).reshape(batch, tokens, width))


class LinearAttention(nn.Module):
    """Simplified linear attention: o_i = q_i (sum_j k_j^T v_j) / (q_i . sum_j k_j), optionally plus DWC(v)."""

    def __init__(self, width, heads, grid, dwc):
        super().__init__()
        self.heads, self.grid = heads, grid
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if dwc:  # one filter for each channel within a head, shared by all heads
            channels = width // heads
            self.dwc = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)

    def split(self, x):
        """(batch, tokens, width) -> (batch, heads, tokens, head channels)"""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x):
        k, v = self.kv(x).chunk(2, dim=2)
        q, k = self.features(self.q(x), k)
        q, k, v = self.split(q), self.split(k), self.split(v)
        memory = k.transpose(2, 3) @ v  # (batch, heads, head channels of k, head channels of v)
        normaliser = self.guard(q @ k.sum(dim=2)[..., None], x.shape[1])  # (batch, heads, tokens, 1)
        o = q @ memory / normaliser
        if hasattr(self, "dwc"):
            o = o + self.convolve(v)
        return self.proj(o.transpose(1, 2).flatten(2))

    def features(self, q, k):
        return F.relu(q) + 1e-6, F.relu(k) + 1e-6

    def guard(self, normaliser, tokens):
        return normaliser

    def convolve(self, v):
        batch, heads, tokens, channels = v.shape
        image = v.reshape(batch * heads, self.grid, self.grid, channels).permute(0, 3, 1, 2)
        return self.dwc(image).permute(0, 2, 3, 1).reshape(batch, heads, tokens, channels)


class FocusedAttention(LinearAttention):
    """x -> x^3 |x| / |x^3| with x = (act(x) + 1e-6) / softplus(scale), norms over all heads' channels together."""

    def __init__(self, width, heads, grid, activation):
        super().__init__(width, heads, grid, dwc=True)
        self.activation = activation
        self.scale = nn.Parameter(torch.zeros(1, 1, width))
        self.positional_encoding = nn.Parameter(torch.zeros(1, grid * grid, width))

    def features(self, q, k):
        return self.focus(q), self.focus(k + self.positional_encoding)

    def focus(self, x):
        x = (self.activation(x) + 1e-6) / F.softplus(self.scale)
        cube = x**3
        return cube * (x.norm(dim=2, keepdim=True) / cube.norm(dim=2, keepdim=True))

    def guard(self, normaliser, tokens):
        """Official: the mean over the tokens + 1e-6. With GELU it may be negative: away from 0 on that side too."""
        return normaliser + torch.copysign(torch.full_like(normaliser, 1e-6 * tokens), normaliser)


def make_mixer(config):
    if config.mixer == "softmax":
        return SoftmaxAttention(config.hidden_size, config.num_heads)
    if config.mixer in ("linear", "lit"):
        return LinearAttention(config.hidden_size, config.num_heads, config.grid, dwc=config.mixer == "lit")
    if config.mixer in ("focused", "focused_gelu"):
        activation = F.relu if config.mixer == "focused" else F.gelu
        return FocusedAttention(config.hidden_size, config.num_heads, config.grid, activation)
    raise ValueError(f"unknown mixer {config.mixer}")


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.attn = make_mixer(config)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, condition):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(modulate(layer_norm(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulate(layer_norm(x), shift2, scale2))


class FinalLayer(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, condition):
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(modulate(layer_norm(x), shift, scale))


class PatchEmbedder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)  # (batch, tokens, width), tokens row by row


class TimestepEmbedder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        return self.mlp(timestep_frequencies(t).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """Labels as given: whoever wants class dropout passes the null class num_classes."""

    def __init__(self, config):
        super().__init__()
        rows = config.num_classes + (config.class_dropout > 0)
        self.embedding_table = nn.Embedding(rows, config.hidden_size)

    def forward(self, y):
        return self.embedding_table(y)


class DiT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.x_embedder = PatchEmbedder(config)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(config)
        self.pos_embed = nn.Parameter(sincos_2d(width, config.grid), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(width, config.patch_size**2 * config.out_channels)

    def forward(self, x, t, y, trace=None):
        """x (batch, channels, height, width), t (batch,), y (batch,) -> (batch, out channels, height, width).

        trace: a dictionary that receives the values on the way, by name.
        """
        trace = {} if trace is None else trace
        x = trace["tokens"] = self.x_embedder(x) + self.pos_embed
        condition = trace["condition"] = self.t_embedder(t) + self.y_embedder(y)
        for i, block in enumerate(self.blocks):
            x = trace[f"block.{i}"] = block(x, condition)
        return self.unpatchify(self.final_layer(x, condition))

    def unpatchify(self, x):
        """(batch, tokens, patch row * patch column * channel) -> (batch, channel, height, width)"""
        c = self.config
        x = x.view(-1, c.grid, c.grid, c.patch_size, c.patch_size, c.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, c.out_channels, c.input_size, c.input_size)


@torch.no_grad()
def randomise(model, seed):
    """Random values for every parameter but the positions, so that nothing is trivially zero and outputs are O(1)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if name == "pos_embed":
            continue
        values = torch.randn(parameter.shape, generator=generator)
        if name.endswith("bias"):
            scale = 0.1
        elif "embedding_table" in name:
            scale = 0.5
        elif name.endswith(("attn.scale", "attn.positional_encoding")):
            scale = 0.5
        elif "adaLN_modulation" in name:
            scale = 1.5 / math.sqrt(parameter.shape[1])  # gates around 0.5: every branch counts
        else:
            scale = 1 / math.sqrt(parameter[0].numel())
        parameter.copy_(values * scale)
    return model
