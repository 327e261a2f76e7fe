#!/usr/bin/env python3
"""Writes tests/data/safetensors/python.safetensors with the format's own library, for the reader to read and the
writer to match byte for byte. Made with Python 3.11.7, safetensors 0.8.0, NumPy 2.4.6 and ml_dtypes 0.6.0."""
import pathlib

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

folder = pathlib.Path(__file__).resolve().parent.parent / "data" / "safetensors"
folder.mkdir(parents=True, exist_ok=True)
save_file(
    {
        "blocks.0.attn.qkv.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 2,
        "a": np.array([7], dtype=np.float32),
        "half": np.array([0.25, -3], dtype=np.float16),
        "brain": np.array([1, -1.5, 2], dtype=ml_dtypes.bfloat16),
        "count": np.array([1 << 40], dtype=np.int64),
        "ids": np.array([-1, 5], dtype=np.int32),
        "double": np.array([0.1], dtype=np.float64),
        "signed": np.array([-128, 127], dtype=np.int8),
        "grün": np.array([1, 2, 255], dtype=np.uint8),
        'quote " tab \t': np.array([[[9]]], dtype=np.uint8),
    },
    folder / "python.safetensors",
    metadata={"made by": "safetensors"},
)
