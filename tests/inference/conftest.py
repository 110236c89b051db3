"""A video and a model that most tests of inference share; neither is written to."""

from pathlib import Path

import pytest
from helpers import write_mp4
from toy_models import toy

from avseg.inference import AVSegmenter


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s, 8 fps, 128×72, with a tone."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_mp4(path, seconds=3, size=(128, 72))
    return path


@pytest.fixture(scope="session")
def light() -> AVSegmenter:
    return AVSegmenter(toy("light"), "cpu")
