"""The guide to segmenting one's own videos does what it shows."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import write_mp4
from tiny import write_ast, write_clipseg, write_rf_detr
from toy_models import save_tiny

from avseg.inference import AVSegmenter
from avseg.media.audio import write_wav
from avseg.media.images import write_image
from avseg.openvocab import segmenter

GUIDE = (Path(__file__).parents[2] / "docs" / "segmenting.md").read_text(encoding="utf-8")


def test_its_python_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.M | re.S)
    assert len(blocks) == 5
    write = {"ast": write_ast, "clipseg": write_clipseg, "rf-detr-seg-nano": write_rf_detr}
    folders = {name: each(tmp_path / name) for name, each in write.items()}
    monkeypatch.setattr(segmenter, "downloaded_folders", lambda: folders)
    save_tiny(tmp_path / "runs" / "demo" / "ufe")
    write_mp4(tmp_path / "concert.mp4", seconds=66, fps=4)
    for k in range(8):
        write_image(tmp_path / "shots" / f"{k}.png", np.full((32, 32, 3), 20 * k, np.uint8))
    write_wav(tmp_path / "shots" / "sound.wav", np.zeros(16_000, np.float32))
    pushed: list[tuple] = []
    monkeypatch.setattr(AVSegmenter, "push_to_hub", lambda self, *words, **more: pushed.append((words, more)))
    monkeypatch.chdir(tmp_path)

    for block in blocks:
        exec(compile(block, "docs/segmenting.md", "exec"), {"__name__": "guide"})

    assert pushed == [(("someone/mine",), {"private": True})]
    for name in ("marked.mp4", "masks/000000_60.000.png", "masks.json", "scores.npz", "strip.png", "mine/config.json"):
        assert (tmp_path / name).is_file()
