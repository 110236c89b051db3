"""The revision beside a number is that of avseg's own source, whoever's repository it lies in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROJECT = '[project]\nname = "{}"\n'


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path, name: str) -> Path:
    """A repository with one commit of what is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(name))
    (folder / ".gitignore").write_text(".venv\n__pycache__\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "All there is")
    return folder


def copy_to(folder: Path) -> Path:
    """The least of avseg that tells its revision."""
    (folder / "avseg").mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        shutil.copy(REPOSITORY / "avseg" / name, folder / "avseg")
    return folder


def revision(folder: Path, **variables: str) -> str:
    """What a fresh process says that finds avseg in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **variables}
    script = "from avseg import provenance; print(provenance.__file__, provenance._revision(), sep='\\n')"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    file, found = done.stdout.split("\n")[:2]
    assert Path(file).is_relative_to(folder)
    return found


def test_a_checkout_of_avseg_tells_its_revision(tmp_path: Path) -> None:
    own = repository(copy_to(tmp_path / "own"), "avseg")
    head = git(own, "rev-parse", "--short=12", "HEAD")
    (own / "notes.txt").write_text("The user's own.")
    assert revision(own) == head
    (own / "avseg" / "further.py").write_text("# runs with it\n")
    assert revision(own) == f"{head}+"
    (own / "avseg" / "further.py").unlink()
    with (own / "avseg" / "provenance.py").open("a") as file:
        file.write("# changed\n")
    assert revision(own) == f"{head}+"


def test_a_git_that_runs_it_for_another_repository_changes_nothing(tmp_path: Path) -> None:
    """As a hook does, by its variables."""
    own, theirs = repository(copy_to(tmp_path / "own"), "avseg"), repository(tmp_path / "theirs", "theirs")
    variables = {"GIT_DIR": str(theirs / ".git"), "GIT_WORK_TREE": str(theirs)}
    assert revision(own, **variables) == git(own, "rev-parse", "--short=12", "HEAD")


@pytest.mark.parametrize("place", [".venv/lib/python3/site-packages", "lib", "vendored", "."])
def test_another_repository_is_not_named(tmp_path: Path, place: str) -> None:
    """Installed into an ignored folder of it, copied there and not tracked, and vendored: tracked as a part of it."""
    theirs = tmp_path / "theirs"
    if place == "lib":
        repository(theirs, "theirs")
        copy_to(theirs / place)
    else:
        copy_to(theirs / place)
        repository(theirs, "theirs")
    assert ("avseg/provenance.py" in git(theirs, "ls-files")) == (place in ("vendored", "."))
    assert revision(theirs / place) == ""


def test_a_copy_of_the_whole_project_below_another_repository_is_not_its(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    copy_to(theirs / "third_party" / "avseg")
    (theirs / "third_party" / "avseg" / "pyproject.toml").write_text(PROJECT.format("avseg"))
    repository(theirs, "theirs")
    assert revision(theirs / "third_party" / "avseg") == ""


def test_nothing_is_said_outside_any_repository(tmp_path: Path) -> None:
    assert revision(copy_to(tmp_path / "plain")) == ""
