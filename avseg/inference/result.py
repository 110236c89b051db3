"""What a model found in a video: scores at the model's size, from which all else is made when it is asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.files import whole_file, whole_folder
from avseg.inference import export as coco
from avseg.inference.audio_windows import EXAMPLE, HALF
from avseg.inference.export import Masked, image_name, label_places, write_json_line, write_overlay
from avseg.inference.moments import Found, Moment, Scored, View
from avseg.inference.recording import Recording
from avseg.inference.source import Source, VideoSource
from avseg.media.images import resize, write_mask

_IN_MEMORY = 64 * 2**20  # bytes of scores that are held before they go to a temporary file
_STRIP = 10  # moments that a film strip shows
_EXAMPLES = 120  # of sound, that a film strip shows
_STRIP_SIDE = 480  # pixels of a film strip's frames, at most


@dataclass(frozen=True, eq=False)
class Result:
    """A segmented video.

    Scores are kept at the model's size ``S``; frames are decoded again, and scores and masks enlarged to the video's
    own size, when they are asked for. The file must still be there then.

    Attributes:
        times: ``(n,)`` float64, seconds of the moments.
        scores: ``(n, S, S)`` float16, probabilities. Rounded as they leave the model, by no more than 1/2048 of
            themselves, in `AVSegmenter.stream` too, so that both give the same masks. Read-only; a file in the system's
            temporary folder, that vanishes with the result, once they are larger than 64 MB.
        loudness: ``(n,)`` float64, see `Moment`.
        threshold: Probability from which a pixel belongs to a mask.
        notes: Sentences about what a person should know of the video.
        start: Where the segmented stretch begins, in seconds.
        end: Where it ends.
        model: What the model is called.
        view: Between the video's own size and the model's.
        video: What frames are decoded from.
        asked_end: The end that was asked for, if any.
        found: Of each moment, what the mask is made of, by name; empty where the segmenter has no names.
    """

    times: np.ndarray
    scores: np.ndarray
    loudness: np.ndarray
    threshold: float
    notes: tuple[str, ...]
    start: float
    end: float
    model: str
    view: View
    video: VideoSource = field(repr=False)
    asked_end: float | None = None
    found: tuple[tuple[Found, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    @property
    def source(self) -> Path | Recording:
        """What was segmented: the video's path, or the recording."""
        return self.video.given

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of frames, scores and masks in pixels."""
        return self.view.width, self.view.height

    @property
    def seconds(self) -> float:
        """Length of the stretch."""
        return self.end - self.start

    def at(self, threshold: float) -> "Result":
        """The same scores under another threshold; nothing is computed or copied.

        Raises:
            AvsegError: outside (0, 1).
        """
        if not 0.0 < threshold < 1.0:
            raise AvsegError(f"threshold is {threshold}: give a probability between 0 and 1.")
        return replace(self, threshold=threshold)

    def score(self, index: int) -> np.ndarray:
        """Moment ``index``'s score at the video's own size, ``(H, W)`` float32."""
        return self.view.enlarge(self.scores[index])

    def mask(self, index: int) -> np.ndarray:
        """Moment ``index``'s mask at the video's own size, ``(H, W)`` bool."""
        return np.asarray(self.score(index) >= self.threshold)

    def masks(self) -> Iterator[np.ndarray]:
        """Every moment's mask, one after the other."""
        return (self.mask(index) for index in range(len(self)))

    def names(self, index: int) -> tuple[Found, ...]:
        """What moment ``index``'s mask is made of, by name; empty where the segmenter has no names."""
        return self.found[index] if self.found else ()

    def parts(self, index: int) -> list[tuple[str, np.ndarray]]:
        """Moment ``index``'s mask by name: ``(H, W)`` bool each; what no name covers is a "sounding object"."""
        rest, parts = self.mask(index), []
        mask = rest.copy()
        for one in self.names(index):
            region = self.view.region(one) & mask
            parts.append((one.name, region))
            rest &= ~region
        return [*parts, (str(coco.CATEGORY["name"]), rest)]

    def moment(self, index: int) -> Moment:
        """Everything about one moment; its frame is decoded."""
        index = range(len(self))[index]
        frame = next(iter(self.video.shown([float(self.times[index])])))
        return self._moment(index, frame)

    def moments(self) -> Iterator[Moment]:
        """Every moment in order, as `AVSegmenter.stream` gives them, without running the model."""
        for index, frame in enumerate(self.video.shown(float(time) for time in self.times)):
            yield self._moment(index, frame)

    def shares(self, threshold: float | None = None) -> np.ndarray:
        """``(n,)`` share of the frame that sounds at each moment, in [0, 1].

        Args:
            threshold: In place of the result's own.
        """
        if threshold is not None and threshold != self.threshold:
            return self.at(threshold)._shares
        return self._shares.copy()

    def save_video(
        self, path: str | Path, progress: Callable[[int, int], None] | None = None, labels: bool = True
    ) -> Path:
        """Write the video with its sound and the masks drawn over it; each mask holds until the next moment.

        Args:
            path: The mp4.
            progress: Called with the moments done and their number.
            labels: Write what is heard beside each mask, where the segmenter has names for it.

        Raises:
            AvsegError: the video is no longer there, or ``path`` is the video itself.
        """
        path = Path(path)
        if isinstance(self.source, Path) and path.exists() and self.source.exists() and path.samefile(self.source):
            raise AvsegError(f"{path} is the video itself: choose another name for the overlay.")
        masks = (
            Masked(float(time), mask, label_places(self.names(index), self.view) if labels else ())
            for index, (time, mask) in enumerate(zip(self.times, self.masks(), strict=True))
        )
        tell = None if progress is None else lambda done: progress(done, len(self))
        write_overlay(path, self.video, self.start, self.asked_end, masks, tell)
        return path

    def save_masks(self, folder: str | Path) -> Path:
        """Write ``INDEX_SECONDS.png`` for each moment, 0 and 255, replacing the folder as a whole."""
        with whole_folder(folder) as temporary:
            for index, mask in enumerate(self.masks()):
                write_mask(temporary / image_name(index, self.times[index]), mask)
        return Path(folder)

    def to_coco(self, path: str | Path) -> Path:
        """Write a COCO file: an image for each moment, an annotation (compressed RLE) for each that sounds.

        Images have the names that `save_masks` gives and their ``time`` in seconds. A segmenter with names gives an
        annotation for each object, whose category is what is heard; of any other, all that sounds at a moment is one
        annotation of the category "sounding object".
        """
        names = (image_name(index, time) for index, time in enumerate(self.times))
        parts = (self.parts(index) for index in range(len(self)))
        about = {
            "description": f"sounding objects in {self.video.info.path.name}",
            "model": self.model,
            "threshold": self.threshold,
        }
        write_json_line(path, coco.document(names, self.times, parts, self.size, about))
        return Path(path)

    def save_npz(self, path: str | Path) -> Path:
        """Write times, scores at the model's size, loudness, shares and threshold as one compressed NumPy file.

        ``size`` holds width and height, ``inside`` left, top, width and height of the image within the scores.
        """
        fit = self.view.fit
        values: dict[str, Any] = {
            "times": self.times,
            "scores": self.scores,
            "loudness": self.loudness,
            "shares": self.shares(),
            "threshold": self.threshold,
            "size": self.size,
            "inside": (fit.left, fit.top, fit.width, fit.height),
        }
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **values)
        return Path(path)

    def plot(self, path: str | Path) -> Path:
        """Draw a film strip: some evenly spaced moments with scores and masks above the sound, as png, pdf or svg."""
        from avseg.render import filmstrip

        step = -(-len(self) // _STRIP)  # even steps, so that images stand above their times
        chosen = np.arange(0, len(self), step)
        width, height = self.video.info.display_size
        scale = min(1.0, _STRIP_SIDE / max(width, height))
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        times = [float(time) for time in self.times[chosen]]
        examples, starts = self._sound()
        scores = np.stack([resize(self.score(int(index)), small) for index in chosen])
        figure = filmstrip(
            times,
            np.stack([resize(frame, small) for frame in self.video.shown(times)]),
            scores >= self.threshold,
            examples,
            scores,
            sound_starts=starts,
        )
        with whole_file(path) as temporary:
            figure.savefig(temporary, dpi=150)
        return Path(path)

    def _sound(self) -> tuple[np.ndarray, list[float]]:
        """Log-mel examples ``(m, 96, 64)`` along the stretch, end to end unless it is long, and when each begins."""
        begin, end = float(self.times[0]), max(self.end, float(self.times[0]) + EXAMPLE)
        count = int(np.ceil((end - begin) / EXAMPLE))
        centred = InputConfig(audio_offset=0.0)
        audio = self.video.audio_windows(begin, centred)
        examples, starts = [], []
        for k in range(min(count, _EXAMPLES)):
            start = begin + k * EXAMPLE * max(1.0, count / _EXAMPLES)
            if count > _EXAMPLES:
                audio = self.video.audio_windows(start, centred)  # a jump costs less than audio all that lies between
            examples.append(audio.at(start + HALF)[0][0])
            last = np.inf if audio.seconds is None else max(0.0, audio.seconds - 2 * HALF)
            starts.append(float(min(start, last)))
            if start >= last:
                break
        return np.stack(examples), starts

    @cached_property
    def _shares(self) -> np.ndarray:
        shares = np.zeros(len(self))
        for index in range(len(self)):
            # Enlarging mixes neighbouring scores, so nothing comes up that reaches beyond them.
            if float(self.scores[index].max()) >= self.threshold:
                shares[index] = self.mask(index).mean()
        return shares

    def _moment(self, index: int, frame: np.ndarray) -> Moment:
        score = self.score(index)
        mask, loudness = score >= self.threshold, float(self.loudness[index])
        return Moment(float(self.times[index]), frame, score, mask, loudness, self.names(index))


class ScoreStore:
    """Takes moments one by one; their scores move to a temporary file once they are many."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.loudness: list[float] = []
        self.found: list[tuple[Found, ...]] = []
        self._scores: list[np.ndarray] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.times)

    def add(self, moment: Scored) -> None:
        """Keep a moment's time, loudness and score."""
        self.times.append(moment.time)
        self.loudness.append(moment.loudness)
        self.found.append(moment.found)
        self._scores.append(moment.score)
        self._shape = moment.score.shape
        self._bytes += moment.score.nbytes
        if self._bytes > _IN_MEMORY:
            self._spill()

    def result(self, source: Source, view: View, threshold: float, model: str) -> Result:
        """Everything that was added."""
        return Result(
            times=np.array(self.times),
            scores=self._all(),
            loudness=np.array(self.loudness),
            threshold=threshold,
            notes=tuple(source.notes),
            start=source.start,
            end=source.end,
            model=model,
            view=view,
            video=source.video,
            asked_end=source.asked_end,
            found=tuple(self.found) if any(self.found) else (),
        )

    def _spill(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(prefix="avseg-scores-")  # noqa: SIM115 (it lives as long as the result)
        for score in self._scores:
            self._file.write(score.tobytes())
        self._scores, self._bytes = [], 0

    def _all(self) -> np.ndarray:
        if self._file is None:
            scores = np.stack(self._scores)
            scores.flags.writeable = False
            return scores
        self._spill()
        self._file.flush()
        # The mapping outlives the file object; the file has no name and goes with the mapping.
        return np.memmap(self._file, dtype=np.float16, mode="r", shape=(len(self), *self._shape))
