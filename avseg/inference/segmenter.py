"""A model that is ready to run: a video in, the sounding objects' masks out, one moment at a time."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avseg import models
from avseg.data.clip import Batch
from avseg.errors import AvsegError
from avseg.inference.moments import Glimpse, Moment, Scored, Smoothing, View, smooth
from avseg.inference.output_paths import weights_of
from avseg.inference.result import Result, ScoreStore
from avseg.inference.source import AnySource, Source, open_source
from avseg.media.container import MediaWarning, noted
from avseg.models import AVSModel
from avseg.models.hub import push_to_hub
from avseg.models.loading import read_config
from avseg.prefetch import prefetch

FPS = 5.0
"""Moments per second that are looked at unless something else is asked for."""

_FRAME_BYTES = 64 * 2**20  # of full-size frames that wait for one pass of the model


class AVSegmenter:
    """A model, ready to run on videos.

    Args:
        model: Any model of avseg.
        device: ``auto`` (a GPU where there is one), or a name that PyTorch knows, such as ``cpu`` or ``cuda:1``.
        threshold: Probability from which a pixel belongs to a mask; None takes the model's own.
        name: What the model is called where results say who made them.

    Raises:
        AvsegError: a device that is not there, or a threshold outside (0, 1).
    """

    def __init__(self, model: AVSModel, device: str = "auto", threshold: float | None = None, name: str = ""):
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        _check_threshold(threshold)
        self.threshold = model.config.threshold if threshold is None else threshold
        self.name = name or model.config.base
        self.weights = ""
        self._most: int | None = None  # moments that fitted the device's memory
        self._origin: Path | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, device: str = "auto", threshold: float | None = None
    ) -> "AVSegmenter":
        """Load a trained model.

        Args:
            source: A folder with ``config.json`` and ``model.safetensors``, a training checkpoint (``.ckpt``), or the
                id of a repository on the Hugging Face hub. None takes the model that comes with avseg.
            device: See `AVSegmenter`.
            threshold: See `AVSegmenter`.

        Raises:
            AvsegError: nothing there that is a model of avseg.
        """
        choose_device(device)
        _check_threshold(threshold)
        if source is None:
            source = shipped_model()
            if source is None:
                raise AvsegError(
                    "No model was named and none comes with this version: give the folder of one, such as "
                    "runs/demo/ufe."
                )
            segmenter = cls(models.load(source), device, threshold, "shipped")
        else:
            segmenter = cls(models.load(source), device, threshold, str(source))
        segmenter._origin = Path(source) if Path(source).is_dir() else None
        segmenter.weights = weights_of(Path(source))
        return segmenter

    @property
    def known(self) -> dict[str, Any]:
        """What results say of how they were made: ``threshold``, ``model`` and ``weights`` (see `Pretrained`)."""
        return {"threshold": self.threshold, "model": self.name, "weights": self.weights}

    def stream(
        self,
        source: AnySource,
        fps: float | None = FPS,
        start: float = 0.0,
        end: float | None = None,
        smoothing: Smoothing | float | None = None,
        audio_track: int | None = None,
    ) -> Iterator[Moment]:
        """Segment a video moment by moment, in order of time and in bounded memory.

        Only a few frames and about a second of sound are held; the first moments come before the video is decoded
        further. Decoding and motion run beside the model. The sound of a moment is the 0.96 s around
        ``inputs.audio_offset`` seconds after it (−0.46, as in AVSBench), shifted inside the track at its ends. A model
        that was trained with T frames per clip sees T consecutive moments at once; where their number is no multiple
        of T, the last window reaches back over moments that were already given (and repeats the last one in a video
        that has fewer than T).

        Notes about the video (damage, sound that ends early, a single frame) are given as `MediaWarning`.

        Args:
            source: A video with sound that PyAV reads; a folder of numbered images with a sound file; an
                `avseg.Recording`; or a tuple ``(frames, wave)``: frames, ``fps`` a second, and sound at 16 kHz.
            fps: Moments per second; None takes every frame.
            start: First moment, in seconds.
            end: Moments before this many seconds; None goes on to the last frame.
            smoothing: Seconds over which scores are averaged, or an `avseg.Smoothing`; None leaves them as they are.
            audio_track: Which audio track of a video file is heard, counted from 0; None takes the default one.

        Raises:
            AvsegError: not a video, no audio track or no such one, or a time span without frames.
        """
        how = Smoothing.of(smoothing)
        return self._stream(open_source(source, fps, start, end, audio_track), how)

    def __call__(
        self,
        source: AnySource,
        fps: float | None = FPS,
        start: float = 0.0,
        end: float | None = None,
        smoothing: Smoothing | float | None = None,
        progress: Callable[[int, int], None] | None = None,
        audio_track: int | None = None,
    ) -> Result:
        """Segment a video and keep the scores: at the model's size, in a temporary file where they are many.

        Args:
            source: See `stream`.
            fps: See `stream`.
            start: See `stream`.
            end: See `stream`.
            smoothing: See `stream`.
            progress: Called with the moments done and (about) their total.
            audio_track: See `stream`.

        Raises:
            AvsegError: as `stream`.
        """
        how = Smoothing.of(smoothing)
        opened = open_source(source, fps, start, end, audio_track)
        store = ScoreStore()
        for moment in self.scored(opened, how):
            store.add(moment)
            if progress is not None:
                progress(len(store), max(len(store), opened.moments))
        if progress is not None:
            progress(len(store), len(store))
        return store.result(opened, self.view(opened), self.threshold, self.name)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` to ``folder``, which `from_pretrained` takes.

        Raises:
            AvsegError: ``folder`` is a file.
        """
        return self.model.save_pretrained(folder)

    def push_to_hub(self, repository: str, private: bool = False, scores: Mapping[str, float] | None = None) -> str:
        """Write the model with a card to a repository of the Hugging Face hub, and return its address.

        Args:
            repository: ``OWNER/NAME``; made where there is none.
            private: Whether only its owner sees a repository that is made.
            scores: Named scores in [0, 1] for the card; None takes what the model's run measured.

        Raises:
            AvsegError: no connection, no permission, or a name that the hub doesn't take.
        """
        return push_to_hub(self.model, repository, private, scores, self._origin)

    def view(self, source: Source) -> View:
        """Between the video's own size and what the model sees of it."""
        return View.of(self.model.config.inputs, source.info.width, source.info.height)

    def scored(self, source: Source, smoothing: Smoothing | None = None, keep: bool = False) -> Iterator[Scored]:
        """The scores of a source's moments at the model's size; frames are kept only where ``keep`` says so."""
        scored = self._scored(source, keep)
        return scored if smoothing is None else smooth(scored, smoothing)

    def _stream(self, source: Source, smoothing: Smoothing) -> Iterator[Moment]:
        view = self.view(source)
        told = 0
        # Frames that wait for later scores would fill the memory: they are decoded once more.
        again = smoothing.seconds > 0
        moments = self.scored(source, smoothing, keep=not again)
        for scored, frame in prefetch(_with_frames(moments, source), 1) if again else ((m, m.frame) for m in moments):
            told = _tell(source.notes, told)
            full = view.enlarge(scored.score)
            assert frame is not None
            yield Moment(scored.time, frame, full, full >= self.threshold, scored.loudness)
        _tell(source.notes, told)

    def _scored(self, source: Source, keep: bool) -> Iterator[Scored]:
        length = max(1, self.model.config.frames_per_clip)
        frame_bytes = source.info.width * source.info.height * 3
        most = self._moments_at_once(frame_bytes, length)
        glimpses = prefetch(self._glimpses(source, keep), waiting=most)
        before: list[Glimpse] = []
        wanted = length  # at first few, so that the first result comes early
        try:
            while group := list(islice(glimpses, min(wanted, self._most or most))):
                for glimpse, score in zip(group, self._pass(group, before), strict=True):
                    yield Scored(glimpse.time, score, glimpse.loudness, glimpse.frame)
                before = (before + group)[-(length - 1) :] if length > 1 else []
                wanted = min(2 * wanted, most)
        finally:
            glimpses.close()  # type: ignore[attr-defined]

    def _glimpses(self, source: Source, keep: bool) -> Iterator[Glimpse]:
        view = self.view(source)
        config = self.model.config
        source.use_inputs(config.inputs)
        method = config.inputs.flow_method if config.neighbouring_frames else None
        with noted(source.notes):
            for pair in source.pairs:
                sound = source.audio.at(pair.time)
                source.note_short_sound()
                yield view.glimpse(pair, sound, method, keep)

    def _moments_at_once(self, frame_bytes: int, length: int) -> int:
        """How many moments pass through the model together: a multiple of T that keeps waiting frames few."""
        wanted = min(self.model.timestamps_per_pass(self.device), _FRAME_BYTES // frame_bytes)
        return max(1, wanted // length) * length

    def _pass(self, group: list[Glimpse], before: list[Glimpse]) -> list[np.ndarray]:
        """``(S, S)`` float16 probabilities of some moments; fewer at a time where the device's memory is too small."""
        length = max(1, self.model.config.frames_per_clip)
        try:
            return self._scores(group, before)
        except torch.cuda.OutOfMemoryError:
            if len(group) <= length:
                raise AvsegError(
                    f"The memory of {self.device} is too small for this model: free some of it, or give device cpu."
                ) from None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = max(1, len(group) // length // 2) * length
        self._most = half
        first = self._pass(group[:half], before)
        return first + self._pass(group[half:], (before + group[:half])[-(length - 1) :] if length > 1 else [])

    @torch.inference_mode()
    def _scores(self, glimpses: list[Glimpse], before: list[Glimpse]) -> list[np.ndarray]:
        """``before`` fills the first window up to T moments."""
        length = max(1, self.model.config.frames_per_clip)
        missing = -len(glimpses) % length
        lead = before[len(before) - missing :] if 0 < missing <= len(before) else []
        seen = lead + glimpses
        seen += [seen[-1]] * (-len(seen) % length)

        def windows(name: str) -> Tensor:
            stacked = torch.from_numpy(np.stack([getattr(glimpse, name) for glimpse in seen]))
            return stacked.unflatten(0, (-1, length))

        frames = windows("pixels")
        clips = len(frames)
        everywhere = torch.ones_like(frames[:, :, :1], dtype=torch.bool)  # nothing is perturbed or scored here
        batch = Batch(
            frames=frames,
            flow=windows("flow"),
            log_mel=windows("log_mel"),
            masks=None,
            inside=everywhere,
            valid=everywhere,
            names=("",) * clips,
            categories=("",) * clips,
            times=windows("time"),
        )
        logits = self.model.predict(models.normalise(batch, self.model.config, self.device)).logits
        probability = logits.float().sigmoid().flatten(0, 1)[len(lead) : len(lead) + len(glimpses), 0]
        scores: np.ndarray = probability.half().cpu().numpy()
        if np.isnan(scores).any():
            raise AvsegError("The model's answer is no number: its weights are too large; train it again.")
        return list(scores)


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise AvsegError(f"threshold is {threshold}: give a probability between 0 and 1.")


def _tell(notes: list[str], told: int) -> int:
    """Warn of the notes after the first ``told``; how many there are now."""
    for note in notes[told:]:
        warnings.warn(note, MediaWarning, stacklevel=3)
    return len(notes)


def _with_frames(moments: Iterator[Scored], source: Source) -> Iterator[tuple[Scored, np.ndarray]]:
    """Moments with the frames that are shown then, decoded as they are asked for."""
    met: deque[Scored] = deque()

    def times() -> Iterator[float]:
        for moment in moments:
            met.append(moment)
            yield moment.time

    with noted(source.notes):
        for frame in source.video.shown(times()):
            yield met.popleft(), frame


class Pretrained:
    """A trained model that is loaded once it is needed.

    Args:
        source: See `AVSegmenter.from_pretrained`, as are ``device`` and ``threshold``.

    Attributes:
        error: Why it can't be had, once that has turned out.
    """

    def __init__(self, source: str | Path | None = None, device: str = "auto", threshold: float | None = None):
        self._source, self._device, self._threshold = source, device, threshold
        self.error: AvsegError | None = None

    def __call__(self) -> AVSegmenter:
        """The model.

        Raises:
            AvsegError: see `AVSegmenter.from_pretrained`.
        """
        return self._segmenter

    @cached_property
    def _segmenter(self) -> AVSegmenter:
        try:
            return AVSegmenter.from_pretrained(self._source, self._device, self._threshold)
        except AvsegError as error:
            self.error = error
            raise

    @cached_property
    def known(self) -> dict[str, Any]:
        """Of ``threshold``, ``model`` and ``weights`` (what tells these from others) all that files tell unloaded."""
        path = shipped_model() if self._source is None else Path(self._source)
        found: dict[str, Any] = {"model": "shipped" if self._source is None else str(self._source)}
        found["weights"] = weights_of(path)
        threshold = self._threshold
        if threshold is None and path is not None and (path / "config.json").is_file():
            with suppress(AvsegError):
                threshold = read_config(path / "config.json").threshold
        return found if threshold is None else found | {"threshold": threshold}


def shipped_model() -> Path | None:
    """The folder of the model that comes with avseg; None where this version has none."""
    folder = Path(str(files("avseg") / "shipped"))
    return folder if (folder / "config.json").is_file() else None


def choose_device(name: str) -> torch.device:
    """The device that ``name`` means; ``auto`` is a GPU where there is one, otherwise the CPU.

    Raises:
        AvsegError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise AvsegError(f"device '{name}' is not available here: give cpu, or auto to let it be chosen.") from None
    if device.type == "meta":
        raise AvsegError("device 'meta' computes nothing: give cpu, or auto to let it be chosen.")
    return device
