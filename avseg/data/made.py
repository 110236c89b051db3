"""With which front end the files of a data set were made, and whether a model expects such files."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from avseg.config import AUDIO_OFFSET, FrontEnd, InputConfig
from avseg.data.layout import DistantLayout, Layout
from avseg.errors import AvsegError
from avseg.files import write_json
from avseg.reading import CONFIG_BYTES, read_json


class FrontEndWarning(UserWarning):
    """A model and the data it meets were made with different front ends."""


@dataclass(frozen=True)
class Made:
    """How pixels and sound became files.

    Attributes:
        front_end: See `avseg.config.InputConfig`.
        audio_offset: Likewise; None where it isn't known.
    """

    front_end: FrontEnd = "clean"
    audio_offset: float | None = AUDIO_OFFSET

    def write(self, layout: Layout | DistantLayout) -> None:
        """Note it beside the files."""
        write_json(layout.made, asdict(self))

    @classmethod
    def of(cls, layout: Layout | DistantLayout) -> "Made | None":
        """How a data set's files were made; None where there are none.

        Files without a note are published ones (``avsbench``), or ones that avseg made before it took notes (``clean``;
        sound of distant frames was centred on them then).

        Raises:
            AvsegError: the note is damaged.
        """
        heard = isinstance(layout, DistantLayout) and any((layout.folder / "audios_log_mel").glob("*"))
        if layout.made.is_file():
            made = _read(layout.made)
            # Sound that was removed, to be made anew, is no reason to make it as it was.
            return made if heard or isinstance(layout, Layout) else replace(made, audio_offset=AUDIO_OFFSET)
        if isinstance(layout, DistantLayout):
            if not heard:
                return None
            return cls("avsbench", None) if (layout.folder / "flows_x").is_dir() else cls("clean", 0.0)
        if not any((layout.data / kind).is_dir() for kind in ("visual_frames", "audio_log_mel")):
            return None
        generated = (layout.root / "benchmark.json").is_file()
        wav = next((layout.data / "audio_wav").rglob("[!.]*.wav"), None)
        return cls("clean" if generated or (wav is not None and _is_ours(wav)) else "avsbench")


def warn_of_other_front_end(layouts: Iterable[Layout | DistantLayout], inputs: InputConfig) -> None:
    """Give a `FrontEndWarning` for each data set whose files are not such as a model expects."""
    for layout in layouts:
        made = Made.of(layout)
        if made is None:
            continue
        for name in ("front_end", "audio_offset"):
            there, wanted = getattr(made, name), getattr(inputs, name)
            if there not in (None, wanted):
                mend = f"set that field to {there}, or make the files anew"
                if isinstance(layout, DistantLayout) and (name, wanted) == ("audio_offset", AUDIO_OFFSET):
                    mend = f"remove {layout.folder / 'audios_log_mel'}, and prepare or mine again"
                warnings.warn(
                    f"{layout.folder} was made with {name} {there}, and the model has model.inputs.{name} {wanted}, so "
                    f"that it meets other {'pictures and sound' if name == 'front_end' else 'sound'} in new videos "
                    f"than here: {mend}.",
                    FrontEndWarning,
                    stacklevel=3,
                )


def _read(path: Path) -> Made:
    mend = "run `avseg data prepare` with --overwrite, or remove the file"
    values = read_json(path, mend, CONFIG_BYTES)
    if isinstance(values, dict) and values.keys() == {"front_end", "audio_offset"}:
        made = Made(**values)
        offset = made.audio_offset
        if made.front_end in get_args(FrontEnd) and (offset is None or (type(offset) is float and abs(offset) <= 10)):
            return made
    raise AvsegError(f"{path} is damaged: {mend}.")


def _is_ours(wav: Path) -> bool:
    """Whether avseg wrote a sound: one channel and a bare header, where ffmpeg, which wrote the published ones, names
    itself between."""
    with wav.open("rb") as file:
        head = file.read(40)
    return head[36:40] == b"data" and head[22:24] == b"\x01\x00"
