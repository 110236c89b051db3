import builtins
import io
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench, read_videos

import avseg.data.loader as datamodule
from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig
from avseg.data.avsbench import avsbench, distant_frames
from avseg.data.clip import DistantBatch, LabelledBatch, TrainBatch
from avseg.data.lists import write_label_subset
from avseg.data.loader import TrainingData, evaluation_clips, training_data, validation_clips
from avseg.data.prepare import prepare
from avseg.errors import AvsegError


def config(root: Path, subset: str = "s4", **changes) -> Config:
    """Batches of 2, three epochs, one of them burn-in, distant frames and flow; ``section__field`` changes one."""
    made = Config(
        data=DataConfig(root=str(root), subset=subset, workers=0),  # type: ignore[arg-type]
        model=ModelConfig(neighbouring_frames=True, inputs=InputConfig(image_size=32)),
        ufe=UFEConfig(distant_frames=True, burn_in=1),
        optim=OptimConfig(batch_size=2, epochs=3),
        run=RunConfig(seed=7),
    )
    for name, value in changes.items():
        section, field = name.split("__")
        setattr(getattr(made, section), field, value)
    return made


def clips(batch: LabelledBatch | DistantBatch) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, tuple(times.tolist())) for name, times in zip(batch.names, batch.times, strict=True)]


def same(a: TrainBatch, b: TrainBatch) -> bool:
    def equal(x, y) -> bool:
        if x is None or y is None:
            return x is y
        return clips(x) == clips(y) and torch.equal(x.frames, y.frames) and torch.equal(x.flow, y.flow)

    return a.step == b.step and equal(a.labelled, b.labelled) and equal(a.distant, b.distant)


def test_steps(s4: Path) -> None:
    data = training_data(config(s4))
    assert (data.steps_per_epoch, data.total_steps, data.burn_in_steps) == (3, 9, 3)
    assert len(data.labelled) == 6
    assert len(data.distant) == 24
    assert training_data(config(s4, optim__batch_size=4)).steps_per_epoch == 1, "the remainder is not an own step"
    assert training_data(config(s4, optim__batch_size=100)).steps_per_epoch == 1, "but there is at least one"
    assert training_data(config(s4), rank=1, world_size=3).steps_per_epoch == 1


def test_batches_have_the_contract_s_shapes(s4: Path) -> None:
    batches = list(training_data(config(s4)).loader())
    assert [batch.step for batch in batches] == list(range(9))
    assert [batch.distant is None for batch in batches] == [True] * 3 + [False] * 6
    batch = batches[3]
    assert isinstance(batch, TrainBatch)
    assert isinstance(batch.labelled, LabelledBatch)
    assert isinstance(batch.distant, DistantBatch)
    for half in (batch.labelled, batch.distant):
        assert half.frames.shape == (2, 1, 3, 32, 32)
        assert half.flow.shape == (2, 1, 2, 32, 32)
        assert half.log_mel.shape == (2, 1, 1, 96, 64)
        assert half.valid.all()
    assert batch.labelled.masks is not None
    assert batch.labelled.masks.any()
    assert batch.distant.masks is None


def test_each_pass_is_a_permutation_and_passes_differ(s4: Path) -> None:
    batches = list(training_data(config(s4)).loader())
    names = [name for batch in batches for name in batch.labelled.names]
    passes = [names[start : start + 6] for start in (0, 6, 12)]
    everyone = sorted(video[0].video for video in read_videos(s4, "s4") if video[0].split == "train")
    assert [sorted(names) for names in passes] == [everyone] * 3
    assert passes[0] != passes[1] != passes[2]
    other = [name for batch in training_data(config(s4, run__seed=8)).loader() for name in batch.labelled.names]
    assert other != names


def test_distant_stream_begins_after_burn_in_and_runs_on_across_epochs(s4: Path) -> None:
    data = training_data(config(s4, optim__epochs=13, optim__batch_size=2))
    seen = [data.distant[i] for step in range(data.total_steps) for i in data.distant_indices(step)]
    assert len(seen) == 2 * (data.total_steps - data.burn_in_steps) == 72
    for start in (0, 24, 48):
        assert set(seen[start : start + 24]) == set(data.distant), "one permutation after the other"
    assert seen[:24] != seen[24:48]
    assert all(item[0].k != 1 for item in seen), "the labelled frame is no distant frame"
    later = training_data(config(s4, ufe__burn_in=2))
    assert later.distant_indices(6) == data.distant_indices(3), "the same stream, later"


def test_labelled_batches_do_not_depend_on_distant_frames(s4: Path) -> None:
    with_them = training_data(config(s4)).loader()
    without = training_data(config(s4, ufe__distant_frames=False)).loader()
    for a, b in zip(with_them, without, strict=True):
        assert clips(a.labelled) == clips(b.labelled)
        assert torch.equal(a.labelled.frames, b.labelled.frames)
        assert b.distant is None


def test_resuming_at_any_step_is_exact(s4: Path) -> None:
    whole = list(training_data(config(s4)).loader())
    resumed = list(training_data(config(s4)).loader(4, 7))
    assert len(resumed) == 3
    assert all(same(a, b) for a, b in zip(whole[4:7], resumed, strict=True))


def test_worker_processes_change_nothing(s4: Path) -> None:
    alone = list(training_data(config(s4)).loader())
    shared = list(training_data(config(s4, data__workers=2)).loader())
    assert all(same(a, b) for a, b in zip(alone, shared, strict=True))


def test_ranks_share_out_each_pass(s4: Path) -> None:
    ranks = [training_data(config(s4, optim__batch_size=1), rank=rank, world_size=3) for rank in range(3)]
    assert ranks[0].steps_per_epoch == 2
    for stream in (TrainingData.labelled_indices, TrainingData.distant_indices):
        first = 0 if stream is TrainingData.labelled_indices else ranks[0].burn_in_steps
        seen = [stream(data, step)[0] for step in range(first, first + 2) for data in ranks]
        assert len(set(seen)) == 6
    alone = training_data(config(s4, optim__batch_size=3))
    assert alone.labelled_indices(1) == [data.labelled_indices(1)[0] for data in ranks]


def test_fewer_labels_keep_the_number_of_steps(s4: Path, tmp_path: Path) -> None:
    names = [video[0].video for video in read_videos(s4, "s4") if video[0].split == "train"][:2]
    write_label_subset(tmp_path / "few.txt", names)
    data = training_data(config(s4, data__labelled=str(tmp_path / "few.txt")))
    assert (data.steps_per_epoch, data.total_steps) == (3, 9)
    assert {clip[0].video for clip in data.labelled} == set(names)
    assert len(data.distant) == 2 * 4 + 4 * 5, "frames whose label isn't used are distant frames"
    seen = Counter(name for batch in data.loader() for name in batch.labelled.names)
    assert seen == dict.fromkeys(names, 9)
    for batch in data.loader(3, 9):
        assert batch.distant.masks is None


def test_clips_of_five_frames(s4: Path, tmp_path: Path) -> None:
    names = [video[0].video for video in read_videos(s4, "s4") if video[0].split == "train"][:3]
    write_label_subset(tmp_path / "few.txt", names)
    data = training_data(config(s4, model__frames_per_clip=5, data__labelled=str(tmp_path / "few.txt")))
    assert len(data.labelled) == 3
    assert len(data.distant) == 6
    for batch in data.loader(3, 6):
        assert batch.labelled.valid.flatten(2).all(2).tolist() == [[True] + [False] * 4] * 2
        for name, valid in zip(batch.distant.names, batch.distant.valid.flatten(2), strict=True):
            assert valid.all(1).tolist() == [name not in names] + [True] * 4
            assert valid[0].any() == (name not in names)
    for length in (0, 6, 10):
        with pytest.raises(AvsegError, match=f"frames_per_clip is {length}: this data set's videos have 5 frames"):
            training_data(config(s4, model__frames_per_clip=length))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that is opened from now on."""
    paths: list[str] = []

    def watch(real):
        def open_(file, *args, **kwargs):
            paths.append(str(file))
            return real(file, *args, **kwargs)

        return open_

    monkeypatch.setattr(builtins, "open", watch(builtins.open))
    monkeypatch.setattr(io, "open", watch(io.open))
    return paths


def test_no_distant_frame_is_opened_during_burn_in(s4: Path, opened: list[str]) -> None:
    loader = training_data(config(s4)).loader

    def frames(first: int, last: int) -> list[str]:
        opened.clear()
        list(loader(first, last))
        return [path for path in opened if "visual_frames" in path]

    burn_in = frames(0, 3)
    assert len(burn_in) == 6
    assert all(path.endswith("_1.png") for path in burn_in)
    after = frames(3, 6)
    assert len(after) == 12
    assert sum(path.endswith("_1.png") for path in after) == 6


@pytest.mark.parametrize("length", [1, 5])
def test_training_opens_no_hidden_mask(s4: Path, opened: list[str], length: int) -> None:
    list(training_data(config(s4, model__frames_per_clip=length)).loader())
    list(evaluation_clips(s4, "s4", "val", InputConfig(image_size=32)))
    assert any("gt_masks" in path for path in opened)
    assert not any("hidden" in path for path in opened)
    training_masks = [path for path in opened if "gt_masks/train" in path]
    assert training_masks
    assert all(path.endswith("_1.png") for path in training_masks)


def test_flow_is_read_only_for_the_nf_branch(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    shutil.rmtree(root / "Single-source/s4_data" / "flow")
    batch = next(iter(training_data(config(root, model__neighbouring_frames=False)).loader(5)))
    assert not batch.labelled.flow.any()
    assert batch.labelled.flow.shape == (2, 1, 2, 32, 32)
    with pytest.raises(AvsegError, match=r"flow.*does not exist: run `avseg data prepare"):
        training_data(config(root))
    with pytest.raises(AvsegError, match=r"S4_flows.*--data\.flow computed"):
        training_data(config(root, data__flow="published"))


def test_flow_of_another_method_is_not_taken_for_it(s4: Path, ms3: Path, tmp_path: Path) -> None:
    for subset, root in (("s4", s4), ("ms3", ms3)):
        made = config(root, subset)
        made.model.inputs.flow_method = "dis"
        with pytest.raises(AvsegError, match=r"flow_dis/.* does not exist: run `avseg .* --flow_method dis`"):
            training_data(made)
        made.model.neighbouring_frames = False
        training_data(made)
    inputs = InputConfig(image_size=32, flow_method="dis")
    with pytest.raises(AvsegError, match=r"flow_dis/.* does not exist: run `avseg data prepare --flow_method dis`"):
        next(iter(evaluation_clips(s4, "s4", "test", inputs)))
    root = Path(shutil.copytree(s4, tmp_path / "root"))
    prepare(root, "s4", workers=1, flow_method="dis")
    dis, farneback = (config(root), config(root))
    dis.model.inputs.flow_method = "dis"
    ours, theirs = (next(iter(training_data(made).loader(3, 4))) for made in (dis, farneback))
    assert torch.equal(ours.distant.frames, theirs.distant.frames)
    for half in ("labelled", "distant"):
        assert not torch.equal(getattr(ours, half).flow, getattr(theirs, half).flow)


def test_missing_files_show_before_training(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    video = read_videos(root, "s4")[2]
    for path, mend in [
        (video[2].image, "avseg data prepare"),
        (video[0].log_mel, "avseg data prepare"),
        (video[0].mask, "take its video out of the CSV"),
    ]:
        path.rename(path.with_suffix(".away"))
        with pytest.raises(AvsegError, match=mend) as caught:
            training_data(config(root))
        assert str(path) in str(caught.value)
        path.with_suffix(".away").rename(path)
    training_data(config(root))
    video[2].image.unlink()
    # A baseline doesn't need the unlabelled frames.
    training_data(config(root, ufe__distant_frames=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_one_sentence(s4: Path, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    for video in read_videos(root, "s4"):
        video[0].image.write_bytes(b"damaged")
    with pytest.raises(AvsegError) as caught:
        list(training_data(config(root, data__workers=workers)).loader())
    assert "is not a whole image" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(AvsegError) as caught:
        list(evaluation_clips(root, "s4", "test", InputConfig(image_size=32), workers))
    assert "\n" not in str(caught.value)


def test_ms3_takes_each_labelled_frame_as_an_item(ms3: Path) -> None:
    data = training_data(config(ms3, "ms3"))
    assert len(data.labelled) == 15
    assert data.steps_per_epoch == 7
    assert len(data.distant) == 4
    batch = next(iter(data.loader(data.burn_in_steps)))
    assert set(batch.distant.names) <= {"1", "2", "3", "4"}
    assert batch.distant.log_mel.shape == (2, 1, 1, 96, 64)
    assert batch.distant.masks is None
    whole = training_data(config(ms3, "ms3", model__frames_per_clip=5, ufe__distant_frames=False))
    assert len(whole.labelled) == 3


def test_ms3_distant_frames_that_cannot_be_had(ms3: Path, tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="frames_per_clip to 1"):
        training_data(config(ms3, "ms3", model__frames_per_clip=5))
    with pytest.raises(AvsegError, match=r"--data\.distant_root"):
        training_data(config(ms3, "ms3", data__distant_root=str(tmp_path / "nowhere")))
    with pytest.raises(AvsegError, match=r"no distant frames.*--data\.distant_root"):
        training_data(config(ms3, "ms3", data__distant_root=str(tmp_path)))
    root = tmp_path / "own"
    shutil.copytree(ms3 / "MS3_Extend", root)
    (root / "images" / "2.png").unlink()
    with pytest.raises(AvsegError, match=r"2\.png does not exist"):
        training_data(config(ms3, "ms3", data__distant_root=str(root)))
    (root / "index.csv").unlink()
    assert len(training_data(config(ms3, "ms3", data__distant_root=str(root))).distant) == 3


def test_embeddings_ride_along(s4: Path, ms3: Path) -> None:
    videos = read_videos(s4, "s4")
    embeddings = {
        video[0].key: torch.arange(5.0)[:, None] + 10 * i + torch.zeros(128) for i, video in enumerate(videos)
    }
    data = training_data(config(s4)).with_embeddings({avsbench(s4, "s4"): embeddings})
    numbers = {video[0].video: i for i, video in enumerate(videos)}
    for batch in data.loader(3, 6):
        for half in (batch.labelled, batch.distant):
            expected = [10 * numbers[name] + int(time[0]) for name, time in zip(half.names, half.times, strict=True)]
            assert half.audio.shape == (2, 1, 128)
            assert half.audio[:, 0, 0].tolist() == expected
    first = next(iter(validation_clips(data)))
    assert torch.equal(first.audio[0], embeddings[data.validation[0][0].key])
    distant = {str(n): torch.full((1, 128), float(n)) for n in range(1, 5)}
    named = {video[0].key: torch.zeros(5, 128) for video in read_videos(ms3, "ms3")}
    layouts = {avsbench(ms3, "ms3"): named, distant_frames(ms3 / "MS3_Extend"): distant}
    batch = next(iter(training_data(config(ms3, "ms3")).with_embeddings(layouts).loader(7)))
    assert batch.distant.audio[:, 0, 0].tolist() == [float(name) for name in batch.distant.names]


def test_evaluation_reads_whole_videos_in_order(s4: Path) -> None:
    index = [video for video in read_videos(s4, "s4") if video[0].split == "test"]
    for workers in (0, 2):
        batches = list(evaluation_clips(s4, "s4", "test", InputConfig(image_size=32), workers))
        assert [batch.names for batch in batches] == [(video[0].video,) for video in index]
        assert [batch.categories for batch in batches] == [(video[0].category,) for video in index]
        assert all(batch.frames.shape == (1, 5, 3, 32, 32) and batch.valid.all() for batch in batches)
    hidden = next(iter(evaluation_clips(s4, "s4", "train", InputConfig(image_size=32), hidden=True)))
    assert hidden.valid.all()
    with pytest.raises(AvsegError, match="no videos of split 'nothing'"):
        evaluation_clips(s4, "s4", "nothing", InputConfig(image_size=32))


def test_faulty_configurations(s4: Path, tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"data\.root is not set"):
        training_data(Config())
    with pytest.raises(AvsegError, match=r"s4_meta_data\.csv does not exist"):
        training_data(config(tmp_path))
    make_avsbench(tmp_path, "s4", {"val": 1})
    with pytest.raises(AvsegError, match="no training videos"):
        training_data(config(tmp_path))


def test_permutations_are_not_made_anew_for_every_clip(s4: Path) -> None:
    datamodule._permutation.cache_clear()
    data = training_data(config(s4))
    for step in range(data.total_steps):
        data.labelled_indices(step)
    assert datamodule._permutation.cache_info().misses == 3
