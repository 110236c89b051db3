"""Files that are whole or not there, whoever else writes at the same time."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from avseg.errors import AvsegError
from avseg.files import check_file, whole_file, whole_folder


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file.txt"
    with whole_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text(f"half{1 / 0}")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_threads_leave_the_process_s_permissions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new file may be is only told by changing it for a moment, for all threads."""
    real = os.umask

    def slow(mask: int) -> int:
        was = real(mask)
        time.sleep(0.002)
        return was

    def write(number: int) -> None:
        with whole_file(tmp_path / str(number)) as temporary:
            temporary.write_text("x")

    before = real(0o027)
    monkeypatch.setattr(os, "umask", slow)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, range(8)))
    finally:
        now = real(before)
    assert now == 0o027
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_folder_cleared_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may clear the folder up between the moment it is made and the moment it is locked."""
    opened, cleared = os.open, []

    def after_somebody_cleared_up(path: str | Path, *rest: int) -> int:
        if not cleared:
            cleared.append(path)
            os.rmdir(path)
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", after_somebody_cleared_up)
    with whole_folder(tmp_path / "set") as temporary:
        (temporary / "a.txt").write_text("a")
    assert cleared
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "a.txt"]


def test_a_name_that_no_file_can_have_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_file(tmp_path / "file")
    check_file(tmp_path / "new" / "below" / "file.json")
    assert not (tmp_path / "new").exists()
    with pytest.raises(AvsegError, match="is a folder, and a file is to be written: name a file"):
        check_file(tmp_path)
    with pytest.raises(AvsegError, match=r"file/x\.json would lie below .*file, which is a file"):
        check_file(tmp_path / "file" / "x.json")
