"""Models that the page offers, and what may be typed instead."""

import os
from pathlib import Path

import pytest

from avseg.app import choices as module
from avseg.app.choices import Choice, choices, chosen, explained
from avseg.errors import AvsegError


def model(folder: Path, time: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        '{"format_version": 1, "base": "tpavi", "neighbouring_frames": true, "inputs": {}}'
    )
    (folder / "model.safetensors").write_bytes(b"")
    os.utime(folder / "model.safetensors", (time, time))
    return folder


@pytest.fixture
def none_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shipped_model", lambda: None)


def test_runs_come_newest_first_and_nothing_else_is_a_model(tmp_path: Path, none_shipped: None) -> None:
    old, new = model(tmp_path / "demo" / "ufe", 100), model(tmp_path / "mine", 200)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    model(tmp_path / ".hidden" / "other", 300)
    assert [choice.path for choice in choices(tmp_path)] == [new, old]
    assert choices(tmp_path)[0].label == f"{new} (tpavi, UFE: NF)"
    assert choices(tmp_path / "nowhere") == []


def test_what_comes_with_avseg_is_first_unless_another_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, run = model(tmp_path / "shipped"), model(tmp_path / "runs" / "a")
    monkeypatch.setattr(module, "shipped_model", lambda: shipped)
    assert [choice.path for choice in choices(tmp_path / "runs")] == [shipped, run]
    named = choices(tmp_path / "runs", run)
    assert [choice.path for choice in named] == [run, shipped]
    assert [choice.shipped for choice in named] == [False, True]


def test_downloaded_models_are_offered_by_name(
    tmp_path: Path, none_shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    for name in ("avsegformer-s4-pvt", "vggish", "half"):
        model(tmp_path / "models" / name)
        if name != "half":
            (tmp_path / "models" / name / "source.json").write_text("{}")
    model(tmp_path / "models" / "ecmvae" / "best")
    (tmp_path / "models" / "ecmvae" / "source.json").write_text("{}")
    assert [str(choice.path) for choice in choices(tmp_path / "runs")] == ["avsegformer-s4-pvt", "ecmvae/best"]
    named = choices(tmp_path / "runs", "ecmvae/best")
    assert [str(choice.path) for choice in named] == ["ecmvae/best", "avsegformer-s4-pvt"]


def test_people_are_told_what_the_shipped_model_knows(tmp_path: Path) -> None:
    offered = [Choice("own", tmp_path / "own", shipped=True), Choice("mine", tmp_path / "mine")]
    words = explained(str(tmp_path / "own"), offered)
    assert "generated scenes" in words
    assert "not the world" in words
    assert "`avseg convert`" in words
    assert explained(str(tmp_path / "mine"), offered) == ""
    assert "avseg demo" in explained(None, [])


def test_a_folder_may_be_typed(tmp_path: Path) -> None:
    offered = [Choice("mine", tmp_path / "mine")]
    other = model(tmp_path / "other")
    assert chosen(str(tmp_path / "mine"), offered) == tmp_path / "mine"
    assert chosen(f" {other} ", offered) == other


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "No model is chosen"),
        ("  ", "No model is chosen"),
        ("no/folder", "no/folder does not exist"),
        ("openai/whisper", "openai/whisper does not exist"),  # a name that a hub would know
        (".", "is not the folder of a trained model"),
    ],
)
def test_what_is_no_model_is_told_in_a_sentence(value: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=words):
        chosen(value, [])


def test_where_others_may_come_in_nothing_is_typed(tmp_path: Path) -> None:
    other = model(tmp_path / "other")
    with pytest.raises(AvsegError, match="not one of the models offered"):
        chosen(str(other), [], typed=False)
