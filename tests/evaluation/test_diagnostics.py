import json
from pathlib import Path

import pytest

from avseg.errors import AvsegError
from avseg.evaluation.diagnostics import diagnose, read_scenes
from avseg.evaluation.scores import Scores, VideoScore

NAN = float("nan")


def thing(sounding: str, moving: str, picture: bool = False, category: bool = False) -> dict[str, object]:
    return {
        "sounding": [letter == "x" for letter in sounding],
        "moving": [letter == "x" for letter in moving],
        "unseen_picture": picture,
        "unseen_object": category,
    }


def write_scenes(root: Path) -> None:
    first = [thing("xx.", "x.."), thing("...", ".xx", True)]
    second = [thing("xxx", "xxx", True), thing("x..", "...", True, True)]
    rows = [
        {"name": "a", "split": "test", "subset": "ms3", "objects": first},
        {"name": "b", "split": "test", "subset": "ms3", "objects": second},
        {"name": "a", "split": "train", "subset": "ms3", "objects": [thing("xxx", "...")]},
    ]
    (root / "Multi-sources").mkdir()
    (root / "Multi-sources" / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


SCORES = Scores(
    "T=5",
    (
        VideoScore("a", "", 0.6, 0.5, (0.8, 0.1, 0.9), (False, False, True)),
        VideoScore("b", "", 0.6, 0.5, (0.6, 0.5, NAN), (False, False, False)),
    ),
)


def test_choice_and_mask_are_told_apart(tmp_path: Path) -> None:
    found = diagnose(SCORES)
    assert found["sounding"] == {
        "frames": 4,
        "iou": pytest.approx(0.5),
        "selection": 0.5,
        "quality": pytest.approx(0.7),
    }
    assert found["silent"] == {"frames": 1, "background": 0.9}
    assert "strata" not in found
    assert read_scenes(tmp_path, "ms3", "test") is None


def test_strata(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    strata = diagnose(SCORES, read_scenes(tmp_path, "ms3", "test"))["strata"]
    means = {name: (found["frames"], round(found["iou"], 6)) for name, found in strata.items()}
    assert means == {
        "moving source": (3, round((0.8 + 0.6 + 0.5) / 3, 6)),
        "still source": (1, 0.1),
        "moving distractor": (1, 0.1),
        "no moving distractor": (3, round((0.8 + 0.6 + 0.5) / 3, 6)),
        "still source, moving distractor": (1, 0.1),
        "seen": (2, 0.45),
        "unseen picture": (1, 0.5),
        "unseen object": (1, 0.6),
    }
    assert strata["still source"]["quality"] is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    file = tmp_path / "Multi-sources" / "scenes.jsonl"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(AvsegError, match=r"scenes\.jsonl is damaged"):
        read_scenes(tmp_path, "ms3", "test")
