"""Writes what the tests of Inception and its figures compare with: pytorch-fid's network with weights that both sides
draw from the parameters' names, what it sees in a few pictures that are resized and shifted as TensorFlow's network does
it (torch-fidelity), and two sets of pictures with their figures: FID and sFID (NumPy, in f64), Inception score,
precision and recall (torch-fidelity).

The committed file was made with torch 2.15.0, pytorch-fid 0.3.0 and torch-fidelity 0.4.0.

    python tests/reference/make_inception_dumps.py
"""

import argparse
import math
import pathlib
import zipfile

import numpy
import pytorch_fid.inception
import torch
from pytorch_fid.inception import InceptionV3
from safetensors.torch import save_file
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

SETS = {"one": 14, "other": 11}  # pictures in each


def hash_name(name):  # FNV-1a
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value & 0x7FFFFFFF


def draw(name, shape):
    """Also in tests/store/inception_test.cpp."""
    u = torch.rand(shape, generator=torch.Generator().manual_seed(hash_name(name)))
    if name.endswith(("conv.weight", "fc.weight")):
        return (2 * u - 1) * (1.42 * math.sqrt(3 / (u[0].numel())))
    if name.endswith("bn.weight"):
        return 0.8 + 0.4 * u
    if name.endswith("running_var"):
        return 0.5 + u
    return 0.4 * (u - 0.5)


def network():
    """The public network, without the download of its weights."""
    pytorch_fid.inception.load_state_dict_from_url = lambda *arguments, **named: {}
    keep = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda *arguments, **named: None
    inner = pytorch_fid.inception.fid_inception_v3()
    torch.nn.Module.load_state_dict = keep
    inner.load_state_dict({name: value if name.endswith("tracked") else draw(name, value.shape)
                           for name, value in inner.state_dict().items()})
    pytorch_fid.inception.fid_inception_v3 = lambda: inner
    return inner.eval(), InceptionV3([0, 1, 2, 3], resize_input=False, normalize_input=False).eval()


def pictures(count, height, width, seed):
    """Blobs of colour, for features that differ."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 3, 3, generator=generator)
    grain = 0.2 * torch.rand(count, 3, height, width, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return ((0.8 * smooth + grain).clamp(0, 1) * 255).to(torch.uint8)


@torch.no_grad()
def look(inner, model, pixels):
    seen = {}
    handle = inner.Mixed_6d.branch1x1.register_forward_hook(
        lambda module, inputs, output: seen.update(spatial=output[:, :7].permute(0, 2, 3, 1).flatten(1)))
    resized = interpolate_bilinear_2d_like_tensorflow1x(pixels.float(), size=(299, 299), align_corners=False)
    blocks = model((resized - 128) / 128)
    handle.remove()
    for name, block in zip(["first", "second", "third", "pool"], blocks):
        seen[name] = block.mean(dim=(2, 3))
    seen["logits"] = seen["pool"] @ inner.fc.weight.T
    return seen


def frechet(one, other):
    """By the singular values of the product of the centred features: exact also for few of them."""
    one, other = one.double().numpy(), other.double().numpy()
    a = (one - one.mean(axis=0)) / math.sqrt(len(one) - 1)
    b = (other - other.mean(axis=0)) / math.sqrt(len(other) - 1)
    roots = numpy.linalg.svd(a @ b.T, compute_uv=False).sum()
    apart = one.mean(axis=0) - other.mean(axis=0)
    return apart @ apart + (a * a).sum() + (b * b).sum() - 2 * roots


def write_npz(folder):
    folder.mkdir(exist_ok=True)
    pairs, mu = numpy.arange(6, dtype=numpy.float32).reshape(2, 3), numpy.arange(3, dtype=numpy.float64)
    pictures = numpy.arange(24, dtype=numpy.uint8).reshape(1, 2, 4, 3)
    numpy.savez(folder / "numbers.npz", pairs=pairs, bytes=pictures)
    numpy.savez_compressed(folder / "compressed.npz", pairs=pairs, mu=mu)
    numpy.savez(folder / "fortran.npz", order=numpy.asfortranarray(pairs))
    numpy.savez(folder / "fortran_pictures.npz", arr_0=numpy.asfortranarray(pictures.repeat(2, axis=0)))
    # Statistics as Inception's, beside what nobody asks for.
    numpy.savez_compressed(folder / "statistics.npz", labels=numpy.zeros((1, 1, 1, 1, 2)), mu=numpy.ones(2048),
                           sigma=numpy.asfortranarray(numpy.zeros((2048, 2048), dtype=numpy.float32)))
    numpy.savez(folder / "five_dimensions.npz", more=numpy.zeros((1, 1, 1, 1, 2)), mu=mu)
    numpy.savez(folder / "no_array.npz", mu=mu)
    with zipfile.ZipFile(folder / "no_array.npz", "a") as archive:
        archive.writestr("notes.txt", "what a person has put beside the arrays")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).parent.parent / "data" / "reference"
    parser.add_argument("--folder", type=pathlib.Path, default=default)
    folder = parser.parse_args().folder
    inner, model = network()
    pixels = pictures(2, 40, 56, 1)
    seen = look(inner, model, pixels)
    tensors = {"pictures": pixels.permute(0, 2, 3, 1).contiguous(),
               "probabilities": seen.pop("logits").softmax(dim=1), **seen}
    views = {}
    for seed, (name, count) in enumerate(SETS.items()):
        pixels = pictures(count, 24, 24, 10 + seed)
        tensors[name] = pixels.permute(0, 2, 3, 1).contiguous()
        views[name] = look(inner, model, pixels)
    one, other = views["one"], views["other"]
    precision, recall = calculate_precision_recall_full(one["pool"], other["pool"])
    score = isc_features_to_metric(one["logits"], splits=1, shuffle=False)["inception_score_mean"]
    figures = {"fid": frechet(one["pool"], other["pool"]), "sfid": frechet(one["spatial"], other["spatial"]),
               "score": score, "precision": precision, "recall": recall}
    print(figures)
    tensors |= {name: torch.tensor([value], dtype=torch.float64) for name, value in figures.items()}
    random = torch.Generator().manual_seed(5)
    clouds = {"cloud.one": torch.randn(60, 8, generator=random), "cloud.other": torch.randn(50, 8, generator=random) * 0.9 + 0.4}
    tensors |= clouds
    tensors["cloud.figures"] = torch.tensor(calculate_precision_recall_full(*clouds.values()), dtype=torch.float64)
    write_npz(folder.parent / "npz")
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "inception.safetensors")


if __name__ == "__main__":
    main()
