"""Is a video file whole, as far as it can tell itself?"""

from pathlib import Path

from avseg.media.container import find_video, open_media, timeline

# Seconds that a file may end before its stated end without being called cut off.
_MISSING = 0.5


def intact_until(path: str | Path) -> float | None:
    """Where the pictures of a file that was cut off end, in seconds from its first frame. Nothing is decoded.

    The index of an mp4 or mov file says where each picture's bytes lie; in a file that was cut off after its index was
    written some lie beyond the file's end. Matroska, WebM and AVI files begin with their size and length in seconds:
    one that was cut off has less of both.

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
            if not stream.time_base:
                return None
            entries = list(stream.index_entries)
            lost = [entry.timestamp for entry in entries if entry.pos + entry.size > size]
            if not lost:
                return None
            return float((min(lost) - min(entry.timestamp for entry in entries)) * stream.time_base)
        if _stated_size(path) <= size or not container.duration:
            return None
        stated = (container.duration + (container.start_time or 0)) / 1_000_000
    found = timeline(path)
    if not found.stamps or stated - float(found.end) <= _MISSING:
        return None
    return float(found.stamps[-1] + found.last - found.stamps[0])


def _stated_size(path: Path) -> int:
    """Bytes that the head of a Matroska, WebM or AVI file promises; 0 where it doesn't."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF":
        return 8 + int.from_bytes(head[4:8], "little")
    at = head.find(b"\x18\x53\x80\x67") + 4  # a Matroska segment; its size follows, led by the number of its bytes
    if head[:4] != b"\x1a\x45\xdf\xa3" or at < 4 or len(head) < at + 8 or head[at] == 0:
        return 0
    length = 9 - head[at].bit_length()
    bits = (1 << 7 * length) - 1
    content = int.from_bytes(head[at : at + length]) & bits
    return 0 if content == bits else at + length + content
