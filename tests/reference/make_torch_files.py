#!/usr/bin/env python3
"""Writes tests/data/torch/: small files by PyTorch itself, and files that a reader must refuse (broken/). Needs
PyTorch. The values of every tensor are given by its name in tests/io/torch_file_test.cpp."""
import argparse
import io
import pathlib
import pickle
import struct
import zipfile

import torch

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "torch"
BROKEN = FOLDER / "broken"


def count(*shape, dtype=torch.float32):
    total = torch.Size(shape).numel()
    return torch.arange(total).reshape(shape).to(dtype)


def state():
    base = count(4, 6)
    return {
        "plain": count(2, 3),
        "half": count(5, dtype=torch.float16),
        "brain": count(5, dtype=torch.bfloat16),
        "double": count(3, dtype=torch.float64),
        "long": count(3, dtype=torch.int64),
        "short": count(3, dtype=torch.int16),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(count(2, 2)),
        "base": base,
        "transposed": base.t(),  # the same storage, by columns
        "part": base[1:3, 2:5],
    }


def nested():
    return {"model": {"w": count(2)}, "ema": {"w": count(2) + 10}, "opt": {"state": {0: {"step": 3}}, "lr": 1e-4},
            "args": argparse.Namespace(model="DiT-XL/2", image_size=256), "step": 400000, "big": 2**62, "none": None}


def in_memory(data, **options):
    buffer = io.BytesIO()
    torch.save(data, buffer, **options)
    return buffer.getvalue()


def rezipped(data, compression=zipfile.ZIP_STORED, change=lambda name, content: content, repeat=()):
    """The zip file again, with contents changed; None leaves a file out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist() + list(repeat):
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_pickle(data, content):
    return rezipped(data, change=lambda name, old: content if name.endswith("data.pkl") else old)


def edited(data, old, new):
    """The zip file with bytes of its pickle replaced, once."""

    def change(name, content):
        if not name.endswith("data.pkl"):
            return content
        assert content.count(old) >= 1, (old, content)
        return content.replace(old, new, 1)

    return rezipped(data, change=change)


def main():
    BROKEN.mkdir(parents=True, exist_ok=True)
    torch.save(state(), FOLDER / "state.pt")
    torch.save(state(), FOLDER / "state-legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(nested(), FOLDER / "nested.pt")
    torch.save(nested(), FOLDER / "nested-legacy.pt", _use_new_zipfile_serialization=False)

    import os

    one = in_memory({"w": count(2, 3)})
    legacy = in_memory({"w": count(2, 3)}, _use_new_zipfile_serialization=False)
    shape = b"K\x02K\x03\x86"  # (2, 3)
    cases = {
        "system_call": with_pickle(one, pickle.dumps({"w": Calls(os.system, "true")}, 2)),
        "eval_call": with_pickle(one, pickle.dumps({"w": Calls(eval, "1")}, 4)),
        "no_dictionary": in_memory([count(2)]),
        "no_tensors": in_memory({"a": 1}),
        "compressed": rezipped(one, zipfile.ZIP_DEFLATED),
        "no_pickle": rezipped(one, change=lambda n, c: None if n.endswith("data.pkl") else c),
        "no_storage": rezipped(one, change=lambda n, c: None if n.endswith("data/0") else c),
        "short_storage": rezipped(one, change=lambda n, c: c[:-1] if n.endswith("data/0") else c),
        "twice_the_same_name": rezipped(one, repeat=[n for n in zipfile.ZipFile(io.BytesIO(one)).namelist()][:1]),
        "big_endian": rezipped(one, change=lambda n, c: b"big" if n.endswith("byteorder") else c),
        "cut_off": one[:-30],
        "cut_in_half": one[: len(one) // 2],
        "shape_too_large": edited(one, shape, b"K\x02K\x04\x86"),
        "shape_enormous": edited(one, shape, b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),
        "shape_negative": edited(one, shape, b"J\xff\xff\xff\xffK\x03\x86"),
        "unknown_storage": edited(one, b"FloatStorage", b"FlockStorage"),
        "empty_pickle": with_pickle(one, b""),
        "stack_underflow": with_pickle(one, b"\x80\x02a."),
        "mark_missing": with_pickle(one, b"\x80\x02t."),
        "memo_missing": with_pickle(one, b"\x80\x02h\x05."),
        "call_of_text": with_pickle(one, b"\x80\x02X\x01\x00\x00\x00a)R."),
        "unknown_opcode": with_pickle(one, b"\x80\x02i."),
        "protocol_9": with_pickle(one, b"\x80\x09N."),
        "length_beyond_end": with_pickle(one, b"\x80\x02X\xff\xff\xff\xffa."),
        "list_in_itself": with_pickle(one, b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        "legacy_cut_off": legacy[:-4],
        "legacy_cut_in_pickle": legacy[:100],
        "legacy_count_enormous": legacy[:-32] + struct.pack("<q", 2**60) + legacy[-24:],
        "legacy_magic_only": legacy[:15],
    }
    for name, content in cases.items():
        (BROKEN / f"{name}.pt").write_bytes(content)


if __name__ == "__main__":
    main()
