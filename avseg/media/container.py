"""Opening media files, and walking their packets so that damage is seen and survived."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from mmap import ACCESS_READ, mmap
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
# frames and for text: none of them is a video file.
_NOT_MEDIA = frozenset(
    {"concat", "dash", "hls", "imf", "image2", "image2pipe", "sdp", "rtp", "rtsp", "sap", "tty", "bin", "ffmetadata"}
    | {"lavfi", "vapoursynth", "avisynth", "idf", "xbin", "adf", "txd"}
)

# Formats of packets one after the other: joined files (`cat a.ts b.ts`) are read on, with the second one's timestamps.
_RESTARTED = frozenset({"mpegts", "mpeg", "matroska", "webm", "flv", "ogg", "asf", "nut"})
# Of other formats the first file is read and the second one passed over in silence; what that begins with.
_HEADS = {
    "mov": rb"\0\0\0.ftyp",
    "flv": rb"FLV\x01[\x01\x04\x05]\0\0\0\t",
    "asf": rb"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa",
}
# Seconds that timestamps may lie behind an earlier one: of decoding, which rise, and of showing, which needn't.
_SLIP, _REORDERED = Fraction(1, 4), Fraction(1)
# So many packets in a row must agree that the clock was set anew: a single one is damage.
_AGREED = 3

# Larger frames aren't decoded: a header of a few bytes could ask for all memory.
_MOST_PIXELS = 2**26

LONGEST_PAUSE = 3600
"""Seconds that a frame may stay; a timestamp further ahead is damage: believing it would mean waiting for ever."""


class MediaWarning(UserWarning):
    """A media file is damaged or unusual, and what could be read of it was used."""


_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def warn(path: Path, text: str) -> None:
    """Make damage in a file visible without stopping the work: a :class:`MediaWarning`, or a note (`noted`)."""
    message, notes = f"{path}: {text}", _notes.get()
    if notes is None:
        warnings.warn(message, MediaWarning, stacklevel=3)
    elif message not in notes:
        notes.append(message)


@contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Add what is found wrong with files to ``notes``, once, instead of warning; also in `avseg.prefetch` within.

    Not for a generator that isn't walked through by `avseg.prefetch`: it would hold for its consumer as well.
    """
    before = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(before)


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
    """The video track with a decoder that the file calls its default one, or else the first; no cover image.

    Raises:
        AvsegError: there is none, or its frames are too large.
    """
    tracks = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not tracks:
        raise AvsegError(f"{path} has no video track: name a video.")
    decodable = [stream for stream in tracks if stream.codec_context is not None]
    if not decodable:
        raise AvsegError(f"{path} has a video track that can't be decoded here: convert it to H.264 mp4.")
    chosen = next((stream for stream in decodable if stream.disposition & Disposition.default), decodable[0])
    context = chosen.codec_context
    if context.width * context.height > _MOST_PIXELS:
        raise AvsegError(f"{path} has frames of {context.width}×{context.height} pixels: make them smaller.")
    context.options = {"max_pixels": str(_MOST_PIXELS)}
    return chosen


def find_audio(container: InputContainer, track: int | None = None) -> AudioStream | None:
    """A audio track: the default one among those that can be decoded, or None; or the one that is asked for.

    Args:
        container: An open file.
        track: Its number among the audio tracks, counted from 0.

    Raises:
        AvsegError: there is no such track, or none that can be decoded.
    """
    streams = list(container.streams.audio)
    if track is not None:
        if 0 <= track < len(streams) and streams[track].codec_context is not None:
            return streams[track]
        name = container.name.removeprefix("file:")
        tracks = ", ".join(f"{number} ({_describe(stream)})" for number, stream in enumerate(streams)) or "none"
        raise AvsegError(f"{name} has no audio track {track} that can be decoded: choose among {tracks}.")
    # The rate of a track that begins late isn't known yet.
    usable = [stream for stream in streams if stream.codec_context is not None]
    aside = Disposition.comment | Disposition.visual_impaired
    usable.sort(key=lambda s: bool(s.disposition & aside))
    usable.sort(key=lambda s: (not s.codec_context.sample_rate, not s.disposition & Disposition.default))
    return usable[0] if usable else None


def _describe(stream: AudioStream) -> str:
    context = stream.codec_context
    if context is None:
        return "unknown"
    words = [context.name, context.layout.name, stream.language or ""]
    words.append("default" if stream.disposition & Disposition.default else "")
    return ", ".join(word for word in words if word)


def packets(container: InputContainer, stream: VideoStream | AudioStream, path: Path) -> Iterator[Packet]:
    """Packets of one track in file order, then the empty packet that empties the decoder.

    They end before packets whose timestamps start anew (`timeline`): all tracks at the same byte of the file, but in
    an mp4 of fragments, whose second part may name bytes of the first, where a track's times of decoding do so. Where
    the file breaks off they end with a :class:`MediaWarning`.
    """
    end = timeline(path).next_part if _may_restart(container) else None
    by_clock, latest = end is not None and "mov" in container.format.name, Fraction(0)
    flush = Packet()
    flush.stream = stream
    while True:
        try:
            for packet in container.demux(stream):
                if by_clock and packet.dts is not None:
                    time = packet.dts * packet.time_base
                    if time < latest - _SLIP:
                        break
                    latest = max(latest, time)
                elif end is not None and packet.pos is not None and packet.pos >= end:
                    break
                if packet.size or packet.pts is None:
                    yield packet  # one without content, such as Theora's for a repeated frame, would end decoding
                if not packet.size and packet.pts is None:
                    return
        except IndexError:
            # In a damaged file a track can turn up that wasn't there at the beginning; its packet is passed over.
            continue
        except FFmpegError as error:
            warn(path, f"the file is damaged and was read only in part ({error.strerror}).")
        yield flush
        return


def decode(packet: Packet) -> list[Any]:
    """Frames that a packet completes; an :class:`av.error.FFmpegError` for one that is damaged."""
    return packet.decode()


@dataclass(frozen=True)
class Timeline:
    """Where a file's tracks begin and end, as its packets say: headers are wrong about it too often.

    Attributes:
        stamps: timestamps of the frames in order, seconds on the file's own clock; empty where the file has none.
        last: seconds that the last frame stays by itself; 0 where the file doesn't say.
        frames: number of frames.
        sound_end: where the audio track ends on that clock; None without one.
        end: where the last packet of any track ends on that clock.
        next_part: the byte at which another recording begins, whose timestamps start anew; None in an ordinary file.
    """

    stamps: tuple[Fraction, ...]
    last: Fraction
    pictures: int
    sound_end: Fraction | None
    end: Fraction
    next_part: int | None


def timeline(path: str | Path) -> Timeline:
    """Where a file's tracks begin and end; its packets are read once (about a second for an hour), nothing is decoded.

    Raises:
        AvsegError: as `open_media`.
    """
    path = Path(path)
    state = path.stat() if path.is_file() else None
    return _timeline(path, *((state.st_size, state.st_mtime_ns) if state else (0, 0)))


def first_frame_time(path: str | Path) -> Fraction | None:
    """Timestamp of the first frame on the file's own clock, in seconds; None without a decodable video track."""
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
    """Whether the file says when each frame is shown.

    Otherwise frames follow each other at a constant rate. The demuxer makes timestamps up then, wrong ones where
    frames are stored in another order than shown.
    """
    if Flags(container.format.flags) & Flags.no_timestamps:
        return False
    return not (container.format.name == "avi" and stream.codec_context.has_b_frames)


def frame_time(frame: Any) -> Fraction | None:
    """A decoded frame's timestamp on the file's own clock, in seconds; None where the file doesn't say."""
    return None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base


@lru_cache(maxsize=32)
def _timeline(path: Path, size: int, changed: int) -> Timeline:
    with open_media(path) as container:
        try:
            seen: VideoStream | None = find_video(container, path)
        except AvsegError:
            seen = None
        heard = find_audio(container)
        tracks = {stream.index: _Track(stream.time_base) for stream in container.streams}
        reached = 0
        for packet in _all_packets(container):
            if packet.stream_index in tracks:
                tracks[packet.stream_index].add(packet)
            reached = max(reached, (packet.pos or 0) + packet.size)
        pictures = _Track(None) if seen is None else tracks[seen.index]
        sound = _Track(None) if heard is None else tracks[heard.index]
        restarts, follows = _may_restart(container), _appended(container, path, reached)
    parts = [track.next_part for track in (pictures, sound) if restarts and track.next_part is not None]
    stamps = sorted(pictures.stays)
    last = pictures.stays[stamps[-1]] * pictures.tick if stamps else Fraction(0)
    return Timeline(
        tuple(stamp * pictures.tick for stamp in stamps),
        last if last <= LONGEST_PAUSE else Fraction(0),
        pictures.count,
        sound.end,
        max((track.end for track in tracks.values() if track.end is not None), default=Fraction(0)),
        min(parts, default=follows),
    )


def _may_restart(container: InputContainer) -> bool:
    """Whether timestamps of another recording may follow: in packets one after the other, not where an index rules."""
    names = container.format.name.split(",")
    return not _RESTARTED.isdisjoint(names) or ("mov" in names and not any(s.frames for s in container.streams))


def _appended(container: InputContainer, path: Path, reached: int) -> int | None:
    """Where a second file begins after the last packet, in bytes, which the demuxer doesn't read."""
    heads = [_HEADS[name] for name in container.format.name.split(",") if name in _HEADS]
    if not heads:
        return None
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return next((found.start() for found in re.compile(heads[0], re.DOTALL).finditer(content, reached)), None)


class _Track:
    """One track's packets on their way past, counted in its own ticks."""

    def __init__(self, tick: Fraction | None) -> None:
        self.tick = tick or Fraction(1)
        self.stays: dict[int, int] = {}  # how long each packet lasts, by its time
        self.count = 0
        self.next_part: int | None = None
        self._strays: list[Packet] = []
        self._latest: dict[bool, int] = {}  # with and without a time of decoding: in Matroska the first ones lack it
        self._slip, self._reordered = int(_SLIP / self.tick), int(_REORDERED / self.tick)
        self._ahead = int(LONGEST_PAUSE / self.tick)

    @property
    def end(self) -> Fraction | None:
        """Where the last packet ends."""
        return max(time + stay for time, stay in self.stays.items()) * self.tick if self.stays else None

    def add(self, packet: Packet) -> None:
        if self.next_part is not None or packet.is_discard:
            return
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None:
            self.count += packet.size > 0
            return
        slack = self._reordered if packet.dts is None else self._slip
        order = shown if packet.dts is None else min(shown, packet.dts)
        latest = self._latest.get(packet.dts is None, order)
        if latest - slack <= order and shown <= latest + self._ahead:
            self._strays.clear()
            self._latest[packet.dts is None] = max(order, latest)
            self.count += 1
            self.stays[shown] = max(0, packet.duration or 0)
            return
        self._strays.append(packet)
        if len(self._strays) < _AGREED:
            return
        strays, self._strays = self._strays, []
        if self.count >= _AGREED:
            self.next_part = next((stray.pos for stray in strays if stray.pos is not None), None)
            return
        # The first ones were off, as where a transport stream counts from just below 0.
        self.count = 0
        self.stays.clear()
        self._latest.clear()
        for stray in strays:
            self.add(stray)


def _all_packets(container: InputContainer) -> Iterator[Packet]:
    """Packets of all tracks, as far as the file can be read."""
    while True:
        try:
            yield from container.demux()
        except IndexError:
            continue
        except FFmpegError:
            pass
        return


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
