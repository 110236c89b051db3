"""Tiny random models of transformers in folders, and taggers and eyes whose answers are known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    RfDetrConfig,
    RfDetrForInstanceSegmentation,
)

from avseg.openvocab.hear import Wanted
from avseg.openvocab.nouns import read_nouns
from avseg.openvocab.see import Sighting

DOG, BELL, SILENCE = "/m/05tny_", "/m/0395lw", "/m/028v0c"  # Bark, Bell, Silence


class LoudTagger:
    """Hears a bark in any window louder than a whisper, and remembers how many windows it was given."""

    mids: Sequence[str] = (SILENCE, DOG, BELL)

    def __init__(self) -> None:
        self.windows = 0

    def tag(self, windows: np.ndarray) -> np.ndarray:
        self.windows += len(windows)
        loud = np.sqrt(np.square(windows).mean(axis=1)) > 0.01
        return np.stack([1.0 - loud, 0.8 * loud, 0.05 * np.ones(len(windows))], axis=1)


class BrightEyes:
    """Finds whatever is wanted where a frame is bright, and remembers what was wanted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def look(self, frames: np.ndarray, wanted: Sequence[Sequence[Wanted]]) -> list[list[Sighting]]:
        self.asked += [tuple(one.noun for one in each) for each in wanted]
        bright = (frames.max(axis=3) > 140).astype(np.float32)
        return [[Sighting(one, 0.9, mask) for one in each[:1]] for mask, each in zip(bright, wanted, strict=True)]


def write_ast(folder: Path) -> Path:
    torch.manual_seed(0)
    sounds = list(read_nouns().values())
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=256,
        id2label={index: sound.name for index, sound in enumerate(sounds)},
        label2id={sound.name: index for index, sound in enumerate(sounds)},
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"max_length": 256, "num_mel_bins": 128}))
    return folder


def write_clipseg(folder: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPSegConfig(
        text_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                     "vocab_size": 600, "max_position_embeddings": 32, "projection_dim": 16, "eos_token_id": 599},
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
                       "image_size": 64, "patch_size": 16, "projection_dim": 16},
        projection_dim=16, extract_layers=[1, 2, 3], reduce_dim=8, decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )  # fmt: skip
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    words = {token: n for n, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    words |= {"<|startoftext|>": 598, "<|endoftext|>": 599}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32}))
    return folder


def write_rf_detr(folder: Path) -> Path:
    torch.manual_seed(0)
    names = {0: "person", 1: "dog", 2: "cat"}
    config = RfDetrConfig(
        backbone_config={"model_type": "rf_detr_dinov2", "hidden_size": 32, "num_hidden_layers": 2, "image_size": 64,
                         "num_attention_heads": 2, "num_windows": 1, "patch_size": 16,
                         "out_features": ["stage1", "stage2"]},
        d_model=32, decoder_layers=2, decoder_ffn_dim=32, num_queries=5, decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2, id2label=names, label2id={name: n for n, name in names.items()},
    )  # fmt: skip
    RfDetrForInstanceSegmentation(config).save_pretrained(folder)
    return folder
