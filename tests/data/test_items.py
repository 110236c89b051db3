"""Both subsets in one training run, and which items each alone gives."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from avseg.data.datamodule import TrainingData, training_data, validation_clips

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data.avsbench import DistantLayout, Layout, load_clip, load_distant_clip, read_index, write_label_subset
from avseg.data.clip import DistantBatch, LabelledBatch
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
    assert len(mixed.labelled_items) == mixed.full_size == 6 + 3 * 5
    assert len(mixed.distant_items) == 6 * 4 + 4
    assert mixed.steps_per_epoch == 10
    first = [mixed.labelled_items[i] for step in range(10) for i in mixed.labelled_indices(step)]
    assert len(set(first)) == 20
    assert {item.layout.subset for item in first[:10]} == {"s4", "ms3"}, "they alternate"
    steps = range(mixed.burn_in_steps, mixed.burn_in_steps + 14)
    distant = [mixed.distant_items[i] for step in steps for i in mixed.distant_indices(step)]
    assert Counter(type(item.layout) for item in distant) == {Layout: 24, DistantLayout: 4}
    assert len(set(distant)) == 28


def test_clips_come_from_their_own_subset(both: Path) -> None:
    """Names recur: what a batch holds must be told by layout and name together."""
    mixed = data(both)
    shared = {"s4_train_1"}
    seen = set()
    for batch in mixed.loader(0, 40):
        items = [mixed.labelled_items[i] for i in mixed.labelled_indices(batch.step)]
        for row, item in enumerate(items):
            clip = load_clip(item.layout, item.source, item.frames, INPUTS)
            assert batch.labelled.names[row] == item.source.name
            assert torch.equal(batch.labelled.frames[row], clip.frames)
            assert clip.masks is not None
            assert torch.equal(batch.labelled.masks[row], clip.masks)
            if item.source.name in shared:
                seen.add(item.layout.subset)
        for row, i in enumerate(mixed.distant_indices(batch.step)):
            assert batch.distant is not None
            other = mixed.distant_items[i]
            if isinstance(other.layout, DistantLayout):
                clip = load_distant_clip(other.layout, other.source, INPUTS)
            else:
                clip = load_clip(other.layout, other.source, other.frames, INPUTS, labelled=())
            assert torch.equal(batch.distant.frames[row], clip.frames)
            assert torch.equal(batch.distant.flow[row], clip.flow)
    assert seen == {"s4", "ms3"}


def test_stills_name_each_frame_once_by_its_layout(both: Path) -> None:
    s4, ms3, distant = Layout(both, "s4"), Layout(both, "ms3"), DistantLayout(both / "MS3_Extend")
    stills = data(both).stills
    assert Counter((still.layout, still.labelled) for still in stills) == {
        (s4, True): 6,
        (ms3, True): 15,
        (s4, False): 24,
        (distant, False): 4,
    }
    assert len({(still.layout, still.source, still.k) for still in stills}) == len(stills)


def test_embeddings_are_told_apart_by_layout(both: Path) -> None:
    mixed = data(both)
    embeddings: dict[Layout | DistantLayout, dict[str, torch.Tensor]] = {}
    stills = [*mixed.stills, *(still for item in mixed.validation_items for still in item.stills)]
    layouts = list(dict.fromkeys(still.layout for still in stills))
    for still in stills:
        rows = 1 if isinstance(still.layout, DistantLayout) else 5
        value = torch.full((rows, 128), float(layouts.index(still.layout)))
        embeddings.setdefault(still.layout, {})[still.source.key] = value
    mixed = mixed.with_embeddings(embeddings)
    for batch in mixed.loader(8, 30):
        for half, items, indices in (
            (batch.labelled, mixed.labelled_items, mixed.labelled_indices(batch.step)),
            (batch.distant, mixed.distant_items, mixed.distant_indices(batch.step)),
        ):
            if half is not None:
                expected = [layouts.index(items[i].layout) for i in indices]  # type: ignore[index]
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
    assert len(mixed.labelled_items) == 9
    assert {item.layout for item in mixed.distant_items} == {Layout(both, "s4")}
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
    for found, items in ((labelled, mixed.labelled_items), (distant, mixed.distant_items)):
        for item in items:
            if not isinstance(item.layout, Layout):
                continue
            clip = mixed.batch([item], LabelledBatch if found is labelled else DistantBatch)
            assert item.frames == tuple(range(item.frames[0], item.frames[0] + length)), "consecutive frames"
            assert clip.inside.all()
            counted = clip.valid[0].flatten(1)
            assert torch.equal(counted.any(1), counted.all(1))
            assert counted.any(), "no clip is for nothing"
            own = (item.layout.subset, item.source.name)
            found += [(*own, k) for k, counts in zip(item.frames, counted.any(1).tolist(), strict=True) if counts]
    s4 = ["-s4_train_0", *(f"s4_train_{i}" for i in range(1, 6))]
    labels = [("s4", "s4_train_1", 1), ("s4", "s4_train_2", 1), *(("ms3", "s4_train_1", k) for k in range(1, 6))]
    assert sorted(labelled) == sorted(labels)
    assert sorted(distant) == sorted({("s4", name, k) for name in s4 for k in range(1, 6)} - set(labels))


def test_distant_frames_of_ms3_may_be_missing_unless_named(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    (root / "MS3_Extend").rename(tmp_path / "elsewhere")
    assert len(data(root).distant_items) == 24
    assert len(data(root, distant_root=str(tmp_path / "elsewhere")).distant_items) == 28
    with pytest.raises(AvsegError, match=r"nowhere does not exist.*--data\.distant_root"):
        data(root, distant_root=str(tmp_path / "nowhere"))


def test_fewer_labels_of_both(both: Path, tmp_path: Path) -> None:
    write_label_subset(tmp_path / "few.txt", ["s4_train_1", "s4_train_2"])
    mixed = data(both, labelled=str(tmp_path / "few.txt"))
    found = [(item.layout.subset, item.source.name) for item in mixed.labelled_items]
    assert Counter(found) == {("s4", "s4_train_1"): 1, ("s4", "s4_train_2"): 1, ("ms3", "s4_train_1"): 5}
    assert len(mixed.distant_items) == 2 * 4 + 4 * 5 + 4
    assert mixed.full_size == 21


def test_a_missing_file_of_either_shows_before_training(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    for subset in ("s4", "ms3"):
        layout = Layout(root, subset)
        path = layout.log_mel(next(video for video in read_index(root, subset) if video.split == "train"))
        path.rename(path.with_suffix(".away"))
        with pytest.raises(AvsegError, match="avseg data prepare") as caught:
            data(root)
        assert str(path) in str(caught.value)
        path.with_suffix(".away").rename(path)
    Layout(root, "ms3").index.unlink()
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv does not exist"):
        data(root)
