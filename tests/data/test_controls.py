"""The controls of an experiment: other distant frames, and flow that tells nothing."""

import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from helpers import load_clip, read_videos

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data.avsbench import avsbench, distant_frames, read_frames, write_index
from avseg.data.cache import Shard, open_cache
from avseg.data.clip import Batch
from avseg.data.dataset import Clip, shuffle_flow, whole_videos
from avseg.data.frames import DataSet
from avseg.data.lists import write_label_subset
from avseg.data.loader import TrainingData, evaluation_clips, training_data, validation_clips
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


def distant_ks(made: TrainingData) -> dict[str, list[int]]:
    """Numbers k of the distant frames of each video, by subset and name."""
    found: dict[str, list[int]] = {}
    for clip in made.distant:
        found.setdefault(f"{clip[0].data.name} {clip[0].video}", []).extend(frame.k for frame in clip)
    return found


@pytest.fixture
def few(s4: Path, tmp_path: Path) -> str:
    """A list of three training videos: 0, 1 and 2."""
    names = [video[0].video for video in read_videos(s4, "s4") if video[0].split == "train"][:3]
    write_label_subset(tmp_path / "few.txt", names)
    return str(tmp_path / "few.txt")


def test_near_and_far_frames_part_the_distant_ones(s4: Path, few: str) -> None:
    for labelled, own in ((None, [[2, 3, 4, 5]] * 6), (few, [[2, 3, 4, 5]] * 3 + [[1, 2, 3, 4, 5]] * 3)):
        for kind, ks in (("all", range(1, 6)), ("near", range(1, 4)), ("far", range(4, 6))):
            found = distant_ks(data(s4, labelled=labelled, distant=kind))
            assert list(found.values()) == [[k for k in mine if k in ks] for mine in own]
    assert data(s4, distant="near").labelled == data(s4).labelled
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
    found = distant_ks(data(root, subset="both", distant="far"))
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
        assert list(distant_ks(made).values()) == frames
        assert [[frame.id for frame in clip] for clip in made.distant] == [
            [frame.id for frame in clip] for clip in made.labelled
        ]
        assert made.labelled == data(both, subset=subset, labelled=labelled).labelled
        steps = range(len(made.distant) // 2)
        orders = [[made.labelled_indices(step), made.distant_indices(made.burn_in_steps + step)] for step in steps]
        if labelled is None:  # three clips may come in one order by chance
            assert any(ours != theirs for ours, theirs in orders), "the distant stream has an order of its own"
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


def differences(ours: Batch | None, theirs: Batch | None) -> set[str]:
    """Fields of two batches that are not the same bit for bit."""
    if ours is None or theirs is None:
        return set() if ours is theirs else {"all"}
    found = set()
    for field in fields(ours):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        same = torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other
        if not same:
            found.add(field.name)
    return found


def stored(made: TrainingData, where: Path) -> TrainingData:
    """As a run reads its data."""
    return made.with_cache(open_cache(made.all_frames, INPUTS, made.flow, str(where)))


def lenders_of(clip: Clip) -> Clip:
    """The frames whose flow a clip carries."""
    return tuple(frame.flow_from for frame in clip if frame.flow_from is not None)


def video_of(clip: Clip) -> tuple[DataSet, str]:
    return clip[0].data, clip[0].key


def lent(clip: Clip) -> torch.Tensor:
    """The flow of the video that lends it, read on its own."""
    return load_clip(lenders_of(clip), range(1, len(clip) + 1), INPUTS).flow


def clips_of(made: TrainingData, step: int) -> tuple[Sequence[Clip], Sequence[Clip]]:
    return (
        [made.labelled[i] for i in made.labelled_indices(step)],
        [made.distant[i] for i in made.distant_indices(step)],
    )


def test_every_clip_gets_the_flow_of_another_video_and_keeps_all_else(both: Path) -> None:
    shuffled, computed = (data(both, subset="both", flow=flow) for flow in ("shuffled", "computed"))
    assert shuffled.flow == computed.flow == "computed"
    for ours, theirs in zip(shuffled.loader(), computed.loader(), strict=True):
        for half, other, clips in zip(
            (ours.labelled, ours.distant), (theirs.labelled, theirs.distant), clips_of(shuffled, ours.step), strict=True
        ):
            assert differences(half, other) == ({"flow"} if half else set())
            for row, clip in enumerate(clips):
                assert len(lenders_of(clip)) == len(clip)
                assert video_of(lenders_of(clip)) != video_of(clip)
                assert [frame.k for frame in lenders_of(clip)] == [frame.k for frame in clip]
                assert torch.equal(half.flow[row], lent(clip))  # type: ignore[union-attr]
    # MS3 has one video for validation, and S4's two don't lend it theirs.
    with pytest.raises(AvsegError, match=r"Multi-sources has one video of split val, .*set data\.flow to computed"):
        list(validation_clips(shuffled))


@pytest.mark.parametrize("length", [1, 5])
def test_lenders_are_others_of_the_split_and_lend_to_one_alone(both: Path, few: str, length: int) -> None:
    made = data(both, length, flow="shuffled")
    lenders = {video_of(clip): video_of(lenders_of(clip)) for clip in (*made.labelled, *made.distant)}
    train = {video_of(video) for video in read_videos(both, "s4") if video[0].split == "train"}
    assert set(lenders) == set(lenders.values()) == train
    assert all(source != lender for source, lender in lenders.items())
    # Whatever a run reads and whatever its seed is, a clip moves alike.
    fewer = data(both, length, flow="shuffled", labelled=few, distant="labelled")
    fewer.config.run.seed = 3
    assert {video_of(clip): video_of(lenders_of(clip)) for clip in fewer.labelled}.items() <= lenders.items()
    assert [lenders_of(clip) for clip in fewer.distant] == [lenders_of(clip) for clip in fewer.labelled]
    extend = distant_frames(both / "MS3_Extend")
    clips = shuffle_flow([(frame,) for frame in read_frames(extend)])
    assert {video_of(lenders_of(clip)) for clip in clips} == {video_of(clip) for clip in clips}
    assert all(video_of(lenders_of(clip)) != video_of(clip) for clip in clips)


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("options", [{}, {"labelled": "few"}, {"distant": "labelled", "labelled": "few"}], ids=str)
def test_the_store_lends_as_the_files_do_and_holds_flow_once(
    s4: Path, few: str, tmp_path: Path, length: int, options: dict[str, str]
) -> None:
    options = {name: few if value == "few" else value for name, value in options.items()}
    files = data(s4, length, flow="shuffled", **options)
    read = stored(files, tmp_path / "store")
    for ours, theirs in zip(read.loader(), files.loader(), strict=True):
        assert not differences(ours.labelled, theirs.labelled)
        assert not differences(ours.distant, theirs.distant)
    for mine, other in zip(validation_clips(read), validation_clips(files), strict=True):
        assert not differences(mine, other)
    stored(data(s4, length, **options), tmp_path / "store")
    rows = list((tmp_path / "store").rglob("flow-*/*.safetensors"))
    names = [name for path in rows for name, _ in Shard(path).names]
    assert len(names) == len(set(names))
    assert {path.parent.name for path in rows} == {"flow-computed-32-stretch-v1"}


def test_resuming_and_workers_change_nothing_of_lent_flow(s4: Path, tmp_path: Path) -> None:
    files = data(s4, flow="shuffled")
    whole = list(files.loader())
    for made in (data(s4, flow="shuffled"), stored(files, tmp_path)):
        for workers in (0, 2):
            changed = replace(made, config=replace(made.config, data=replace(made.config.data, workers=workers)))
            for ours, theirs in zip(changed.loader(4, 7), whole[4:7], strict=True):
                assert not differences(ours.labelled, theirs.labelled)
                assert not differences(ours.distant, theirs.distant)


def test_validation_and_evaluation_lend_alike(s4: Path, tmp_path: Path) -> None:
    items = shuffle_flow(whole_videos(avsbench(s4, "s4"), "val"))
    for made in (files := data(s4, flow="shuffled"), stored(files, tmp_path)):
        for workers in (0, 2):
            evaluated = evaluation_clips(s4, "s4", "val", INPUTS, workers, flow="shuffled")
            own = evaluation_clips(s4, "s4", "val", INPUTS, flow="computed")
            rows = zip(validation_clips(made), evaluated, own, items, strict=True)
            for mine, other, plain, item in rows:
                assert not differences(mine, other)
                assert differences(mine, plain) == {"flow"}
                assert torch.equal(mine.flow[0], lent(item))


def test_lent_flow_keeps_embeddings_and_needs_a_branch(s4: Path) -> None:
    videos = read_videos(s4, "s4")
    embeddings = {avsbench(s4, "s4"): {video[0].key: torch.full((5, 128), float(i)) for i, video in enumerate(videos)}}
    shuffled, computed = (data(s4, flow=flow).with_embeddings(embeddings) for flow in ("shuffled", "computed"))
    for ours, theirs in zip(shuffled.loader(3, 6), computed.loader(3, 6), strict=True):
        assert torch.equal(ours.labelled.audio, theirs.labelled.audio)  # type: ignore[arg-type]
        assert torch.equal(ours.distant.audio, theirs.distant.audio)  # type: ignore[union-attr, arg-type]
    config = replace(shuffled.config, model=replace(shuffled.config.model, neighbouring_frames=False))
    plain = training_data(config)
    assert plain.flow == "none"
    assert not any(lenders_of(clip) for clip in (*plain.labelled, *plain.validation))
    assert not next(iter(plain.loader())).labelled.flow.any()


def test_one_video_alone_has_no_lender(s4: Path, ms3: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(s4, tmp_path / "s4"))
    index = read_videos(root, "s4")
    kept = [index[0], *(video for video in index if video[0].split != "train")]
    write_index(avsbench(root, "s4"), [frame for video in kept for frame in video])
    with pytest.raises(AvsegError, match=r"Single-source has one video of split train, .*data\.flow to computed"):
        data(root, flow="shuffled")
    with pytest.raises(AvsegError, match="one video of split train"):
        evaluation_clips(root, "s4", "train", INPUTS, flow="shuffled")
    root = Path(shutil.copytree(ms3, tmp_path / "ms3"))
    extend = distant_frames(root / "MS3_Extend")
    write_index(extend, read_frames(extend)[:1])
    with pytest.raises(AvsegError, match="MS3_Extend has one distant frame"):
        data(root, subset="ms3", flow="shuffled")
