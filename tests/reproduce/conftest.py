"""Tables on tiny real data: S4 and MS3 in AVSBench's layout, prepared, and options that make a run take a second."""

from pathlib import Path

import pytest
from helpers import make_avsbench

VIDEOS = {"train": 8, "val": 2, "test": 3}


@pytest.fixture(scope="session")
def avsbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avsbench")
    make_avsbench(folder, "s4", VIDEOS, prepared=True)
    make_avsbench(folder, "ms3", {"train": 4, "val": 1, "test": 2}, prepared=True)
    return folder
