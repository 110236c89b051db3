"""Small data sets that several tests read; none of them writes to one."""

import shutil
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


@pytest.fixture(scope="session")
def both(s4: Path, ms3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two in one folder, where a training and a validation video of MS3 have the names of two of S4. Read only."""
    root = tmp_path_factory.mktemp("both")
    shutil.copytree(s4, root, dirs_exist_ok=True)
    shutil.copytree(ms3, root, dirs_exist_ok=True)
    folder = root / "Multi-sources"
    for mine, theirs in (("ms3_train_1", "s4_train_1"), ("-ms3_val_0", "-s4_val_0")):
        for path in sorted(folder.rglob(f"{mine}*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.replace(mine, theirs)))
        for table in folder.glob("*.csv"):
            table.write_text(table.read_text().replace(mine, theirs))
    return root
