"""What is seen and what counts are two things: padding is blank, a frame without a label is seen and left out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench, read_videos
from torch import Generator

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, PerturbConfig, UFEConfig
from avseg.data import perturb
from avseg.data.cache import open_cache
from avseg.data.clip import Batch
from avseg.data.lists import write_label_subset
from avseg.data.loader import TrainingData, training_data
from avseg.models.layers import dice_loss, masked_bce
from avseg.training.consistency import consistency


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 with a wide video, a tall one and a square one, whose frames are all bright somewhere."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"s4_train_1": {"size": (96, 48)}, "s4_train_2": {"size": (48, 80)}}
    make_avsbench(folder, "s4", {"train": 3, "val": 1}, prepared=True, settings=shapes)
    return folder


def batches(root: Path, tmp_path: Path, length: int, resize: str, store: bool) -> list[Batch]:
    """One epoch's labelled and distant batches of T = ``length`` after burn-in; of one video no label is used."""
    names = [video[0].video for video in read_videos(root, "s4") if video[0].split == "train"]
    write_label_subset(tmp_path / "few.txt", names[:2])
    config = Config(
        data=DataConfig(root=str(root), workers=0, labelled=str(tmp_path / "few.txt")),
        model=ModelConfig(
            neighbouring_frames=True,
            frames_per_clip=length,
            inputs=InputConfig(image_size=64, resize=resize),  # type: ignore[arg-type]
        ),
        ufe=UFEConfig(distant_frames=True, burn_in=1),
        optim=OptimConfig(batch_size=2, epochs=3),
    )
    data: TrainingData = training_data(config)
    if store:
        data = data.with_cache(open_cache(data.frames, config.model.inputs, data.flow, str(tmp_path / "store")))
    loaded = [half for batch in data.loader(data.burn_in_steps) for half in (batch.labelled, batch.distant)]
    return [half for half in loaded if half is not None]


@pytest.mark.parametrize("store", [False, True], ids=["files", "store"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_views_show_every_frame_and_no_padding(
    root: Path, tmp_path: Path, length: int, resize: str, store: bool
) -> None:
    """Views are the same whatever counts in them: ``valid`` alone follows labels, and ``inside`` alone padding."""
    perturbs, unseen = PerturbConfig(), 0
    for batch in batches(root, tmp_path, length, resize, store):
        assert not (batch.valid & ~batch.inside).any()
        assert bool(batch.inside.all()) == (resize == "stretch" or set(batch.names) == {"-s4_train_0"})
        everything = replace(batch, valid=batch.inside)
        count, draws = len(batch), Generator().manual_seed(0)
        geometry = perturb.draw_geometry(count, perturbs, draws)
        colour = perturb.draw_colour(count, perturbs, draws)
        boxes = perturb.draw_boxes(count, (64, 64), replace(perturbs, cutmix_probability=1), draws)
        views, whole = [], []
        for made, given in ((views, batch), (whole, everything)):
            weak = perturb.weak(given, geometry)
            strong = perturb.strong(weak, colour)
            made += [weak, strong, perturb.paste(strong, perturb.roll(strong), boxes)]
        for view, other in zip(views, whole, strict=True):
            for name in ("frames", "flow", "inside"):
                assert torch.equal(getattr(view, name), getattr(other, name)), name
            assert torch.equal(other.valid, view.inside)
            assert not (view.valid & ~view.inside).any()
            outside = ~view.inside
            assert not (view.frames * outside).any()
            assert not (view.flow * outside).any()
        weak = views[0]
        for b, t in (~batch.valid.flatten(2).any(2)).nonzero().tolist():
            unseen += 1
            assert not weak.valid[b, t].any()
            light = batch.frames[b, t].float().mean() / 255
            # Black is what a frame without a label was shown as.
            assert weak.frames[b, t][:, weak.inside[b, t, 0]].mean() > 0.3 * light > 0
    assert (unseen > 0) == (length > 1)


def test_losses_leave_frames_without_a_label_out(root: Path, tmp_path: Path) -> None:
    for batch in batches(root, tmp_path, 5, "letterbox", store=False)[::2]:
        assert batch.masks is not None
        logits = torch.randn(batch.masks.shape, generator=Generator().manual_seed(0))
        other, masks = torch.where(batch.valid, logits, 9.0), batch.masks.float()
        losses = [
            [loss(x, masks, batch.valid) for loss in (masked_bce, dice_loss, consistency)] for x in (logits, other)
        ]
        assert losses[0] == losses[1]
