"""Is a video file whole, as far as its own index can tell?"""

from pathlib import Path

from avseg.media.container import find_video, open_media


def intact_until(path: str | Path) -> float | None:
    """Where the pictures of a file that was cut off end, in seconds from its first frame.

    The index of an mp4 or mov file says where each picture's bytes lie; in a file that was cut off after its index was
    written some lie beyond the file's end. Nothing is decoded.

    Returns:
        None where the file is whole, or has no index that would tell.

    Raises:
        AvsegError: not a video.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0
    with open_media(path) as container:
        stream = find_video(container, path)
        if not stream.time_base or "mp4" not in container.format.name.split(","):
            return None
        entries = list(stream.index_entries)
        lost = [entry.timestamp for entry in entries if entry.pos + entry.size > size]
        if not lost:
            return None
        return float((min(lost) - min(entry.timestamp for entry in entries)) * stream.time_base)
