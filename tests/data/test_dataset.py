"""Both subsets in one training run, and which items each alone gives."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import load_clip, read_videos

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data.avsbench import avsbench, distant_frames
from avseg.data.clip import DistantBatch, LabelledBatch
from avseg.data.frames import DataSet
from avseg.data.lists import write_label_subset
from avseg.data.loader import TrainingData, training_data, validation_clips
from avseg.errors import AvsegError

INPUTS = InputConfig(image_size=32)


def data(root: Path, length: int = 1, subset: str = "both", **changes) -> TrainingData:
    """Batches of 2, three epochs, one of them burn-in, distant frames and flow."""
    config = Config(
        data=DataConfig(root=str(root), subset=subset, workers=0, **changes),  # type: ignore[arg-type]
        model=ModelConfig(neighbouring_frames=True, frames_per_clip=length, inputs=INPUTS),
        ufe=UFEConfig(distant_frames=True, burn_in=1),
        optim=OptimConfig(batch_size=2, epochs=3),
        run=RunConfig(seed=7),
    )
    return training_data(config)


def test_both_subsets_are_one_permutation(both: Path) -> None:
    mixed = data(both)
    assert len(mixed.labelled) == mixed.full_size == 6 + 3 * 5
    assert len(mixed.distant) == 6 * 4 + 4
    assert mixed.steps_per_epoch == 10
    first = [mixed.labelled[i] for step in range(10) for i in mixed.labelled_indices(step)]
    assert len(set(first)) == 20
    assert {clip[0].data.name for clip in first[:10]} == {"s4", "ms3"}, "they alternate"
    steps = range(mixed.burn_in_steps, mixed.burn_in_steps + 14)
    distant = [mixed.distant[i] for step in steps for i in mixed.distant_indices(step)]
    assert Counter(clip[0].data.name for clip in distant) == {"s4": 24, "distant": 4}
    assert len(set(distant)) == 28


def test_clips_come_from_their_own_subset(both: Path) -> None:
    """Names recur: what a batch holds must be told by layout and name together."""
    mixed = data(both)
    shared = {"s4_train_1"}
    seen = set()
    for batch in mixed.loader(0, 40):
        for row, i in enumerate(mixed.labelled_indices(batch.step)):
            (frame,) = mixed.labelled[i]
            clip = load_clip((frame,), (1,), INPUTS)
            assert batch.labelled.names[row] == frame.video
            assert torch.equal(batch.labelled.frames[row], clip.frames)
            assert clip.masks is not None
            assert torch.equal(batch.labelled.masks[row], clip.masks)
            if frame.video in shared:
                seen.add(frame.data.name)
        for row, i in enumerate(mixed.distant_indices(batch.step)):
            assert batch.distant is not None
            clip = load_clip(mixed.distant[i], (1,), INPUTS)
            assert torch.equal(batch.distant.frames[row], clip.frames)
            assert torch.equal(batch.distant.flow[row], clip.flow)
    assert seen == {"s4", "ms3"}


def test_stills_name_each_frame_once_by_its_layout(both: Path) -> None:
    s4, ms3, distant = avsbench(both, "s4"), avsbench(both, "ms3"), distant_frames(both / "MS3_Extend")
    frames = data(both).frames
    assert Counter((frame.data, frame.labelled) for frame in frames) == {
        (s4, True): 6,
        (ms3, True): 15,
        (s4, False): 24,
        (distant, False): 4,
    }
    assert len({frame.id for frame in frames}) == len(frames)


def test_embeddings_are_told_apart_by_layout(both: Path) -> None:
    mixed = data(both)
    embeddings: dict[DataSet, dict[str, torch.Tensor]] = {}
    data_sets = list(dict.fromkeys(frame.data for frame in mixed.all_frames))
    for frame in mixed.all_frames:
        rows = 1 if frame.data.name == "distant" else 5
        value = torch.full((rows, 128), float(data_sets.index(frame.data)))
        embeddings.setdefault(frame.data, {})[frame.key] = value
    mixed = mixed.with_embeddings(embeddings)
    for batch in mixed.loader(8, 30):
        for half, clips, indices in (
            (batch.labelled, mixed.labelled, mixed.labelled_indices(batch.step)),
            (batch.distant, mixed.distant, mixed.distant_indices(batch.step)),
        ):
            if half is not None:
                expected = [data_sets.index(clips[i][0].data) for i in indices]  # type: ignore[index]
                assert half.audio[:, 0, 0].tolist() == expected
    assert [batch.audio[0, 0, 0].item() for batch in validation_clips(mixed)] == [0, 0, 1]


def test_validation_is_over_both(both: Path) -> None:
    batches = list(validation_clips(data(both)))
    assert [batch.names for batch in batches] == [("-s4_val_0",), ("s4_val_1",), ("-s4_val_0",)]
    assert not torch.equal(batches[0].frames, batches[2].frames)
    assert [batch.categories[0] for batch in batches] == ["dog_barking", "helicopter", ""]
    assert len(list(validation_clips(data(both, subset="ms3")))) == 1


def test_clips_of_five_frames_have_no_distant_frames_of_ms3(both: Path) -> None:
    mixed = data(both, length=5)
    assert len(mixed.labelled) == 9
    assert {clip[0].data for clip in mixed.distant} == {avsbench(both, "s4")}
    batch = next(iter(mixed.loader(mixed.burn_in_steps)))
    assert batch.labelled.frames.shape == batch.distant.frames.shape == (2, 5, 3, 32, 32)
    with pytest.raises(AvsegError, match="frames_per_clip to 1"):
        data(both, length=5, distant_root=str(both / "MS3_Extend"))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_any_t_counts_every_label_and_every_distant_frame_once(both: Path, tmp_path: Path, length: int) -> None:
    write_label_subset(tmp_path / "few.txt", ["s4_train_1", "s4_train_2"])
    mixed = data(both, length, labelled=str(tmp_path / "few.txt"))
    labelled: list[tuple[str, str, int]] = []
    distant: list[tuple[str, str, int]] = []
    for found, clips in ((labelled, mixed.labelled), (distant, mixed.distant)):
        for clip in clips:
            if clip[0].data.name == "distant":
                continue
            batch = mixed.batch([clip], LabelledBatch if found is labelled else DistantBatch)
            ks = [frame.k for frame in clip]
            assert ks == list(range(ks[0], ks[0] + length)), "consecutive frames"
            assert batch.inside.all()
            counted = batch.valid[0].flatten(1)
            assert torch.equal(counted.any(1), counted.all(1))
            assert counted.any(), "no clip is for nothing"
            own = (clip[0].data.name, clip[0].video)
            found += [(*own, k) for k, counts in zip(ks, counted.any(1).tolist(), strict=True) if counts]
    s4 = ["-s4_train_0", *(f"s4_train_{i}" for i in range(1, 6))]
    labels = [("s4", "s4_train_1", 1), ("s4", "s4_train_2", 1), *(("ms3", "s4_train_1", k) for k in range(1, 6))]
    assert sorted(labelled) == sorted(labels)
    assert sorted(distant) == sorted({("s4", name, k) for name in s4 for k in range(1, 6)} - set(labels))


def test_distant_frames_of_ms3_may_be_missing_unless_named(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    (root / "MS3_Extend").rename(tmp_path / "elsewhere")
    assert len(data(root).distant) == 24
    assert len(data(root, distant_root=str(tmp_path / "elsewhere")).distant) == 28
    with pytest.raises(AvsegError, match=r"nowhere does not exist.*--data\.distant_root"):
        data(root, distant_root=str(tmp_path / "nowhere"))


def test_fewer_labels_of_both(both: Path, tmp_path: Path) -> None:
    write_label_subset(tmp_path / "few.txt", ["s4_train_1", "s4_train_2"])
    mixed = data(both, labelled=str(tmp_path / "few.txt"))
    found = [(clip[0].data.name, clip[0].video) for clip in mixed.labelled]
    assert Counter(found) == {("s4", "s4_train_1"): 1, ("s4", "s4_train_2"): 1, ("ms3", "s4_train_1"): 5}
    assert len(mixed.distant) == 2 * 4 + 4 * 5 + 4
    assert mixed.full_size == 21


def test_a_missing_file_of_either_shows_before_training(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    for subset in ("s4", "ms3"):
        path = next(video[0].log_mel for video in read_videos(root, subset) if video[0].split == "train")
        path.rename(path.with_suffix(".away"))
        with pytest.raises(AvsegError, match="avseg data prepare") as caught:
            data(root)
        assert str(path) in str(caught.value)
        path.with_suffix(".away").rename(path)
    avsbench(root, "ms3").index.unlink()
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv does not exist"):
        data(root)
