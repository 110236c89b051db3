"""With which front end the files of a data set were made, and whether a model expects such files."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from avseg.config import AUDIO_OFFSET, FrontEnd, InputConfig
from avseg.data.frames import DataSet
from avseg.errors import AvsegError
from avseg.files import write_json
from avseg.reading import CONFIG_BYTES, read_json


class FrontEndWarning(UserWarning):
    """A model and the data it meets were made with different front ends."""


@dataclass(frozen=True)
class PreparedWith:
    """How pixels and sound became files.

    Attributes:
        front_end: See `avseg.config.InputConfig`.
        audio_offset: Likewise; None where it isn't known.
    """

    front_end: FrontEnd = "clean"
    audio_offset: float | None = AUDIO_OFFSET

    def write(self, data: DataSet) -> None:
        """Note it beside the files."""
        write_json(data.front_end, asdict(self))

    @classmethod
    def of(cls, data: DataSet) -> "PreparedWith | None":
        """How a data set's files were made; None where there are none.

        Files without a note are published ones (``avsbench``), or ones that avseg made before it took notes (``clean``;
        sound of distant frames was centred on them then).

        Raises:
            AvsegError: the note is damaged.
        """
        distant = data.name == "distant"
        has_sound = distant and any(data.folder_of("log_mel").glob("*"))
        if data.front_end.is_file():
            found = _read(data.front_end)
            # Sound that was removed, to be made anew, is no reason to make it as it was.
            return found if has_sound or not distant else replace(found, audio_offset=AUDIO_OFFSET)
        if distant:
            if not has_sound:
                return None
            return cls("avsbench", None) if (data.folder / "flows_x").is_dir() else cls("clean", 0.0)
        if not any(data.folder_of(kind).is_dir() for kind in ("image", "log_mel")):
            return None
        generated = (data.root / "benchmark.json").is_file()
        wav = next(data.folder_of("wav").rglob("[!.]*.wav"), None)
        return cls("clean" if generated or (wav is not None and _is_ours(wav)) else "avsbench")


def choose_front_end(data: DataSet, front_end: FrontEnd | None, overwrite: bool = False) -> PreparedWith:
    """How missing files are to be made: as asked, or as those that are there, else ``clean``.

    Raises:
        AvsegError: they would not go together with files that are there and stay.
    """
    there = None if overwrite else PreparedWith.of(data)
    if there is None:
        return PreparedWith(front_end or "clean")
    if front_end not in (None, there.front_end):
        raise AvsegError(
            f"{data.folder} holds files made with front end {there.front_end}, not {front_end}: give --front_end "
            f"{there.front_end}, or --overwrite to make them anew."
        )
    return there


def check_alignment(data: DataSet, prepared: PreparedWith) -> None:
    """Refuse to put sound beside other sound that was cut elsewhere.

    Raises:
        AvsegError: files that are there were made with another ``audio_offset``.
    """
    if prepared.audio_offset not in (None, AUDIO_OFFSET):
        raise AvsegError(
            f"{data.folder_of('log_mel')} holds sound that was cut {prepared.audio_offset - AUDIO_OFFSET:.2f} s "
            "later than avseg cuts it now: remove that folder, and run again."
        )


def warn_of_other_front_end(data_sets: Iterable[DataSet], inputs: InputConfig) -> None:
    """Give a `FrontEndWarning` for each data set whose files are not such as a model expects."""
    for data in data_sets:
        prepared = PreparedWith.of(data)
        for name in ("front_end", "audio_offset") if prepared else ():
            there, wanted = getattr(prepared, name), getattr(inputs, name)
            if there in (None, wanted):
                continue
            mend = f"set that field to {there}, or make the files anew"
            if data.name == "distant" and (name, wanted) == ("audio_offset", AUDIO_OFFSET):
                mend = f"remove {data.folder_of('log_mel')}, and prepare or mine again"
            warnings.warn(
                f"{data.folder} was made with {name} {there}, and the model has model.inputs.{name} {wanted}, so "
                f"that it meets other {'images and sound' if name == 'front_end' else 'sound'} in new videos "
                f"than here: {mend}.",
                FrontEndWarning,
                stacklevel=3,
            )


def _read(path: Path) -> PreparedWith:
    mend = "run `avseg data prepare` with --overwrite, or remove the file"
    values = read_json(path, mend, CONFIG_BYTES)
    if isinstance(values, dict) and values.keys() == {"front_end", "audio_offset"}:
        found = PreparedWith(**values)
        offset = found.audio_offset
        if found.front_end in get_args(FrontEnd) and (offset is None or (type(offset) is float and abs(offset) <= 10)):
            return found
    raise AvsegError(f"{path} is damaged: {mend}.")


def _is_ours(wav: Path) -> bool:
    """Whether avseg wrote a sound: one channel and a bare header, where ffmpeg, which wrote the published ones, names
    itself between."""
    with wav.open("rb") as file:
        head = file.read(40)
    return head[36:40] == b"data" and head[22:24] == b"\x01\x00"
