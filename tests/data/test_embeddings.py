import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import read_videos
from torch import nn

from avseg.data.avsbench import avsbench, distant_frames, read_frames
from avseg.data.embeddings import audio_embeddings
from avseg.data.frames import DataSet, Frame
from avseg.data.log_mel import load_log_mel, save_log_mel
from avseg.errors import AvsegError


def frames_of(videos: Iterable[tuple[Frame, ...]]) -> list[Frame]:
    return [frame for video in videos for frame in video]


class Encoder(nn.Module):
    """A small stand-in for VGGish that counts what it is asked."""

    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Dropout(), nn.Linear(96, 128))
        self.examples = 0

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        self.examples += len(log_mel)
        return self.layers(log_mel)


@pytest.fixture
def mutable(s4: Path, tmp_path: Path) -> DataSet:
    shutil.copytree(s4, tmp_path / "copy")
    return avsbench(tmp_path / "copy", "s4")


def test_embeddings_are_the_encoder_s_and_computed_once(mutable: DataSet) -> None:
    encoder, videos = Encoder(), read_videos(mutable.root, "s4")
    first = audio_embeddings(frames_of(videos), encoder, "a")
    assert encoder.training, "left as it was"
    assert encoder.examples == 5 * len(videos)
    encoder.eval()
    for video in videos:
        expected = encoder(load_log_mel(video[0].log_mel))
        assert torch.allclose(first[video[0].key], expected, atol=1e-6), "in eval mode: no dropout"
        assert first[video[0].key].shape == (5, 128)
        assert not first[video[0].key].requires_grad
    encoder.examples = 0
    again = audio_embeddings(frames_of(videos[::-1]), encoder, "a")
    assert encoder.examples == 0
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [path.suffix for path in mutable.embeddings.iterdir()] == [".safetensors"]


def test_only_what_changed_is_computed_again(mutable: DataSet) -> None:
    encoder, videos = Encoder(), read_videos(mutable.root, "s4")
    before = audio_embeddings(frames_of(videos[:6]), encoder, "a")
    encoder.examples = 0
    audio_embeddings(frames_of(videos), encoder, "a")
    assert encoder.examples == 5 * (len(videos) - 6), "new videos"
    encoder.examples = 0
    path = videos[0][0].log_mel
    status = path.stat()
    save_log_mel(path, load_log_mel(path) + 1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = audio_embeddings(frames_of(videos), encoder, "a")
    assert encoder.examples == 5, "another time of change"
    assert not torch.allclose(after[videos[0][0].key], before[videos[0][0].key])
    encoder.examples = 0
    audio_embeddings(frames_of(videos), encoder, "b")
    assert encoder.examples == 5 * len(videos), "other weights"
    encoder.examples = 0
    audio_embeddings(frames_of(videos), encoder, "a")
    assert encoder.examples == 0, "both are kept"


def test_a_damaged_store_is_made_anew(mutable: DataSet) -> None:
    encoder, videos = Encoder(), read_videos(mutable.root, "s4")
    before = audio_embeddings(frames_of(videos), encoder, "a")
    store = next(mutable.embeddings.iterdir())
    store.write_bytes(store.read_bytes()[:1000])
    encoder.examples = 0
    after = audio_embeddings(frames_of(videos), encoder, "a")
    assert encoder.examples == 5 * len(videos)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_few_examples_and_missing_files(mutable: DataSet) -> None:
    videos = read_videos(mutable.root, "s4")
    save_log_mel(videos[0][0].log_mel, load_log_mel(videos[0][0].log_mel)[:3])
    found = audio_embeddings(frames_of(videos[:1]), Encoder(), "a")[videos[0][0].key]
    assert torch.allclose(found[2], found[4], atol=1e-6)
    assert not torch.allclose(found[1], found[2], atol=1e-6)
    videos[1][0].log_mel.unlink()
    with pytest.raises(AvsegError, match="avseg data prepare"):
        audio_embeddings(frames_of(videos), Encoder(), "a")
    videos[1][0].log_mel.write_bytes(b"no pickle")
    with pytest.raises(AvsegError, match="not a pickled log-mel tensor"):
        audio_embeddings(frames_of(videos), Encoder(), "a")


def test_distant_frames(ms3: Path, tmp_path: Path) -> None:
    shutil.copytree(ms3 / "MS3_Extend", tmp_path / "own")
    encoder = Encoder().eval()
    frames = read_frames(distant_frames(tmp_path / "own"))
    found = audio_embeddings(frames, encoder, "a")
    for frame in frames:
        assert torch.allclose(found[frame.key], encoder(load_log_mel(frame.log_mel)), atol=1e-6)
        assert found[frame.key].shape == (1, 128)


def test_one_name_in_two_categories_is_two_sounds(mutable: DataSet) -> None:
    videos = [video for video in read_videos(mutable.root, "s4") if video[0].split == "train"]
    first = videos[0]
    other = next(video for video in videos if video[0].category != first[0].category)
    twin = tuple(replace(frame, category=other[0].category) for frame in first)
    target = twin[0].log_mel
    shutil.copy(other[0].log_mel, target)
    encoder = Encoder()
    found = audio_embeddings(frames_of([first, twin]), encoder, "a")
    assert len(found) == 2
    encoder.eval()
    for video, source in ((first, first), (twin, other)):
        assert torch.allclose(found[video[0].key], encoder(load_log_mel(source[0].log_mel)), atol=1e-6)


def test_the_encoder_computes_on_the_given_device_and_tells_how_far_it_is(mutable: DataSet) -> None:
    class Elsewhere(nn.Module):
        """Stays where its input is: on ``meta``, which every machine has."""

        def __init__(self) -> None:
            super().__init__()
            self.devices: set[str] = set()

        def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
            self.devices.add(log_mel.device.type)
            return torch.zeros(len(log_mel), 128)

    encoder, videos, told = Elsewhere(), read_videos(mutable.root, "s4"), []
    audio_embeddings(frames_of(videos), encoder, "a", "meta", lambda done, total: told.append((done, total)))
    assert encoder.devices == {"meta"}
    assert told[-1] == (len(videos), len(videos))
    told.clear()
    audio_embeddings(frames_of(videos), encoder, "a", "meta", lambda done, total: told.append((done, total)))
    assert not told, "nothing was computed"
