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
    moments = {"step": torch.tensor(3.0), "exp_avg": count(2), "exp_avg_sq": count(2)}
    return {"model": {"w": count(2)}, "ema": {"w": count(2) + 10},
            "opt": {"state": {0: moments}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}],
                    "exp_avg": moments["exp_avg"]},
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


def with_zip(data, name, change):
    """The zip file changed as bytes; change(data, at, directory) gets the places of the directory and, in it, of the
    entry of the file whose name ends so."""
    data = bytearray(data)
    directory = struct.unpack_from("<I", data, data.rindex(b"PK\x05\x06") + 16)[0]
    at = directory
    while True:
        size, extras, comment = struct.unpack_from("<HHH", data, at + 28)
        if data[at + 46 : at + 46 + size].decode().endswith(name):
            break
        at += 46 + size + extras + comment
    change(data, at, directory)
    return bytes(data)


def put(format, offset, value):
    """For with_zip: a number in the directory's entry."""
    return lambda data, at, directory: struct.pack_into(format, data, at + offset, value)


def rename_before_contents(data, at, directory):
    local = struct.unpack_from("<I", data, at + 42)[0]
    data[local + 30] ^= 1


def into_directory(data, at, directory):
    """The file is as long as to reach into the directory."""
    for place in (20, 24):
        size = struct.unpack_from("<I", data, at + place)[0]
        struct.pack_into("<I", data, at + place, size + 64)


def overlapping():
    """Two storages of which one lies within the other, each with its own header."""
    inner = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 5, 0) + b"a/b/1" + bytes(24)
    first = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 5, 0) + b"a/b/0" + inner

    def central(name, offset, size):
        return (b"PK\x01\x02" + bytes(16) + struct.pack("<IIHHH", size, size, len(name), 0, 0) + bytes(8)
                + struct.pack("<I", offset) + name)

    entries = central(b"a/b/0", 0, len(inner)) + central(b"a/b/1", 35, 24)
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 2, 2, len(entries), len(first), 0)
    return first + entries + end


def many_entries(data):
    """The end of the directory says that there are as many files as 64 bits can count."""
    at = data.rindex(b"PK\x05\x06")
    directory = struct.unpack_from("<I", data, at + 16)[0]
    large = (b"PK\x06\x06" + struct.pack("<Q", 44) + bytes(12) + struct.pack("<QQQQ", 2**64 - 1, 2**64 - 1, 0, directory))
    return data[:at] + large + b"PK\x06\x07" + bytes(4) + struct.pack("<QI", at, 1) + data[at:]


def main():
    BROKEN.mkdir(parents=True, exist_ok=True)
    torch.save(state(), FOLDER / "state.pt")
    torch.save(state(), FOLDER / "state-legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(nested(), FOLDER / "nested.pt")
    torch.save(nested(), FOLDER / "nested-legacy.pt", _use_new_zipfile_serialization=False)

    import os
    import subprocess

    one = in_memory({"w": count(2, 3)})
    legacy = in_memory({"w": count(2, 3)}, _use_new_zipfile_serialization=False)
    shape, strides = b"K\x02K\x03\x86", b"K\x03K\x01\x86"  # (2, 3), (3, 1)
    offset = b"QK\x00"
    system = b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R"
    metadata = torch.nn.Linear(1, 1).state_dict()
    metadata._metadata = {"": Calls(os.system, "true")}
    small = rezipped(one)  # without the records of zip64, which PyTorch always writes
    huge = b"\x8a\x08" + struct.pack("<q", 2**62)
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
        "new_object": with_pickle(one, b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81."),
        "call_by_text_opcodes": with_pickle(one, b"cposix\nsystem\n(S'true'\ntR."),
        "call_by_instance_opcode": with_pickle(one, b"\x80\x02(X\x04\x00\x00\x00trueiposix\nsystem\n."),
        "call_by_object_opcode": with_pickle(one, b"\x80\x02(cposix\nsystem\nX\x04\x00\x00\x00trueo."),
        "call_by_extension": with_pickle(one, b"\x80\x02\x82\x01)R."),
        "call_of_call": with_pickle(one, b"\x80\x02cbuiltins\ngetattr\n)R)R."),
        "call_in_optimizer": in_memory({"w": count(2), "opt": {"state": [Calls(os.system, "true")]}}),
        "call_in_metadata": in_memory(metadata),
        "call_in_namespace": in_memory({"w": count(2), "args": argparse.Namespace(a=Calls(os.system, "true"))}),
        "call_thrown_away": edited(one, b"\x80\x02", b"\x80\x02" + system + b"0"),
        "call_in_a_shape": edited(one, shape, system + b"K\x03\x86"),
        "state_set_on_a_class": edited(one, b"\x80\x02", b"\x80\x02csubprocess\nPopen\n)\x81}b0"),
        "storage_count_enormous": edited(one, b"K\x06tq", huge + b"tq"),
        "offset_too_large": edited(one, offset, b"QK\x01"),
        "offset_enormous": edited(one, offset, b"Q" + huge),
        "offset_negative": edited(one, offset, b"QJ\xff\xff\xff\xff"),
        "stride_too_large": edited(one, strides, b"K\x04K\x01\x86"),
        "stride_enormous": edited(one, strides, huge + b"K\x01\x86"),
        "stride_negative": edited(one, strides, b"J\xff\xff\xff\xffK\x01\x86"),
        "strides_of_zero": edited(edited(one, strides, b"K\x00K\x00\x86"), shape, b"M\xff\xffM\xff\xff\x86"),
        "strides_missing": edited(one, strides, b")"),
        "shape_of_texts": edited(one, shape, b"X\x01\x00\x00\x00aK\x03\x86"),
        "shape_of_nine": edited(one, shape, b"(" + 9 * b"K\x01" + b"t"),
        "compressed_bomb": rezipped(one, zipfile.ZIP_DEFLATED,
                                    lambda n, c: bytes(10_000_000) if n.endswith("data/0") else c),
        "zip_encrypted": with_zip(one, "data/0", put("<H", 8, 1)),
        "zip_sizes_differ": with_zip(one, "data/0", put("<I", 20, 5)),
        "zip_size_enormous": with_zip(with_zip(one, "data/0", put("<I", 20, 2**31)), "data/0", put("<I", 24, 2**31)),
        "zip_offset_wrong": with_zip(one, "data/0", put("<I", 42, 7)),
        "zip_offset_beyond_end": with_zip(one, "data/0", put("<I", 42, 2**31)),
        "zip_two_names": with_zip(one, "data/0", rename_before_contents),
        "zip_in_directory": with_zip(one, "serialization_id", into_directory),
        "zip_overlap": overlapping(),
        "zip_count_enormous": many_entries(one),
        "zip_directory_elsewhere": small[: small.rindex(b"PK\x05\x06") + 16] + struct.pack("<IH", 2**31, 0),
    }
    for name, content in cases.items():
        (BROKEN / f"{name}.pt").write_bytes(content)


if __name__ == "__main__":
    main()
