"""Options that are about speed: the same training, whatever they say."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_avsbench
from small_run import small_config
from torch import Tensor, nn

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.models import AVSModel, build, load
from avseg.training.run import train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 1, "test": 1}, prepared=True)
    return folder


def run_config(root: Path, out: Path) -> Config:
    """One epoch of burn-in and one with distant frames."""
    ufe = UFEConfig(distant_frames=True, burn_in=1)
    optim = OptimConfig(batch_size=2, epochs=2, learning_rate=1e-3, name="adamw")
    return small_config(root, out, ufe, optim, workers=None)


def trained(root: Path, out: Path, optim: dict[str, object] | None = None, **run: object) -> dict[str, Tensor]:
    """Weights after training."""
    config = run_config(root, out)
    config = dataclasses.replace(
        config, optim=dataclasses.replace(config.optim, **(optim or {})), run=dataclasses.replace(config.run, **run)
    )
    train(config)
    return load(out).state_dict()


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return trained(root, tmp_path_factory.mktemp("plain") / "run", {"fused": False})


def assert_same(ours: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    # Adam's first steps move every weight by about the learning rate, also where a gradient is all rounding. So single
    # weights differ from processor to processor; where all of them together went does not.
    config = run_config(Path(), Path())
    start = dict(build(config.model, config.weights, seed=config.run.seed).named_parameters())
    way, other = (torch.cat([(state[name] - start[name]).flatten() for name in start]) for state in (plain, ours))
    # 0.97 and more on two kinds of processor; other draws of mirroring give 0.
    assert torch.cosine_similarity(way, other, dim=0) > 0.9


@pytest.mark.parametrize(
    "options", [{"optim": {"fused": True}}, {"channels_last": True}], ids=["fused", "channels last"]
)
def test_trains_the_same_model(
    options: dict[str, object], root: Path, plain: dict[str, Tensor], tmp_path: Path
) -> None:
    assert_same(trained(root, tmp_path / "run", **options), plain)  # type: ignore[arg-type]


@pytest.mark.heavy
def test_compiled_trains_the_same_model(
    root: Path, plain: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The compiler's front half: what it would make code of, without waiting for a C++ compiler.
    calls = []

    def compile_quickly(self: nn.Module, **options: Any) -> None:
        calls.append(type(self).__name__)
        nn.Module.compile(self, backend="aot_eager", **options)

    monkeypatch.setattr(AVSModel, "compile", compile_quickly)
    ours = trained(root, tmp_path / "run", compile=True)
    assert calls == ["TPAVI"]
    assert_same(ours, plain)
    assert not any("_orig_mod" in name for name in ours)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_never_waited_for_within_a_step(root: Path, tmp_path: Path) -> None:
    """``benchmarks/gpu.sh sync`` runs it where there is one."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        trained(root, tmp_path / "run", accelerator="gpu", precision="bf16-mixed", channels_last=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
