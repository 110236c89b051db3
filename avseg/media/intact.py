"""Is a video file whole, as far as it can tell itself?"""

import struct
from pathlib import Path
from typing import NamedTuple

from avseg.media.container import find_video, open_media, timeline

# Seconds that a file may end before its stated end without being called cut off.
_MISSING = 0.5
_ASF, _ASF_PROPERTIES = b"0&\xb2u", bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def intact_until(path: str | Path) -> float | None:
    """Where the frames of a file that was cut off end, in seconds from its first frame; None for a whole one."""
    cut = cut_off(path)
    return None if cut is None else cut[0]


def cut_off(path: str | Path) -> tuple[float, float] | None:
    """Where the frames of a file that was cut off end and should have ended, in seconds from its first frame.

    The index of an mp4 or mov file says where each frame's bytes lie; in a file that was cut off after its index was
    written some lie beyond the file's end. Matroska, WebM, AVI, FLV and ASF (wmv) files begin with their size and
    length in seconds: one that was cut off has less of both. Nothing is decoded.

    Returns:
        None where the file is whole, or says nothing that would tell.

    Raises:
        AvsegError: not a video.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0
    with open_media(path) as container:
        stream = find_video(container, path)
        if "mp4" in container.format.name.split(","):
            entries = sorted((entry.timestamp, entry.pos + entry.size) for entry in stream.index_entries)
            lost = next((stamp for stamp, end in entries if end > size), None)
            if lost is None or not stream.time_base:
                return None
            length = max(stream.duration or 0, entries[-1][0] - entries[0][0])
            return float((lost - entries[0][0]) * stream.time_base), float(length * stream.time_base)
        stated = float((container.duration or 0) + (container.start_time or 0)) / 1_000_000
    head = _head(path)
    if head is None or head.size <= size:
        return None
    stated, found = head.seconds or stated, timeline(path)
    if not found.stamps or stated - float(found.end) <= _MISSING:
        return None
    begin = found.stamps[0]
    return float(found.stamps[-1] + found.last - begin), stated - float(begin)


def _flv_number(head: bytes, name: bytes) -> float | None:
    at = head.find(name + b"\0") + len(name) + 1
    value = struct.unpack(">d", head[at : at + 8])[0] if len(name) < at <= len(head) - 8 else 0.0
    return value if 0 < value < 2**53 else None


class _Head(NamedTuple):
    size: int  # bytes of the file
    seconds: float | None = None


def _head(path: Path) -> _Head | None:
    """What the head of a Matroska, WebM, AVI, FLV or ASF file promises."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF" and head[24:28] == b"avih":
        frame, frames = (int.from_bytes(head[at : at + 4], "little") for at in (32, 48))
        return _Head(8 + int.from_bytes(head[4:8], "little"), frame * frames / 1_000_000)
    if head[:4] == b"FLV\x01":
        size, seconds = (_flv_number(head, name) for name in (b"filesize", b"duration"))
        return _Head(int(size), seconds) if size and seconds else None
    at = head.find(_ASF_PROPERTIES)
    if head[:4] == _ASF and 0 < at < len(head) - 88:
        size, length, preroll = (int.from_bytes(head[at + k : at + k + 8], "little") for k in (40, 64, 80))
        return _Head(size, length / 10_000_000 - preroll / 1000)
    at = head.find(b"\x18\x53\x80\x67") + 4  # a Matroska segment; its size follows, led by the number of its bytes
    if head[:4] != b"\x1a\x45\xdf\xa3" or at < 4 or len(head) < at + 8 or head[at] == 0:
        return None
    length = 9 - head[at].bit_length()
    bits = (1 << 7 * length) - 1
    content = int.from_bytes(head[at : at + length]) & bits
    return None if content == bits else _Head(at + length + content)
