"""Eq. 2: flow refines the pyramid, starting from nothing."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from served_models import Server
from torch import Tensor

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.catalogue import named
from avseg.models.download import download
from avseg.models.motion import FlowEncoder, MotionBranch

RANDOM = WeightsConfig(flow="none")
FOUR = [(stride, 8) for stride in (4, 8, 16, 32)]


def config(**changes: object) -> ModelConfig:
    return ModelConfig(width=8, dilations=(1, 2), **changes)  # type: ignore[arg-type]


def pyramid() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 8, 64 // stride, 96 // stride, generator=generator) for stride in (4, 8, 16, 32)]


def fill(branch: MotionBranch) -> None:
    for parameter in branch.refine.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("fusion", ["gated", "sum"])
def test_training_starts_as_the_base_model_and_then_learns(fusion: str) -> None:
    torch.manual_seed(0)
    branch, flow, maps = MotionBranch(config(flow_fusion=fusion), FOUR, RANDOM), torch.randn(2, 2, 64, 96), pyramid()
    for refined, image in zip(branch(maps, flow), maps, strict=True):
        assert torch.equal(refined, image)
    optimiser = torch.optim.SGD(branch.parameters(), lr=0.1)
    for step in range(2):
        optimiser.zero_grad()
        sum(item.square().mean() for item in branch(maps, flow)).backward()  # type: ignore[union-attr]
        stem = branch.encoder.conv1.weight.grad
        assert stem is not None
        assert bool(stem.any()) == (step == 1)
        optimiser.step()


@pytest.mark.parametrize("fusion", ["gated", "sum"])
def test_flow_is_added_as_equation_2_has_it(fusion: str) -> None:
    torch.manual_seed(0)
    branch, flow, maps = (
        MotionBranch(config(flow_fusion=fusion), FOUR, RANDOM).eval(),
        torch.randn(2, 2, 64, 96),
        pyramid(),
    )
    fill(branch)
    gains = [1.0] * 4
    if fusion == "gated":
        gains = [0.5, -1.0, 2.0, 0.1]
        branch.gain.data = torch.tensor(gains)
    features = branch.encoder(flow)[0]
    for refined, image, refine, gain in zip(branch(maps, flow), maps, branch.refine, gains, strict=True):
        motion = F.interpolate(refine(features), image.shape[-2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(refined, image + gain * motion)


@pytest.mark.parametrize(("fusion", "drowned"), [("gated", False), ("sum", True)])
def test_a_gate_keeps_flow_from_drowning_the_image(fusion: str, drowned: bool) -> None:
    """Ten steps of Adam at the small scale's learning rate, all of which ask for more of the flow."""
    torch.manual_seed(0)
    branch = MotionBranch(
        ModelConfig(width=48, dilations=(1, 3, 6), flow_fusion=fusion), [(s, 48) for s, _ in FOUR], RANDOM
    )  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(branch.parameters(), lr=1e-3)
    maps = [torch.randn(2, 48, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    flow = torch.randn(2, 2, 64, 64)
    for _ in range(10):
        optimiser.zero_grad()
        (-sum(item.mean() for item in branch(maps, flow))).backward()  # type: ignore[union-attr, operator]
        optimiser.step()
    with torch.no_grad():
        added = [(new - old).norm() / old.norm() for new, old in zip(branch(maps, flow), maps, strict=True)]
    assert bool(max(added) > 1) == drowned


def test_normalised_divides_before_and_after() -> None:
    torch.manual_seed(0)
    branch, flow, maps = (
        MotionBranch(config(flow_fusion="normalised"), FOUR, RANDOM).eval(),
        torch.randn(2, 2, 64, 96),
        pyramid(),
    )
    result = branch(maps, flow)
    for item in result:
        torch.testing.assert_close(item.norm(dim=1), torch.ones_like(item[:, 0]))
    features = branch.encoder(flow)[0]
    for item, image, refine in zip(result, maps, branch.refine, strict=True):
        motion = F.interpolate(refine(features), image.shape[-2:], mode="bilinear", align_corners=False)
        both = image / image.norm(dim=1, keepdim=True) + motion / motion.norm(dim=1, keepdim=True)
        torch.testing.assert_close(item, both / both.norm(dim=1, keepdim=True), atol=1e-4, rtol=1e-4)
    louder = branch([10 * item for item in maps], flow)
    torch.testing.assert_close(louder[2], result[2])
    assert not torch.allclose(branch(maps, 0 * flow)[0], result[0])


def test_four_stages_read_a_stage_each() -> None:
    branch = MotionBranch(config(flow_stages=4), FOUR, RANDOM)
    assert [item.branches[0].in_channels for item in branch.refine] == [64, 128, 256, 512]
    assert [tuple(item.shape[1:]) for item in branch.encoder(torch.zeros(1, 2, 64, 64))] == [
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
    ]


@pytest.mark.parametrize(("stages", "reads"), [(1, 64), (4, 256)])
def test_a_pyramid_may_have_one_map_of_any_width(stages: int, reads: int) -> None:
    torch.manual_seed(0)
    branch = MotionBranch(config(flow_stages=stages, flow_fusion="sum"), [(16, 24)], RANDOM)
    assert [item.branches[0].in_channels for item in branch.refine] == [reads]
    fill(branch)
    image = torch.randn(2, 24, 4, 6)
    (refined,) = branch([image], torch.randn(2, 2, 64, 96))
    assert refined.shape == image.shape
    assert not torch.allclose(refined, image)
    refined.sum().backward()  # nothing is built that is not read
    assert all(parameter.grad is not None for parameter in branch.parameters())


def test_torchvision_weights_with_an_averaged_stem(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = FlowEncoder(4).state_dict()
    rgb = torch.randn(64, 3, 7, 7)
    file = tmp_path / "resnet18.pth"
    torch.save({**whole, "conv1.weight": rgb, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, file)
    encoder = MotionBranch(config(), FOUR, WeightsConfig(flow=str(file))).encoder
    assert torch.equal(encoder.layer1[1].conv2.weight, whole["layer1.1.conv2.weight"])
    for channel in (0, 1):
        torch.testing.assert_close(encoder.conv1.weight[:, channel], rgb.mean(dim=1))
    torch.save({"conv1.weight": rgb}, file)
    with pytest.raises(AvsegError, match=r"resnet18\.pth .*bn1\.weight is missing"):
        MotionBranch(config(), FOUR, WeightsConfig(flow=str(file)))


def test_weights_that_were_downloaded_by_name_are_taken(address: str, resnet: bytes, listed: Any) -> None:
    Server.files = {"resnet18.pth": resnet}
    download(listed(replace(named("resnet18")[0], source=f"{address}/resnet18.pth", sha256="")))
    encoder = MotionBranch(config(), FOUR, WeightsConfig()).encoder
    published = torch.load(io.BytesIO(resnet))["layer1.1.conv2.weight"]
    assert torch.equal(encoder.layer1[1].conv2.weight, published)


def test_weights_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("avseg.models.motion.RESNET18_URL", (tmp_path / "resnet18-5c106cde.pth").as_uri())
    with pytest.raises(AvsegError, match=r"weights\.flow=FILE.*weights\.flow=none"):
        MotionBranch(config(), FOUR, WeightsConfig())
