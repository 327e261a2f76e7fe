"""Writes the files of tests/data/reference that the C++ tests compare with. See README.md for what they hold.

The committed files were made with torch 2.15.0 and diffusers 0.42.1 on x86-64 with one thread. Everything is seeded;
another version or machine may change last bits, never more.
"""

import argparse
import pathlib

import torch
from safetensors.torch import save_file

from dit_reference import Config, DiT, randomise

# name -> configuration; sizes small enough to read in a debugger, each with something that a sloppy port gets wrong.
MODELS = {
    "dit_softmax": Config(8, 2, 4, 32, 2, 4, num_classes=5),
    "dit_linear": Config(8, 2, 4, 32, 2, 2, num_classes=5, mixer="linear"),
    "dit_lit": Config(8, 2, 4, 32, 2, 2, num_classes=5, mixer="lit"),
    # three channels, patch 4, a grid (4 x 4) smaller than the kernel
    "dit_lit_patch4": Config(16, 4, 3, 48, 1, 3, num_classes=5, mixer="lit"),
    # a 5 x 5 grid, head width 11, 11 frequencies per position axis: nothing divides by a vector width
    "dit_lit_odd": Config(10, 2, 4, 44, 3, 4, num_classes=6, mixer="lit"),
    "dit_softmax_odd": Config(10, 2, 4, 36, 3, 3, num_classes=6),
    "dit_no_sigma": Config(8, 2, 4, 24, 1, 2, num_classes=5, mixer="lit", learn_sigma=False),
}


def save(path, tensors, metadata=None):
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        assert tensor.isfinite().all(), name
    save_file(tensors, path, metadata)


def save_model(path, model):
    save(path, model.state_dict(), {"linnet.config": model.config.json()})


def random_model(config, seed):
    return randomise(DiT(config), seed).eval()


@torch.no_grad()
def dump_models(folder):
    for seed, (name, config) in enumerate(MODELS.items(), start=1):
        model = random_model(config, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        shape = (4, config.in_channels, config.input_size, config.input_size)
        x = torch.randn(shape, generator=generator)
        t = torch.tensor([0.0, 7.25, 500.5, 999.0])
        y = torch.tensor([0, config.num_classes, config.num_classes - 1, 2])  # the second is the null class
        trace = {}
        out = model(x, t, y, trace)
        save_model(folder / f"{name}.model.safetensors", model)
        save(folder / f"{name}.io.safetensors", {"x": x, "t": t, "y": y, "out": out, **trace})


def dump_random(folder):
    """torch's CPU generator: its normal numbers come in another order from 16 numbers on."""
    tensors = {}
    for seed in (0, 42, 123456789):
        for n in (5, 15, 16, 17, 100, 3072):
            torch.manual_seed(seed)
            tensors[f"randn.{seed}.{n}"] = torch.randn(n)
            torch.manual_seed(seed)
            tensors[f"rand.{seed}.{n}"] = torch.rand(n)
        torch.manual_seed(seed)
        # an odd count leaves half a pair behind in the generator
        tensors[f"randn_then.{seed}"] = torch.cat([torch.randn(5), torch.randn(3)])
    save(folder / "random.safetensors", tensors)


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, default=here.parent / "data" / "reference")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    dump_models(folder)
    dump_random(folder)
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{total / 1e6:.2f} MB in {folder}")


if __name__ == "__main__":
    main()
