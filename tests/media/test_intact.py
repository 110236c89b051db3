"""Where a file was cut off."""

from pathlib import Path

import av
import numpy as np
import pytest

from avseg.errors import AvsegError
from avseg.media.intact import intact_until
from avseg.media.video import iter_frames
from avseg.media.writer import write_video


@pytest.fixture(scope="module")
def noise() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(40)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_cut_files_tell_where_their_pictures_end(tmp_path: Path, noise: list[np.ndarray], share: float) -> None:
    write_video(tmp_path / "whole.mp4", noise, 10)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: round(len(data) * share)])

    assert intact_until(tmp_path / "whole.mp4") is None
    end = intact_until(tmp_path / "cut.mp4")
    with pytest.warns(UserWarning, match="cut off"):
        last = max(time for time, _ in iter_frames(tmp_path / "cut.mp4"))
    assert end is not None
    # Frames are stored in another order than they are shown in, so a few before the end may be lost.
    assert abs(end - last) < 0.5


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.flv", "clip.wmv", "clip.ts"])
def test_containers_that_state_their_size_tell_too(tmp_path: Path, noise: list[np.ndarray], name: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flv" if name == "clip.flv" else "mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert intact_until(path) is None
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    end = intact_until(path)
    assert end is None if name == "clip.ts" else end is not None and 0.5 < end < 3


def test_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(AvsegError, match="isn't a video"):
        intact_until(tmp_path / "text.mp4")
    with pytest.raises(AvsegError, match="doesn't exist"):
        intact_until(tmp_path / "none.mp4")
