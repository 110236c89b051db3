"""The controls of an experiment: other distant frames, and flow that tells nothing."""

import shutil
from pathlib import Path

import pytest

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data.avsbench import Layout, read_index, write_label_subset
from avseg.data.datamodule import TrainingData, training_data
from avseg.errors import AvsegError

INPUTS = InputConfig(image_size=32)


def data(root: Path, length: int = 1, **options) -> TrainingData:
    """Batches of 2, three epochs, one of them burn-in, distant frames and flow; ``options`` are of `DataConfig`."""
    config = Config(
        data=DataConfig(root=str(root), workers=0, **options),
        model=ModelConfig(neighbouring_frames=True, frames_per_clip=length, inputs=INPUTS),
        ufe=UFEConfig(distant_frames=True, burn_in=1),
        optim=OptimConfig(batch_size=2, epochs=3),
        run=RunConfig(seed=7),
    )
    return training_data(config)


def distant_frames(made: TrainingData) -> dict[str, list[int]]:
    """Numbers k of the distant frames of each video, by subset and name."""
    found: dict[str, list[int]] = {}
    for item in made.distant_items:
        subset = item.layout.subset if isinstance(item.layout, Layout) else "extend"
        found.setdefault(f"{subset} {item.source.name}", []).extend(item.frames)
    return found


@pytest.fixture
def few(s4: Path, tmp_path: Path) -> str:
    """A list of three training videos: 0, 1 and 2."""
    names = [video.name for video in read_index(s4, "s4") if video.split == "train"][:3]
    write_label_subset(tmp_path / "few.txt", names)
    return str(tmp_path / "few.txt")


def test_near_and_far_frames_part_the_distant_ones(s4: Path, few: str) -> None:
    for labelled, own in ((None, [[2, 3, 4, 5]] * 6), (few, [[2, 3, 4, 5]] * 3 + [[1, 2, 3, 4, 5]] * 3)):
        for kind, ks in (("all", range(1, 6)), ("near", range(1, 4)), ("far", range(4, 6))):
            found = distant_frames(data(s4, labelled=labelled, distant=kind))
            assert list(found.values()) == [[k for k in mine if k in ks] for mine in own]
    assert data(s4, distant="near").labelled_items == data(s4).labelled_items
    assert data(s4, distant="near").total_steps == data(s4).total_steps


def test_near_and_far_are_of_s4_and_of_single_frames(both: Path, tmp_path: Path) -> None:
    for kind in ("near", "far"):
        with pytest.raises(AvsegError, match=f"distant is {kind}, .* clips of 5 cannot: set model.frames"):
            data(both, 5, distant=kind)
        for subset in ("ms3", "both"):
            with pytest.raises(AvsegError, match=f"distant is {kind}, which MS3's distant frames are not"):
                data(both, subset=subset, distant=kind)
    root = Path(shutil.copytree(both, tmp_path / "root"))
    shutil.rmtree(root / "MS3_Extend")
    found = distant_frames(data(root, subset="both", distant="far"))
    assert [name.split()[0] for name in found] == ["s4"] * 6


def test_labelled_frames_as_distant_ones(both: Path, few: str) -> None:
    """The control "consistency on labelled frames": no other frame, everywhere valid, and no mask."""
    for subset, labelled, frames in (
        ("s4", None, [[1]] * 6),
        ("s4", few, [[1]] * 3),
        ("ms3", None, [[1, 2, 3, 4, 5]] * 3),
        ("both", None, [[1]] * 6 + [[1, 2, 3, 4, 5]] * 3),
        # One of MS3's videos has the name of one of these.
        ("both", few, [[1]] * 3 + [[1, 2, 3, 4, 5]]),
    ):
        made = data(both, subset=subset, labelled=labelled, distant="labelled")
        assert list(distant_frames(made).values()) == frames
        assert [(item.layout, item.source, item.frames) for item in made.distant_items] == [
            (item.layout, item.source, item.frames) for item in made.labelled_items
        ]
        assert made.labelled_items == data(both, subset=subset, labelled=labelled).labelled_items
        for batch in made.loader(made.burn_in_steps, made.burn_in_steps + 4):
            assert batch.distant is not None
            assert batch.distant.masks is None
            assert batch.distant.valid.all()


def test_of_longer_clips_labelled_frames_alone_count(both: Path) -> None:
    for batch in (made := data(both, 5, subset="s4", distant="labelled")).loader(made.burn_in_steps):
        assert batch.distant is not None
        assert batch.distant.masks is None
        assert batch.distant.valid.flatten(2).all(2).tolist() == [[True] + [False] * 4] * 2
        assert not batch.distant.valid[:, 1:].any()
    made = data(both, 5, subset="ms3", distant="labelled")
    assert next(iter(made.loader(made.burn_in_steps))).distant.valid.all()  # type: ignore[union-attr]
