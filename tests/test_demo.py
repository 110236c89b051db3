"""The demo with each base model, as small as it goes: every stage runs and what it promises is there."""

from pathlib import Path

import pytest
import yaml

from avseg.config import Config
from avseg.data.parallel import working_in
from avseg.demo import Demo, run_demo, train_arm
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

    monkeypatch.setattr("avseg.synthetic.stamps.stamps_if_any", download)
    (tmp_path / "file").touch()
    with pytest.raises(AvsegError, match=said):
        run_demo(tmp_path / out, videos=videos)
    assert not (tmp_path / "demo").exists()


def test_two_demos_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """The second would remove what the first is training."""
    with working_in(tmp_path / ".avseg" / "demo", ()), pytest.raises(AvsegError, match="held by another run"):
        run_demo(tmp_path, objects="procedural", videos=12, val=2, test=2, overrides=FEW)
    assert [path.name for path in tmp_path.iterdir()] == [".avseg"]


def test_a_demo_that_was_stopped_twice_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It kept nothing the third time: what the second had written down said that it resumed."""
    trained: list[bool] = []

    def stopped(config: Config) -> None:
        trained.append((tmp_path / "baseline" / "mine").exists())
        (tmp_path / "baseline").mkdir(exist_ok=True)
        (tmp_path / "baseline" / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
        (tmp_path / "baseline" / "mine").touch()

    monkeypatch.setattr("avseg.training.run.train", stopped)
    for _ in range(3):
        demo = Demo(tmp_path, objects="procedural", overrides=FEW)
        train_arm(demo, demo.config("baseline"))
    assert trained == [False, True, True]
