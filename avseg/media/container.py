"""Opening media files, and walking their packets so that damage is seen and survived."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from avseg.errors import AvsegError

# Demuxers for lists of other files (which may lie anywhere, and may be waited for without end), for devices, for
# pictures and for text: none of them is a video file.
_NOT_MEDIA = frozenset(
    {"concat", "dash", "hls", "imf", "image2", "image2pipe", "sdp", "rtp", "rtsp", "sap", "tty", "bin", "ffmetadata"}
    | {"lavfi", "vapoursynth", "avisynth", "idf", "xbin", "adf", "txd"}
)


class MediaWarning(UserWarning):
    """A media file is damaged, and what could be read of it was used."""


def warn(path: Path, text: str) -> None:
    """Make damage in a file visible without stopping the work."""
    warnings.warn(f"{path}: {text}", MediaWarning, stacklevel=3)


@contextmanager
def open_media(path: str | Path) -> Iterator[InputContainer]:
    """Open a video or audio file for reading.

    Nothing but the file itself is opened: a play list that names other files or addresses is refused.

    Raises:
        AvsegError: no such file, a folder, an empty file, not a media file, or an mp4 file whose index is missing.
    """
    path = Path(path)
    if path.is_dir():
        raise AvsegError(f"{path} is a folder: name one video or audio file.")
    if not path.exists():
        raise AvsegError(f"{path} doesn't exist: check the path.")
    if not path.is_file():
        raise AvsegError(f"{path} is a pipe or a device, which can't be read twice: save it as a file first.")
    try:
        if path.stat().st_size == 0:
            raise AvsegError(f"{path} is empty: copy or download it again.")
        # With the protocol named, a colon or a percent sign in a file's name means nothing.
        options = {"protocol_whitelist": "file", "format_whitelist": _media_formats()}
        container = av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except OSError as error:
        if isinstance(error, PermissionError):
            raise AvsegError(f"{path} may not be read: change its permissions.") from None
        raise AvsegError(_unreadable(path)) from None
    except (FFmpegError, ValueError):
        raise AvsegError(_unreadable(path)) from None
    with container:
        yield container


def find_video(container: InputContainer, path: Path) -> VideoStream:
    """The first picture track that is no cover picture, with a decoder.

    Raises:
        AvsegError: there is none.
    """
    for stream in container.streams.video:
        if _is_cover(stream):
            continue
        if stream.codec_context is None:
            raise AvsegError(f"{path} has a picture track that can't be decoded here: convert it to H.264 mp4.")
        return stream
    raise AvsegError(f"{path} has no picture track: name a video.")


def find_audio(container: InputContainer) -> AudioStream | None:
    """The first sound track with a decoder, or None."""
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.codec_context.sample_rate > 0:
            return stream
    return None


def packets(container: InputContainer, stream: VideoStream | AudioStream, path: Path) -> Iterator[Packet]:
    """Packets of one track in file order, then the empty packet that empties the decoder.

    Where the file breaks off the packets end, with a :class:`MediaWarning`.
    """
    while True:
        try:
            yield from container.demux(stream)
        except IndexError:
            # In a damaged file a track can turn up that wasn't there at the beginning; its packet is passed over.
            continue
        except FFmpegError as error:
            warn(path, f"the file is damaged and was read only in part ({error.strerror}).")
            flush = Packet()
            flush.stream = stream
            yield flush
        return


def decode(packet: Packet) -> list[Any]:
    """Frames that a packet completes; an :class:`av.error.FFmpegError` for one that is damaged."""
    return packet.decode()


def first_picture_time(path: str | Path) -> Fraction | None:
    """Moment of the first picture on the file's own clock, in seconds; None without a decodable picture track."""
    path = Path(path)
    with open_media(path) as container:
        try:
            stream = find_video(container, path)
        except AvsegError:
            return None
        try:
            for packet in container.demux(stream):
                try:
                    frames = decode(packet)
                except FFmpegError:
                    continue
                for frame in frames:
                    if is_stamped(container, stream):
                        return frame_time(frame) or Fraction(0)
                    return (stream.start_time or 0) * (stream.time_base or Fraction(1))
        except FFmpegError:
            pass
    return None


def is_stamped(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the file says when each picture is shown.

    Otherwise pictures follow each other at a constant rate. The demuxer makes time stamps up then, wrong ones where
    pictures are stored in another order than shown.
    """
    if Flags(container.format.flags) & Flags.no_timestamps:
        return False
    return not (container.format.name == "avi" and stream.codec_context.has_b_frames)


def frame_time(frame: Any) -> Fraction | None:
    """A decoded frame's moment on the file's own clock, in seconds; None where the file doesn't say."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


@lru_cache(maxsize=1)
def _media_formats() -> str:
    """The demuxers that may open a file, by name."""
    names = {name for name in av.formats_available if not name.endswith("_pipe")} - _NOT_MEDIA
    return ",".join(sorted(name for name in names if av.format.ContainerFormat(name).is_input))


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in (b"ftyp", b"mdat", b"moov"):
        return f"{path} is cut off or damaged (its index is missing): copy or download it again."
    return f"{path} isn't a video or audio file that can be read: check the file, or convert it to mp4."
