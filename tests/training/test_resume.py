"""What a killed run leaves is enough to end as one that was left alone; and only the same run is resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from helpers import make_avsbench
from lightning.pytorch.callbacks import Callback
from small_run import small_config
from torch import Tensor

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.errors import AvsegError
from avseg.evaluation.metrics import MeanJaccard
from avseg.models import load
from avseg.training.run import read_run, train

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 3, "val": 1}, prepared=True)
    return folder


def configuration(root: Path, out: Path, epochs: int = 4, **optim: object) -> Config:
    """Epochs of three steps with distant frames, validated every second one; moves of two steps and of one."""
    return small_config(
        root,
        out,
        UFEConfig(distant_frames=True, burn_in=0, teacher="ema", ema_decay=0.5),
        OptimConfig(**{"batch_size": 1, "accumulate": 2, "epochs": epochs, "learning_rate": 1e-2, **optim}),  # type: ignore[arg-type]
        validate_every=2,
    )


def left(folder: Path) -> dict[str, object]:
    """All of a run that may not depend on how often it was interrupted."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    facts = read_run(folder)
    found = {name: state[name] for name in ("state_dict", "optimizer_states", "avseg_steps", "avseg_run")}
    found["avseg_run"]["config"]["run"] = found["avseg_run"]["config"]["data"] = None
    found |= {name: facts[name] for name in ("steps", "validation", "seed", "parameters")}
    for name in (".", "best"):
        found[name] = load(folder / name).state_dict()
    found["best.ckpt"] = load(folder / "checkpoints" / "best.ckpt").state_dict()
    found["metrics.csv"] = (folder / "metrics.csv").read_text()
    return found


def same(ours: object, theirs: object) -> bool:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs  # type: ignore[arg-type]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "events" not in path.name}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Runs that are compared have the same number of threads, which decides how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(configuration(root, tmp_path_factory.mktemp("runs") / "whole")).folder


# A process that forks one for each trial, so that libraries are imported once. A trial is killed just before file n
# takes its name (2n) or just after it (2n + 1); the next resumes it.
KILLER = """
import os, signal, sys
from pathlib import Path
from test_resume import configuration
import avseg.files
from avseg.training.run import train

root, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")]
replace = os.replace

def trial(folder, kill):
    count = 0
    def counted(*paths):
        nonlocal count
        for moment in (0, 1):
            if 2 * count + moment == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if not moment:
                replace(*paths)
        count += 1
    os.replace = counted
    config = configuration(root, folder)
    config.run.resume = True
    train(config)

for kill in kills:
    for n in (kill, -1):
        child = os.fork()
        if not child:
            trial(out / str(kill), n)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (-signal.SIGKILL if n >= 0 else 0), (kill, n, status)
"""


def check_kills(root: Path, whole: Path, out: Path, kills: list[int]) -> None:
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE), str(HERE.parent)])
    command = [sys.executable, "-c", KILLER, root, out, ",".join(map(str, kills))]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=True)
    for kill in kills:
        assert same(left(out / str(kill)), left(whole)), kill
        assert files(out / str(kill)) == files(whole), kill


def test_a_run_killed_at_its_checkpoints_ends_as_if_it_had_not_been(root: Path, whole: Path, tmp_path: Path) -> None:
    names = names_in_order(root, tmp_path / "counted")
    first = names.index("last.ckpt")
    assert names[first - 1 : first + 2] == ["metrics.csv", "last.ckpt", "best.ckpt"]
    check_kills(root, whole, tmp_path, [2 * first + 1, 2 * first + 3])


@pytest.mark.heavy
def test_a_run_killed_at_any_file_ends_as_if_it_had_not_been(root: Path, whole: Path, tmp_path: Path) -> None:
    check_kills(root, whole, tmp_path, list(range(0, 2 * len(names_in_order(root, tmp_path / "counted")), 2)))


def names_in_order(root: Path, out: Path) -> list[str]:
    """The files of a run in the order in which they take their names."""
    names, replace = [], os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: (names.append(Path(b).name), replace(a, b)))
        train(configuration(root, out))
    return names


class Told(MeanJaccard):
    """Scores that are told: one for each validation."""

    scores: ClassVar[list[float]] = []

    def score(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
        return torch.tensor([self.scores.pop(0)])


class StopAfterLast(Callback):
    """Interrupts the second checkpoint's writing: ``last.ckpt`` is there, ``best.ckpt`` is that of the first."""

    def __init__(self, patch: pytest.MonkeyPatch, times: int):
        self.patch, self.times = patch, times

    def on_fit_start(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
        save = trainer.save_checkpoint

        def stopped(*given: object) -> None:
            save(*given)
            self.times -= 1
            if not self.times:
                raise KeyboardInterrupt

        self.patch.setattr(trainer, "save_checkpoint", stopped)


def test_the_best_score_is_remembered(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avseg.training.task.MeanJaccard", Told)
    config = configuration(root, tmp_path / "run")
    config.run.validate_every = 1
    Told.scores = [0.712, 0.843, 0.702, 0.732]
    with pytest.raises(KeyboardInterrupt):
        train(config, [StopAfterLast(monkeypatch, 2)])
    config.run.resume = True
    train(config)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["avseg_steps"] == 6
    assert best["avseg_run"]["highest"] == pytest.approx(0.843)
    assert same(load(tmp_path / "run" / "best").state_dict(), load(tmp_path / "run/checkpoints/best.ckpt").state_dict())
    # Nor does it matter how often the resumed run validates, or where its folder is now.
    shutil.move(tmp_path / "run", tmp_path / "moved")
    config.run.out, config.run.validate_every, config.optim.epochs = str(tmp_path / "moved"), 2, 6
    Told.scores = [0.8]
    train(config)
    assert torch.load(tmp_path / "moved/checkpoints/best.ckpt", weights_only=True)["avseg_steps"] == 6


def test_a_finished_run_goes_on_as_one_that_was_longer(root: Path, whole: Path, tmp_path: Path) -> None:
    """Also from an end that was not validated."""
    config = configuration(root, tmp_path / "run", epochs=3)
    train(config)
    config.optim.epochs, config.run.resume = 4, True
    train(config)
    ours, theirs = left(tmp_path / "run"), left(whole)
    for name in ("state_dict", "optimizer_states", "best"):
        assert same(ours[name], theirs[name]), name


def change(**settings: object) -> Callable[[Config], None]:
    def made(config: Config) -> None:
        for name, value in settings.items():
            *sections, last = name.split("__")
            target: object = config
            for section in sections:
                target = getattr(target, section)
            setattr(target, last, value)

    return made


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optim__epochs": 2}, r"trained for 4 epochs, and optim\.epochs is 2: give 4 or more to resume it"),
        ({"model__base": "avsegformer", "model__options": {}}, r"model\.base tpavi, and this run says avsegformer"),
        ({"model__width": 32}, r"model\.width 16, and this run says 32"),
        ({"model__inputs__image_size": 96}, r"model\.inputs\.image_size 64, and this run says 96"),
        ({"model__neighbouring_frames": False}, r"model\.neighbouring_frames True"),
        ({"model__options": {}}, r"model\.options"),
        ({"optim__learning_rate": 0.1}, r"optim\.learning_rate 0\.01, and this run says 0\.1"),
        ({"optim__name": "adamw"}, r"optim\.name adam, "),
        ({"optim__batch_size": 2}, r"optim\.batch_size 1"),
        ({"ufe__teacher": "shared"}, r"ufe\.teacher ema"),
        ({"perturb__flip": 0.0}, r"perturb\.flip 0\.5"),
        ({"data__distant": "far"}, r"data\.distant all"),
        ({"run__seed": 4}, r"run\.seed 3"),
        ({"run__devices": 2}, r"trained on 1 device\(s\)"),
    ],
    ids=str,
)
def test_another_run_is_not_resumed(
    root: Path, whole: Path, changes: dict[str, object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avseg.training.run.build", lambda *_, **__: pytest.fail("slow work has begun"))
    monkeypatch.setattr("avseg.training.run._check_validation", lambda _: None)
    config = configuration(root, whole)
    config.run.resume = True
    change(**changes)(config)
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(AvsegError, match=sentence):
        train(config)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_cosine_has_one_length(root: Path, tmp_path: Path) -> None:
    config = configuration(root, tmp_path / "run", epochs=2, schedule="cosine")
    train(config)
    config.optim.epochs, config.run.resume = 3, True
    with pytest.raises(AvsegError, match=r"begun with optim\.epochs 2, which its cosine schedule follows"):
        train(config)


def test_other_clips_are_not_gone_on_with(root: Path, whole: Path, tmp_path: Path) -> None:
    config = configuration(root, whole)
    config.run.resume = True
    (tmp_path / "one.txt").write_text("s4_train_1\n")
    config.data.labelled = str(tmp_path / "one.txt")
    with pytest.raises(AvsegError, match=r"trained on other clips than data\.root and data\.labelled name now"):
        train(config)
    # The same ones elsewhere are the same.
    config.data.labelled, config.data.root = None, str(shutil.copytree(root, tmp_path / "moved"))
    train(config)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a checkpoint"])
def test_a_damaged_or_foreign_checkpoint_is_named(root: Path, tmp_path: Path, content: bytes) -> None:
    config = configuration(root, tmp_path / "run")
    config.run.resume = True
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(AvsegError, match=r"last\.ckpt cannot be read"):
        train(config)
    torch.save({"avseg_model": {}, "avseg_steps": 3}, file)
    with pytest.raises(AvsegError, match="of an earlier avseg"):
        train(config)


HOLDS = """
import sys, time
from pathlib import Path
from lightning.pytorch.callbacks import Callback
from test_resume import configuration
from avseg.training.run import train

class Wait(Callback):
    def on_train_epoch_end(self, *_):
        Path(sys.argv[2]).joinpath("waits").touch()
        time.sleep(600)

config = configuration(Path(sys.argv[1]), Path(sys.argv[2]))
config.data.workers, config.data.store = 2, "off"
train(config, [Wait()])
"""


def test_two_processes_do_not_train_into_one_folder(root: Path, whole: Path, tmp_path: Path) -> None:
    """Refused while the first is at work; free as soon as it is gone, though its workers may live a little longer."""
    out = tmp_path / "run"
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE), str(HERE.parent)])
    first = subprocess.Popen([sys.executable, "-c", HOLDS, root, out], env={**os.environ, "PYTHONPATH": path})
    config = configuration(root, out)
    try:
        while not (out / "waits").exists():
            assert first.poll() is None
        for config.run.resume in (False, True):
            with pytest.raises(AvsegError, match=r"run is being trained by another process: .*--run\.out"):
                train(config)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    train(config)
    assert same(left(out), left(whole))
    assert json.loads((out / "run.json").read_text())["steps"] == 12
