"""Writes what the tests of the text encoder and the tokenizer compare with.

t5.model.safetensors: transformers' T5EncoderModel (gated GELU) with random weights, small, its config.json in the
metadata "config"; t5.io.safetensors: input_ids, attention_mask → last_hidden_state (0 where the mask is).
tokenizer/spiece.model: a SentencePiece model of 200 pieces at most, trained on sentences made here, with T5's special
pieces; tokenizer/texts.json: texts and the ids that transformers' T5Tokenizer makes of them.

The committed files were made with torch 2.15.0, transformers 5.24.0 and sentencepiece 0.2.3.

    python tests/reference/make_text_dumps.py
"""

import argparse
import io
import itertools
import json
import pathlib
import shutil
import tempfile

import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5Tokenizer

CONFIG = T5Config(vocab_size=60, d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=3, relative_attention_num_buckets=8,
                  relative_attention_max_distance=20, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6)

TEXTS = ["two red stars above a blue ring", "A Corgi, reading a newspaper!", "", "  many   blanks  ", "naïve café – “quoted”",
         "熊 and ½ and ﬁne", "x" * 40, "a green heart left of a yellow moon and below three white circles.", "tab\tand\nline"]


def sentences():
    numbers, colours = ["a", "two", "three", "many"], ["red", "blue", "green", "yellow", "white", "small purple"]
    things = ["star", "ring", "heart", "moon", "circle", "corgi reading a newspaper"]
    places = ["above", "below", "left of", "right of", "and"]
    for n, c, t, p in itertools.product(numbers, colours, things, places):
        yield f"{n} {c} {t} {p} {c} {t}s, in the style of an oil painting."


def make_t5(folder):
    torch.manual_seed(5)
    model = T5EncoderModel(CONFIG).eval()
    for name, parameter in sorted(model.named_parameters()):
        scale = 0.3 if parameter.dim() > 1 else 0.2
        parameter.data = torch.randn(parameter.shape) * scale + (1 if "layer_norm" in name else 0)
    ids = torch.randint(2, 60, (3, 37))
    mask = torch.zeros(3, 37, dtype=torch.int64)
    for row, length in enumerate([37, 11, 1]):
        mask[row, :length] = 1
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    weights = {k: v.clone() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
    save_file(weights, folder / "t5.model.safetensors", {"config": json.dumps(CONFIG.to_diff_dict(), sort_keys=True)})
    save_file({"input_ids": ids, "attention_mask": mask, "last_hidden_state": states}, folder / "t5.io.safetensors")


def read_tokenizer(folder):
    """transformers opens a folder alone, with a configuration beside the model."""
    with tempfile.TemporaryDirectory() as made:
        shutil.copy(folder / "spiece.model", made)
        settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>",
                    "unk_token": "<unk>"}
        (pathlib.Path(made) / "tokenizer_config.json").write_text(json.dumps(settings))
        return T5Tokenizer.from_pretrained(made)


def make_tokenizer(folder):
    folder.mkdir(exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(), model_writer=model, vocab_size=200, model_type="unigram", pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, character_coverage=1.0, hard_vocab_limit=False, num_threads=1, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = read_tokenizer(folder)
    texts = [{"text": text, "ids": tokenizer(text).input_ids} for text in TEXTS]
    (folder / "texts.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    data = pathlib.Path(__file__).parent.parent / "data"
    parser.add_argument("--folder", type=pathlib.Path, default=data)
    folder = parser.parse_args().folder
    make_t5(folder / "reference")
    make_tokenizer(folder / "tokenizer")
