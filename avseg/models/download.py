"""Downloading published models by name: whole or not at all, and checked against what came the first time."""

import datetime
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from avseg.errors import AvsegError
from avseg.files import whole_folder, write_json
from avseg.models.catalogue import (
    CONFIGURATION,
    NOT_STATED,
    SOURCE,
    WEIGHTS,
    Published,
    folder_of,
    home,
    models_in,
    named,
)
from avseg.models.convert import Converted, convert
from avseg.models.fetching import HERE, Fetched, fetch, given_files
from avseg.models.weights import read_state, sha256, tensor_shapes
from avseg.progress import Progress
from avseg.reading import read_json

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_KNOWN = "hashes.json"


def missing(names: list[str]) -> list[Published]:
    """What of the names' models was not downloaded yet, each once and what others need first.

    Raises:
        AvsegError: an unknown name.
    """
    wanted: dict[str, Published] = {}
    for name in names:
        for entry in named(name):
            for each in [*(named("vggish") if entry.vggish else []), entry]:
                if not list(models_in(each.name)):
                    wanted[each.name] = each
    return list(wanted.values())


def describe(entries: list[Published]) -> str:
    """What would be fetched, in a sentence or two: sizes and licences."""
    total = sum(entry.megabytes or 0 for entry in entries)
    unknown = any(entry.megabytes is None for entry in entries)
    parts = ", ".join(f"{entry.name} ({entry.licence})" for entry in entries)
    size = " and what nobody says the size of" if unknown and total else "" if total else "of unknown size"
    text = f"{parts}: {f'about {total} MB' if total else ''}{size}, into {home() / 'models'}."
    silent = [entry.name for entry in entries if entry.licence == NOT_STATED]
    if silent:
        text += f" The authors of {', '.join(silent)} state no licence: whether you may use them is yours to find out."
    return text


def download(
    entry: Published, progress: Callable[[str], Progress] | None = None, given: str | Path | None = None
) -> list[str]:
    """Fetch a model, convert it where it is one of AVS, and note what came.

    What was fetched in part is kept below ``partial/`` and goes on from there. SHA-256 of files that come for the first
    time are written down, with the hub's commit; later other ones are refused.

    Args:
        entry: Which.
        progress: Gives a progress (bytes done, bytes in all) for a model's name.
        given: What a person fetched by other means, a file or the folder with the files; it stays where it is.

    Returns:
        The names that ``--checkpoint`` takes now.

    Raises:
        AvsegError: no connection, no room, something else than was published, a file that can't be converted, or
            another process that fetches it. Then nothing is left but what was fetched in part.
    """
    partial = home() / "partial" / entry.name
    try:
        _check_room(entry, (entry.megabytes or 0) * 10**6)
        with _alone(entry):
            partial.mkdir(exist_ok=True)
            if given is not None:
                came = given_files(entry, Path(given))
            else:
                bar = None if progress is None else progress(entry.name)
                revision = str(_known(entry).get("revision", ""))
                came = fetch(entry, partial, revision, lambda size: _check_room(entry, size), bar)
            _keep(entry, came, partial, given is None)
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if error.errno in HERE:
            raise AvsegError(
                f"{entry.name} cannot be kept in {home()} ({error.strerror}): make room there, or set AVSEG_HOME to "
                "another folder, and try again."
            ) from None
        raise
    return list(models_in(entry.name))


@contextmanager
def _alone(entry: Published) -> Iterator[None]:
    """Two processes that continue the same file would mix it up."""
    lock = home() / "partial" / f"{entry.name}.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as stream:
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AvsegError(f"{entry.name} is being downloaded by another process: wait for it.") from None
            except OSError:  # a file system without locks
                pass
        yield


def _keep(entry: Published, came: Fetched, partial: Path, ours: bool) -> None:
    """Check what came and bring it into its place."""
    hashes = {name: sha256(file) for name, file in came.files.items()}
    try:
        _check_hashes(entry, came, hashes)
        with whole_folder(home() / "models" / entry.name) as folder:
            try:
                if entry.kind == "transformers":
                    _place(entry, came.files, folder, ours)
                else:
                    _convert(entry, came.files, partial / ".converted", folder)
            except AvsegError as error:
                raise AvsegError(f"{entry.name}: what came is not what it says ({error})") from None
            write_json(folder / SOURCE, _origin(entry, came, hashes))
    except AvsegError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    write_json(home() / _KNOWN, {**_all_known(), entry.name: {"revision": came.revision, "sha256": hashes}})


def _origin(entry: Published, came: Fetched, hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "source": entry.source,
        "revision": came.revision,
        "licence": entry.licence,
        "date": datetime.date.today().isoformat(),
        "sha256": hashes,
    }


def _check_room(entry: Published, size: int) -> None:
    home().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home()).free
    # What is converted is there twice for a moment.
    wanted = size * (1 if entry.kind == "transformers" else 2)
    if free < wanted:
        raise AvsegError(
            f"{home()} has room for {free / 1e6:.0f} MB and {entry.name} needs {wanted / 1e6:.0f}: make room, or set "
            "AVSEG_HOME to another folder."
        )


def _all_known() -> dict[str, Any]:
    file = home() / _KNOWN
    values = read_json(file, "delete it; hashes are then noted anew") if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _known(entry: Published) -> dict[str, Any]:
    values = _all_known().get(entry.name)
    return values if isinstance(values, dict) else {}


def _check_hashes(entry: Published, came: Fetched, hashes: dict[str, str]) -> None:
    stated = {**came.hashes, **(dict.fromkeys(hashes, entry.sha256) if entry.sha256 else {})}
    wrong = next((name for name, digest in stated.items() if not hashes[name].startswith(digest)), None)
    if wrong is not None:
        raise AvsegError(
            f"{entry.name}: {wrong} of {entry.address} is not what was published (its SHA-256 differs): try again."
        )
    known = _known(entry).get("sha256")
    changed = next((name for name in hashes if name in known and known[name] != hashes[name]), None) if known else None
    if changed is not None:
        raise AvsegError(
            f"{entry.name}: {changed} at {entry.address} is not what came the first time (its SHA-256 differs). If you "
            f"trust the new one, take {entry.name} out of {home() / _KNOWN}."
        )


def _place(entry: Published, files: dict[str, Path], folder: Path, ours: bool) -> None:
    """A transformers model's files, once they were found to be what they say; weights as safetensors."""
    config = read_json(files[CONFIGURATION], "try again")
    held = config.get("model_type") if isinstance(config, dict) else None
    if entry.holds and held != entry.holds:
        raise AvsegError(f"{CONFIGURATION} describes {held or 'nothing'!s:.40}, not {entry.holds}")
    for name, file in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name == WEIGHTS[1]:
            state = {key: tensor.clone().contiguous() for key, tensor in read_state(file).items()}
            save_file(state, str(folder / WEIGHTS[0]), metadata={"format": "pt"})
            continue
        if name == WEIGHTS[0]:
            tensor_shapes(file)
        elif name.endswith(".json"):
            read_json(file, "try again")
        try:
            if not ours:
                raise OSError
            os.link(file, place)  # takes no room; what was fetched goes a moment later
        except OSError:
            shutil.copyfile(file, place)


def _convert(entry: Published, files: dict[str, Path], between: Path, folder: Path) -> None:
    """Checkpoints of somebody's program: one model, or of a repository as many as convert."""
    vggish = folder_of("vggish") if entry.vggish else None
    made: set[str] = set()
    failures = []
    for name, file in files.items():
        try:
            # `convert` makes a folder whole; its own place must be empty.
            _check_kind(entry, convert(file, between, vggish, overwrite=True))
        except AvsegError as error:
            failures.append(str(error))
            continue
        own = re.sub(r"[^A-Za-z0-9_.-]+", "_", name.rpartition(".")[0]).strip(".") or "model"
        while own in made:
            own += "_"
        made.add(own)
        shutil.copytree(between, folder / own if entry.files else folder, dirs_exist_ok=True)
    if not made:
        raise AvsegError(failures[0])


def _check_kind(entry: Published, made: Converted) -> None:
    encoder = made.config.image_encoder if made.config is not None else ""
    if (entry.holds and made.kind != entry.holds) or (entry.encoder and encoder != entry.encoder):
        held, wanted = (
            " with ".join(filter(None, pair)) for pair in ((made.kind, encoder), (entry.holds, entry.encoder))
        )
        raise AvsegError(f"it holds {held}, not {wanted}")
