"""Small data sets that several tests read; none of them writes to one."""

from pathlib import Path

import pytest
from helpers import make_avsbench


@pytest.fixture(scope="session")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared S4 of 6 training, 2 validation and 2 test videos with hidden masks. Read only."""
    root = tmp_path_factory.mktemp("s4")
    make_avsbench(root, "s4", {"train": 6, "val": 2, "test": 2}, hidden=True, prepared=True)
    return root


@pytest.fixture(scope="session")
def ms3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared MS3 of 3 training, 1 validation and 1 test video with 4 distant frames. Read only."""
    root = tmp_path_factory.mktemp("ms3")
    make_avsbench(root, "ms3", {"train": 3, "val": 1, "test": 1}, distant=4, prepared=True)
    return root
