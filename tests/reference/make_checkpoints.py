#!/usr/bin/env python3
"""Writes tests/data/checkpoints/: the small models of tests/data/reference as others write them. Needs PyTorch,
diffusers and safetensors.

    lit.pt         a training checkpoint of facebookresearch/DiT's kind: model, ema, opt, args; ema holds the model
    lit-plain.pt   the state dictionary alone
    diffusers/     a DiT as DiTTransformer2DModel.save_pretrained writes it, below transformer/
"""
import argparse
import pathlib
import shutil

import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import load_file

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
FOLDER = DATA / "checkpoints"


def reference(name):
    return load_file(DATA / "reference" / f"{name}.model.safetensors")


def diffusers_state(state, depth):
    """By diffusers' names, written down here apart from the C++ code that it tests; loading is strict."""
    result = {}
    for kind in ("weight", "bias"):
        result[f"pos_embed.proj.{kind}"] = state[f"x_embedder.proj.{kind}"]
        result[f"proj_out_1.{kind}"] = state[f"final_layer.adaLN_modulation.1.{kind}"]
        result[f"proj_out_2.{kind}"] = state[f"final_layer.linear.{kind}"]
        for i in range(depth):
            ours, theirs = f"blocks.{i}.", f"transformer_blocks.{i}."
            q, k, v = state[f"{ours}attn.qkv.{kind}"].chunk(3)
            result[f"{theirs}attn1.to_q.{kind}"] = q
            result[f"{theirs}attn1.to_k.{kind}"] = k
            result[f"{theirs}attn1.to_v.{kind}"] = v
            result[f"{theirs}attn1.to_out.0.{kind}"] = state[f"{ours}attn.proj.{kind}"]
            result[f"{theirs}ff.net.0.proj.{kind}"] = state[f"{ours}mlp.fc1.{kind}"]
            result[f"{theirs}ff.net.2.{kind}"] = state[f"{ours}mlp.fc2.{kind}"]
            result[f"{theirs}norm1.linear.{kind}"] = state[f"{ours}adaLN_modulation.1.{kind}"]
            embedder = f"{theirs}norm1.emb."
            result[f"{embedder}timestep_embedder.linear_1.{kind}"] = state[f"t_embedder.mlp.0.{kind}"]
            result[f"{embedder}timestep_embedder.linear_2.{kind}"] = state[f"t_embedder.mlp.2.{kind}"]
    for i in range(depth):
        table = f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"
        result[table] = state["y_embedder.embedding_table.weight"]
    return {name: tensor.contiguous().clone() for name, tensor in result.items()}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    lit = reference("dit_lit")
    other = {name: torch.zeros_like(tensor) for name, tensor in lit.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    args = argparse.Namespace(model="LiT", image_size=64)
    torch.save({"model": other, "ema": lit, "opt": optimizer, "args": args}, FOLDER / "lit.pt")
    torch.save(lit, FOLDER / "lit-plain.pt")

    model = DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8,
                                  num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=5,
                                  activation_fn="gelu-approximate", attention_bias=True, norm_type="ada_norm_zero",
                                  norm_elementwise_affine=False)
    missing, unexpected = model.load_state_dict(diffusers_state(reference("dit_softmax"), 2), strict=False)
    assert not unexpected and all("pos_embed.pos_embed" in name for name in missing), (missing, unexpected)
    model.save_pretrained(FOLDER / "diffusers" / "transformer")


if __name__ == "__main__":
    main()
