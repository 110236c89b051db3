"""What published models are fetched with: the Hugging Face hub, Google's drive, or a plain address; all resumed."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from avseg.errors import AvsegError
from avseg.models.catalogue import CONFIGURATION, WEIGHTS, Published
from avseg.progress import Progress

DRIVE = "https://drive.google.com/uc?id="
HERE = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG,
}  # fmt: skip
"""What the system reports where this machine's disk is at fault, and not the connection."""

_PATIENCE = 30.0  # seconds for an answer, and between two pieces of one
_REFUSED = (401, 403, 404, 410)


@dataclass(frozen=True)
class Fetched:
    """What came.

    Attributes:
        files: Where each lies, by its name where it is published.
        revision: The hub's commit.
        hashes: SHA-256 by name, of those whose source states it.
    """

    files: dict[str, Path]
    revision: str = ""
    hashes: dict[str, str] = field(default_factory=dict)


def fetch(
    entry: Published, partial: Path, revision: str, check_room: Callable[[int], None], progress: Progress | None = None
) -> Fetched:
    """Fetch a model's files into a folder; what lies there from last time is gone on with.

    Args:
        entry: Which.
        partial: The folder.
        revision: The commit that came the first time, of a model whose revision isn't pinned; empty for the newest.
        check_room: Called with how many bytes are still to come, once that is known.
        progress: Called with the bytes that are there and those in all.

    Raises:
        AvsegError: no connection, a broken one, or a source that gives no such file.
        OSError: this machine's disk.
    """
    kind, _, rest = entry.source.partition(":")
    try:
        if kind == "hub":
            return _from_hub(entry, rest, partial, revision, check_room, progress)
        name = rest if kind == "drive" else entry.source.rpartition("/")[2]
        get = _from_drive if kind == "drive" else _from_address
        file = partial / name
        get(rest if kind == "drive" else entry.source, file, check_room, progress)
        return Fetched({name: file})
    except AvsegError:
        raise
    except Exception as error:  # of three libraries and their servers, nearly any
        if isinstance(error, OSError) and error.errno in HERE:
            raise
        raise _refusal(entry, error) from None


def given_files(entry: Published, path: Path) -> Fetched:
    """A model's files that a person fetched by other means.

    Args:
        entry: Which.
        path: The file, or the folder with its files.

    Raises:
        AvsegError: not there, or nothing of that kind.
    """
    if path.is_file() and entry.kind != "transformers":
        kind, _, rest = entry.source.partition(":")
        return Fetched({path.name if kind == "hub" else (rest or entry.source).rpartition("/")[2]: path})
    if not path.is_dir():
        raise AvsegError(f"--from {path} is no folder: give one that holds {entry.wanted} of {entry.address}.")
    there = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
    try:
        return Fetched({name: path / name for name in _chosen(entry, there)})
    except OSError as error:
        raise AvsegError(f"--from {path}: {error}; {entry.address} has {entry.wanted}.") from None


def _chosen(entry: Published, there: list[str]) -> list[str]:
    """Which of a repository's files are wanted; what would lie outside of a folder is left alone."""
    there = [name for name in there if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts]
    wanted = [name for name in there if any(fnmatch(name, pattern) for pattern in entry.files)]
    if entry.kind != "transformers":
        if not wanted:
            raise OSError(f"it holds none of {', '.join(entry.files)}")
        return wanted
    weights = next((name for name in WEIGHTS if name in there), None)
    if weights is None or CONFIGURATION not in there:
        raise OSError(f"it holds no {' or '.join(WEIGHTS) if weights is None else CONFIGURATION}")
    return [CONFIGURATION, weights, *wanted]


def _from_hub(
    entry: Published, repository: str, partial: Path, revision: str, check_room: Callable[[int], None],
    progress: Progress | None,
) -> Fetched:  # fmt: skip
    # The hub's library keeps nothing of a file whose connection broke, so that it only says what there is and where.
    from huggingface_hub import HfApi, get_token, hf_hub_url
    from huggingface_hub.errors import RevisionNotFoundError

    def ask(commit: str) -> Any:
        return HfApi().model_info(repository, revision=commit or None, files_metadata=True, timeout=_PATIENCE)

    try:
        info = ask(entry.revision or revision)
    except RevisionNotFoundError:
        if entry.revision or not revision:
            raise
        info = ask("")  # hashes tell whether it is still the same
    known = {item.rfilename: item for item in info.siblings or []}
    names = _chosen(entry, list(known))
    sizes = {name: known[name].size or 0 for name in names}
    files = {name: partial / name for name in names}
    there = sum(_begun(file).stat().st_size for file in files.values() if _begun(file).is_file())
    check_room(sum(size for name, size in sizes.items() if not files[name].is_file()) - there)
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    done = 0
    for name, file in files.items():
        # One commit for all files, whatever is pushed meanwhile.
        url = hf_hub_url(repository, name, revision=info.sha)
        tell = _beside(progress, done, sum(sizes.values()))
        _from_address(url, file, None, tell, headers, sizes[name])
        done += sizes[name]
    hashes = {name: known[name].lfs.sha256 for name in names if known[name].lfs is not None}
    return Fetched(files, info.sha or "", hashes)


def _beside(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of one file of several."""
    if progress is None:
        return None
    return lambda done, own: progress(before + done, max(total, before + own))


def _begun(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def _from_address(
    url: str,
    file: Path,
    check_room: Callable[[int], None] | None,
    progress: Progress | None,
    headers: dict[str, str] | None = None,
    size: int = 0,
) -> None:
    import requests

    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = _begun(file)
    have = begun.stat().st_size if begun.is_file() else 0
    # Packed for the way, a file's length and place are not those on the disk.
    asked = {**(headers or {}), "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=asked, stream=True, timeout=_PATIENCE) as answer:
        if have and answer.status_code == 416:  # nothing is left to come, or less is published than came
            if answer.headers.get("Content-Range", "").rpartition("/")[2] != str(have):
                begun.unlink()
                raise OSError("what came last time is not the beginning of it, and was deleted")
        else:
            answer.raise_for_status()
            have = have if answer.status_code == 206 else 0
            total = have + int(answer.headers.get("Content-Length", 0)) or size
            if check_room is not None:
                check_room(total - have)
            with begun.open("ab" if have else "wb") as stream:
                for piece in answer.iter_content(2**16):
                    stream.write(piece)
                    have += len(piece)
                    if progress is not None:
                        progress(have, max(total, have))
            if have < total:
                raise OSError(f"the connection broke after {have} of {total} bytes")
    if size and have != size:
        begun.unlink()
        raise OSError(f"{file.name} has {have} bytes, and {size} were announced")
    begun.replace(file)


def _from_drive(number: str, file: Path, check_room: Callable[[int], None], progress: Progress | None) -> None:
    import gdown

    known = False

    def tell(done: int, total: int | None) -> None:
        nonlocal known
        if total and not known:
            known = True
            check_room(total - done)
        if progress is not None:
            progress(done, total or done)

    found = gdown.download(
        f"{DRIVE}{number}", str(file), quiet=True, resume=True, progress=tell, use_cookies=False, timeout=_PATIENCE
    )
    if found is None or not file.is_file():
        raise OSError("the drive gives no such file")
    with file.open("rb") as stream:
        begins = stream.read(256).lstrip().lower()
    if begins.startswith((b"<!doctype", b"<html")):
        file.unlink()
        raise OSError("the drive gave a page instead of the file, as it does where too many ask for it")


def _refusal(entry: Published, error: Exception) -> AvsegError:
    """What became of it in a sentence, and what a person can do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    by_hand = f"`avseg models download {entry.name} --from PATH`"
    if status in _REFUSED or type(error).__name__ == "FileURLRetrievalError":
        why = f"HTTP {status}" if status else "removed, not for everybody, or asked for by too many today"
        return AvsegError(
            f"{entry.name}: {entry.address} does not give it ({why}): see there what became of it, and if you get it "
            f"by other means, {by_hand} takes it."
        )
    return AvsegError(
        f"{entry.name} cannot be had from {entry.address} ({_reason(error)}): check the connection and try again, "
        f"which goes on where it stopped; or fetch {entry.wanted} from there by other means, and {by_hand} takes it."
    )


def _reason(error: Any) -> str:
    name = type(error).__name__
    if name in ("ConnectionError", "ConnectError", "ConnectTimeout", "ProxyError", "LocalEntryNotFoundError"):
        return "no connection"
    if name in ("ReadTimeout", "Timeout", "TimeoutException"):
        return "no answer"
    if name == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    if name == "ChunkedEncodingError":
        return "the connection broke"
    return (str(error).strip().splitlines() or [name])[0].rstrip(".")[:160]
