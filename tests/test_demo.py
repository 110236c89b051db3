"""The demo with each base model, as small as it goes: every stage runs and what it promises is there."""

from pathlib import Path

import pytest

from avseg.demo import run_demo
from avseg.errors import AvsegError
from avseg.models import load

FEW = ("--optim.epochs=2", "--optim.batch_size=4", "--ufe.burn_in=1", "--run.validate_every=2", "--weights.image=none")


@pytest.mark.heavy
@pytest.mark.parametrize("base", ["tpavi", "avsegformer"])
def test_every_stage_runs(base: str, tmp_path: Path) -> None:
    summary = run_demo(tmp_path, base=base, objects="procedural", videos=12, val=2, test=2, overrides=FEW)
    assert (summary["model"], summary["steps"]) == (base, 4)
    for arm in ("baseline", "ufe"):
        assert 0 <= summary[arm]["miou"] <= 1
        config = load(tmp_path / arm).config
        assert (config.base, config.neighbouring_frames) == (base, arm == "ufe")
    for name in ("report.html", "overlay.mp4", "summary.json"):
        assert (tmp_path / name).stat().st_size > 0
    assert f"avseg demo --model {base}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_base_model_without_a_demo_is_told(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="no demo of 'third': choose tpavi or avsegformer"):
        run_demo(tmp_path / "demo", base="third")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("out", "videos", "said"),
    [
        ("demo", 80, "80 videos leave none to train on beside 20 for validation and 60 for testing: ask for more with"),
        ("file", 200, "would lie below .*file, which is a file"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_downloaded(
    out: str, videos: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*given: object) -> None:
        raise AssertionError("began to download")

    monkeypatch.setattr("avseg.data.stamps.stamps_if_any", download)
    (tmp_path / "file").touch()
    with pytest.raises(AvsegError, match=said):
        run_demo(tmp_path / out, videos=videos)
    assert not (tmp_path / "demo").exists()
