"""Writes what the tests of evaluation compare with: a classifier's features and logits (PyTorch), and a Fréchet
distance (NumPy, by the eigenvalues of the product of both covariances, in f64).

The committed files were made with torch 2.15.0 and numpy 2.4.6.

    python tests/reference/make_evaluation_dumps.py
"""

import argparse
import pathlib

import numpy
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from dit_reference import LinearAttention, layer_norm, randomise, sincos_2d


class Block(nn.Module):
    def __init__(self, width, heads, grid):
        super().__init__()
        self.attn = LinearAttention(width, heads, grid, dwc=True)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x):
        x = x + self.attn(layer_norm(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](layer_norm(x)), approximate="tanh"))


class Classifier(nn.Module):
    def __init__(self, size, patch, width, depth, heads, classes):
        super().__init__()
        self.positions = sincos_2d(width, size // patch)
        self.patches = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width, heads, size // patch) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def features(self, x):
        h = self.patches["proj"](x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            h = block(h)
        return layer_norm(h).mean(dim=1)


@torch.no_grad()
def dump_classifier(path):
    model = randomise(Classifier(12, 4, 20, 2, 2, 5), 1).eval()
    x = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    features = model.features(x)
    tensors = {"x": x, "features": features, "logits": model.head(features)}
    tensors |= {"model." + name: tensor for name, tensor in model.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def frechet(one, other):
    c1, c2 = numpy.cov(one, rowvar=False), numpy.cov(other, rowvar=False)
    root_trace = numpy.sqrt(numpy.linalg.eigvals(c1 @ c2).real).sum()
    apart = one.mean(axis=0) - other.mean(axis=0)
    return c1, apart @ apart + numpy.trace(c1) + numpy.trace(c2) - 2 * root_trace


def dump_frechet(path):
    random = numpy.random.default_rng(3)
    one = random.normal(size=(64, 12)).astype(numpy.float32)
    other = (random.normal(size=(80, 12)) @ random.normal(size=(12, 12)) + 0.5).astype(numpy.float32)
    covariance, distance = frechet(one.astype(numpy.float64), other.astype(numpy.float64))
    save_file({"one": torch.from_numpy(one), "other": torch.from_numpy(other),
               "covariance": torch.from_numpy(covariance), "distance": torch.tensor([distance], dtype=torch.float64)},
              path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).parent.parent / "data" / "reference"
    parser.add_argument("--folder", type=pathlib.Path, default=default)
    folder = parser.parse_args().folder
    dump_classifier(folder / "classifier.safetensors")
    dump_frechet(folder / "frechet.safetensors")
