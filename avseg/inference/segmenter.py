"""A network that is ready to run: a video in, the sounding objects' masks out, one moment at a time."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avseg import models
from avseg.data.clip import Batch
from avseg.errors import AvsegError
from avseg.inference.base import Segmenter, check_threshold, choose_device
from avseg.inference.moments import Glimpse, Scored, View
from avseg.inference.output_paths import weights_of
from avseg.inference.source import Source
from avseg.media.container import noted
from avseg.models import AVSModel
from avseg.models.catalogue import resolve
from avseg.models.hub import push_to_hub
from avseg.prefetch import prefetch

_FRAME_BYTES = 64 * 2**20  # of full-size frames that wait for one pass of the model


class AVSegmenter(Segmenter):
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
        super().__init__(device, model.config.threshold if threshold is None else threshold, name or model.config.base)
        self.model = model.to(self.device).eval()
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
        check_threshold(threshold)
        source = None if source is None else resolve(source)
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


def shipped_model() -> Path | None:
    """The folder of the model that comes with avseg; None where this version has none."""
    folder = Path(str(files("avseg") / "shipped"))
    return folder if (folder / "config.json").is_file() else None
