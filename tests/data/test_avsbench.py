import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import disc_mask, load_clip, make_avsbench, read_videos

from avseg.config import InputConfig
from avseg.data.avsbench import avsbench, distant_frames, read_frames
from avseg.data.flow_trees import export_published_flow
from avseg.data.frames import DataSet
from avseg.data.lists import write_sizes
from avseg.data.log_mel import load_log_mel, save_log_mel
from avseg.errors import AvsegError
from avseg.media.flow import read_flow_png, write_flow_png
from avseg.media.images import read_image, write_mask

INPUTS = InputConfig(image_size=64)


@pytest.fixture
def mutable(s4: Path, tmp_path: Path) -> DataSet:
    """A copy of the prepared S4 that a test may damage."""
    shutil.copytree(s4, tmp_path / "copy")
    return avsbench(tmp_path / "copy", "s4")


def test_a_clip_holds_what_is_stored(s4: Path) -> None:
    number, video = next((i, v) for i, v in enumerate(read_videos(s4, "s4")) if v[0].split == "val")
    clip = load_clip(video, range(1, 6), INPUTS)
    assert clip.frames.shape == (5, 3, 64, 64)
    assert clip.frames.dtype == torch.uint8
    assert clip.flow.shape == (5, 2, 64, 64)
    assert clip.flow.dtype == torch.float16
    assert clip.masks is not None
    for row, k in enumerate(range(1, 6)):
        assert np.array_equal(clip.frames[row].permute(1, 2, 0).numpy(), read_image(video[k - 1].image))
        assert np.array_equal(clip.masks[row, 0].numpy(), disc_mask(k, number, 64))
        assert np.allclose(clip.flow[row].float().numpy(), read_flow_png(video[k - 1].flow()), atol=0.01)
    assert torch.equal(clip.log_mel, load_log_mel(video[0].log_mel))
    assert clip.valid.all()
    assert (clip.names, clip.categories) == (video[0].video, video[0].category)
    assert clip.times.tolist() == [0.9375, 1.9375, 2.9375, 3.9375, 4.9375]


def test_some_frames_in_any_order(s4: Path) -> None:
    video = read_videos(s4, "s4")[-1]
    whole = load_clip(video, range(1, 6), INPUTS)
    part = load_clip(video, (4, 2), INPUTS)
    for name in ("frames", "flow", "log_mel", "masks", "valid", "times"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[[3, 1]]), name


def test_training_videos_of_s4_are_valid_where_labelled(s4: Path) -> None:
    video = read_videos(s4, "s4")[0]
    clip = load_clip(video, range(1, 6), INPUTS)
    assert clip.masks is not None
    assert clip.valid.flatten(1).all(1).tolist() == [True, False, False, False, False]
    assert not clip.valid[1:].any()
    assert not clip.masks[1:].any()
    hidden = load_clip(video, range(1, 6), INPUTS, hidden=True)
    assert hidden.masks is not None
    assert hidden.valid.all()
    assert np.array_equal(hidden.masks[4, 0].numpy(), disc_mask(5, 0, 64))
    unlabelled = load_clip(video, range(1, 6), INPUTS, labelled=())
    assert unlabelled.masks is None
    assert unlabelled.valid.all()


def test_hidden_masks_are_not_opened_unasked(mutable: DataSet) -> None:
    shutil.rmtree(mutable.folder / "hidden_masks")
    video = read_videos(mutable.root, "s4")[0]
    load_clip(video, range(1, 6), INPUTS)
    with pytest.raises(AvsegError, match="hidden_masks"):
        load_clip(video, range(1, 6), INPUTS, hidden=True)


def test_another_size(s4: Path) -> None:
    video = read_videos(s4, "s4")[-1]
    large, small = load_clip(video, (2,), INPUTS), load_clip(video, (2,), InputConfig(image_size=32))
    assert small.frames.shape == (1, 3, 32, 32)
    assert large.masks is not None
    assert small.masks is not None
    assert float(small.masks.float().mean()) == pytest.approx(float(large.masks.float().mean()), rel=0.1)
    halved = cv2.resize(large.flow[0, 0].float().numpy(), (32, 32), interpolation=cv2.INTER_AREA) / 2
    assert np.allclose(small.flow[0, 0].float().numpy(), halved, atol=0.01)


def test_letterbox(mutable: DataSet) -> None:
    video = read_videos(mutable.root, "s4")[-1]
    inputs = InputConfig(image_size=64, resize="letterbox")
    square = load_clip(video, range(1, 6), inputs)
    assert torch.equal(square.frames, load_clip(video, range(1, 6), INPUTS).frames), "the video is square"
    assert square.valid.all()
    write_sizes(mutable.video_sizes, {video[0].video: (640, 320)})
    clip = load_clip(video, range(1, 6), inputs)
    stored = load_clip(video, range(1, 6), INPUTS)
    assert clip.valid[:, :, 16:48].all()
    assert not clip.valid[:, :, :16].any()
    assert not clip.valid[:, :, 48:].any()
    assert not clip.frames[:, :, :16].any()
    assert clip.masks is not None
    assert stored.masks is not None
    assert int(clip.masks.sum()) == pytest.approx(int(stored.masks.sum()) / 2, rel=0.15)
    assert torch.allclose(clip.flow[:, 0, 16:48].float().mean(), stored.flow[:, 0].float().mean(), atol=0.01)
    assert torch.allclose(clip.flow[:, 1, 16:48].float().mean(), stored.flow[:, 1].float().mean() / 2, atol=0.01)
    write_sizes(mutable.video_sizes, {"another": (640, 320)})
    with pytest.raises(AvsegError, match=r"video_sizes\.csv does not give the size of"):
        load_clip(video, (1,), inputs)


def test_published_flow_comes_back_in_pixels(mutable: DataSet) -> None:
    video = read_videos(mutable.root, "s4")[-1]
    export_published_flow(mutable.root, "s4", bound=10.0)
    computed = load_clip(video, (3,), INPUTS)
    published = load_clip(video, (3,), InputConfig(image_size=64, flow_bound=10.0), flow="published")
    assert (published.flow - computed.flow).abs().max() <= 10 / 255 + 0.01
    assert published.flow.abs().max() > 0.3, "the disc moves"
    shutil.rmtree(mutable.folder / "s4_data" / "flow")
    load_clip(video, (3,), INPUTS, flow="published")
    assert not load_clip(video, (3,), INPUTS, flow="none").flow.any()
    with pytest.raises(AvsegError, match="avseg data prepare"):
        load_clip(video, (3,), INPUTS)


def test_the_flow_of_the_moving_disc_points_right(s4: Path) -> None:
    """The disc moves 6.4 pixels a second to the right, which is 0.256 in 40 ms."""
    clip = load_clip(read_videos(s4, "s4")[-1], (1, 2, 3, 4), INPUTS)
    assert clip.masks is not None
    inside = clip.flow.float().movedim(1, -1)[clip.masks[:, 0]]
    assert 0.1 < inside[:, 0].mean() < 0.4
    assert inside[:, 1].mean().abs() < 0.1


def test_few_log_mel_examples_repeat_the_last(mutable: DataSet) -> None:
    video = read_videos(mutable.root, "s4")[-1]
    examples = load_log_mel(video[0].log_mel)
    save_log_mel(video[0].log_mel, examples[:2])
    clip = load_clip(video, range(1, 6), INPUTS)
    assert torch.equal(clip.log_mel, examples[[0, 1, 1, 1, 1]])


def test_faulty_files_are_named_with_the_mend(mutable: DataSet) -> None:
    video = read_videos(mutable.root, "s4")[-1]
    path = video[1].mask
    write_mask(path, np.ones((32, 64), dtype=bool))
    with pytest.raises(AvsegError, match="64×32 pixels, not 64×64") as caught:
        load_clip(video, (2,), INPUTS)
    assert str(path) in str(caught.value)
    write_flow_png(video[2].flow(), np.zeros((2, 32, 32)))
    with pytest.raises(AvsegError, match="32×32 pixels, not 64×64: make the flow again"):
        load_clip(video, (3,), INPUTS)
    video[3].image.write_bytes(b"no image")
    with pytest.raises(AvsegError, match=r"_4\.png is not a whole image: delete it and run `avseg data prepare`"):
        load_clip(video, (4,), INPUTS)
    video[3].image.unlink()
    with pytest.raises(AvsegError, match=r"_4\.png does not exist: run `avseg data prepare`"):
        load_clip(video, (4,), INPUTS)
    video[0].log_mel.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(AvsegError, match=r"\.pkl is not a pickled log-mel tensor.*avseg data prepare"):
        load_clip(video, (1,), INPUTS)
    video[0].log_mel.unlink()
    with pytest.raises(AvsegError, match=r"\.pkl does not exist"):
        load_clip(video, (1,), INPUTS)


def test_ms3(ms3: Path) -> None:
    video = read_videos(ms3, "ms3")[0]
    clip = load_clip(video, range(1, 6), INPUTS)
    assert clip.valid.all()
    assert clip.masks is not None
    assert clip.masks.flatten(1).any(1).all()


def test_distant_clips(ms3: Path) -> None:
    layout = distant_frames(ms3 / "MS3_Extend")
    frames = read_frames(distant_frames(layout.folder))
    assert len(frames) == 4
    clip = load_clip(frames[:1], (1,), InputConfig(image_size=32, resize="letterbox"))
    assert clip.frames.shape == (1, 3, 32, 32)
    assert clip.flow.shape == (1, 2, 32, 32)
    assert clip.log_mel.shape == (1, 1, 96, 64)
    assert clip.masks is None
    assert clip.valid.all()
    assert clip.names == "1"


def test_frames_prepared_at_another_size_than_asked(tmp_path: Path) -> None:
    videos = make_avsbench(tmp_path, "s4", {"train": 1}, prepared=True)
    clip = load_clip(videos[0], (1,), InputConfig(image_size=96))
    assert clip.frames.shape == (1, 3, 96, 96)
    assert clip.valid.all()
