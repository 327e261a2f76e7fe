#!/usr/bin/env python3
"""Writes tests/data/safetensors/broken/: small files, each wrong in the one way that its name says. Needs only
Python's standard library. A reader must refuse every one of them with one sentence."""
import json
import pathlib
import struct

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "data" / "safetensors" / "broken"


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def pack(header, data=b"\0" * 8, length=None):
    if isinstance(header, (dict, list)):
        header = json.dumps(header, separators=(",", ":"))
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def pair(first, second):
    """Two tensors of U8, 8 bytes of data, with these offsets."""
    size = lambda o: (max(o[1] - o[0], 0),)
    return pack({"a": entry("U8", size(first), first), "b": entry("U8", size(second), second)})


W = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

SAFETENSORS = {
    # the file as a whole
    "empty_file": b"",
    "seven_bytes": b"\2\0\0\0\0\0\0",
    "length_only": struct.pack("<Q", 2),
    "length_zero": struct.pack("<Q", 0),
    "length_beyond_file": pack({"w": entry()}, length=1000),
    "length_beyond_limit": pack({"w": entry()}, length=100_000_001),
    "length_2_to_64_minus_1": pack({"w": entry()}, length=2**64 - 1),
    "length_2_to_64_minus_8": pack({"w": entry()}, length=2**64 - 8),
    "length_too_short": pack({"w": entry()}, length=20),
    "html_page": b"<!DOCTYPE html><html><body>404: Not Found</body></html>\n",
    "git_lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "zip_archive": b"PK\3\4" + b"\0" * 60,
    # the header as JSON
    "header_is_list": pack([]),
    "header_is_string": pack('"w"'),
    "header_is_number": pack("12"),
    "header_begins_with_space": pack(" " + W + "}"),
    "header_begins_with_byte_order_mark": pack("\ufeff" + W + "}"),
    "header_not_closed": pack(W),
    "header_followed_by_more": pack(W + "}{}"),
    "header_followed_by_zeros": pack(W + "}\0\0\0"),
    "header_with_trailing_comma": pack(W + ",}"),
    "header_with_comment": pack(W + "/* two floats */}"),
    "header_invalid_utf8": pack(b'{"w\xff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "header_overlong_utf8": pack(b'{"w\xc0\x80":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "header_lone_surrogate": pack('{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "header_raw_control_character": pack('{"w\n":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
    "header_deep_lists": pack('{"w":' + "[" * 5000 + "]" * 5000 + "}"),
    "header_deep_objects": pack('{"w":' * 3000 + "1" + "}" * 3000),
    "header_deep_shape": pack('{"w":{"dtype":"F32","shape":' + "[" * 3000),
    # its members
    "tensor_twice": pack(W + "," + W[1:] + "}"),
    "tensor_is_null": pack('{"w":null}', b""),
    "tensor_is_list": pack('{"w":["F32",[2],[0,8]]}'),
    "tensor_is_empty_object": pack('{"w":{}}', b""),
    "metadata_twice": pack('{"__metadata__":{},"__metadata__":{}}', b""),
    "metadata_key_twice": pack('{"__metadata__":{"a":"1","a":"2"}}', b""),
    "metadata_is_string": pack('{"__metadata__":"pt"}', b""),
    "metadata_value_is_number": pack('{"__metadata__":{"step":7}}', b""),
    "metadata_value_is_object": pack('{"__metadata__":{"a":{}}}', b""),
    "metadata_value_is_null": pack('{"__metadata__":{"a":null}}', b""),
    "name_with_control_characters": pack({"\x1b[2J\r\n\0": entry("F32", (3,))}),
    "name_very_long": pack({"n" * 5000: entry("F32", (3,))}),
    # fields of a tensor
    "field_missing_dtype": pack('{"w":{"shape":[2],"data_offsets":[0,8]}}'),
    "field_missing_shape": pack('{"w":{"dtype":"F32","data_offsets":[0,8]}}'),
    "field_missing_offsets": pack('{"w":{"dtype":"F32","shape":[2]}}'),
    "field_unknown": pack({"w": entry() | {"strides": [1]}}),
    "field_twice": pack('{"w":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}'),
    "dtype_is_number": pack({"w": entry(32)}),
    "dtype_is_list": pack({"w": entry(["F32"])}),
    "shape_is_number": pack('{"w":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}'),
    "shape_is_null": pack('{"w":{"dtype":"F32","shape":null,"data_offsets":[0,8]}}'),
    "shape_with_string": pack({"w": entry(shape=("2",))}),
    "shape_with_bool": pack({"w": entry(shape=(2, True))}),
    "shape_negative": pack({"w": entry(shape=(-2,))}),
    "shape_two_negatives": pack({"w": entry(shape=(-1, -2))}),
    "shape_negative_zero": pack('{"w":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', b""),
    "shape_fraction": pack({"w": entry(shape=(2.5,))}),
    "shape_whole_float": pack({"w": entry(shape=(2.0,))}),
    "shape_exponent": pack('{"w":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}'),
    "shape_2_to_63": pack({"w": entry(shape=(2**63,))}),
    "shape_2_to_64_plus_2": pack({"w": entry(shape=(2**64 + 2,))}),
    "shape_product_overflows": pack({"w": entry(shape=(2**32, 2**32, 2))}),
    "shape_bytes_overflow": pack({"w": entry("F64", (2**61 + 1,))}),
    "shape_seven_dimensions": pack({"w": entry(shape=(1, 1, 1, 1, 1, 1, 2))}),
    "shape_too_large": pack({"w": entry(shape=(3,))}),
    "shape_too_small": pack({"w": entry(shape=(1,))}),
    "shape_zero_with_data": pack({"w": entry(shape=(0, 2))}),
    "offsets_one": pack({"w": entry(offsets=(0,))}),
    "offsets_three": pack({"w": entry(offsets=(0, 8, 8))}),
    "offsets_negative": pack({"w": entry(offsets=(-8, 0))}),
    "offsets_swapped": pack({"w": entry(offsets=(8, 0))}),
    "offsets_fraction": pack({"w": entry(offsets=(0, 8.0))}),
    "offsets_huge": pack({"w": entry(offsets=(2**62, 2**62 + 8))}),
    "offsets_2_to_64_minus_8": pack({"w": entry(offsets=(2**64 - 8, 2**64))}),
    "offsets_beyond_data": pack({"w": entry("F32", (4,), (0, 16))}),
    "offsets_odd_length": pack({"w": entry(offsets=(0, 7))}, b"\0" * 7),
    # how the tensors lie
    "cover_overlap": pair((0, 5), (4, 8)),
    "cover_same_bytes": pair((0, 8), (0, 8)),
    "cover_inside": pair((0, 8), (2, 4)),
    "cover_gap": pair((0, 3), (4, 8)),
    "cover_gap_before": pair((1, 4), (4, 8)),
    "cover_rest": pair((0, 4), (4, 7)),
    "cover_empty_tensor_inside": pair((0, 8), (4, 4)),
    "data_missing": pack({"w": entry()}, b""),
    "data_cut_off": pack({"w": entry()}, b"\0" * 7),
    "data_without_tensors": pack("{}"),
}

INDEXES = {
    "index_empty_file": "",
    "index_is_list": "[]",
    "index_is_string": '"weight_map"',
    "index_not_closed": '{"weight_map":{"w":"a.safetensors"}',
    "index_without_weight_map": '{"metadata":{"total_size":8}}',
    "index_weight_map_is_list": '{"weight_map":["a.safetensors"]}',
    "index_weight_map_is_string": '{"weight_map":"a.safetensors"}',
    "index_two_weight_maps": '{"weight_map":{},"weight_map":{}}',
    "index_tensor_twice": '{"weight_map":{"w":"length_zero.safetensors","w":"length_zero.safetensors"}}',
    "index_file_is_number": '{"weight_map":{"w":1}}',
    "index_file_is_object": '{"weight_map":{"w":{"weight_map":{}}}}',
    "index_parent_folder": '{"weight_map":{"w":"../python.safetensors"}}',
    "index_absolute_path": '{"weight_map":{"w":"/etc/passwd"}}',
    "index_backslash": '{"weight_map":{"w":"..\\\\python.safetensors"}}',
    "index_dot_dot": '{"weight_map":{"w":".."}}',
    "index_empty_name": '{"weight_map":{"w":""}}',
    "index_zero_in_name": '{"weight_map":{"w":"a\\u0000.safetensors"}}',
    "index_deep": '{"weight_map":' + '{"a":' * 3000,
    "index_deep_elsewhere": '{"x":' + "[" * 5000,
}

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, contents in SAFETENSORS.items():
        (FOLDER / f"{name}.safetensors").write_bytes(contents)
    for name, contents in INDEXES.items():
        (FOLDER / f"{name}.json").write_text(contents)
