"""Any real video without training: what is heard names what is looked for (after OpenAVS and others)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.inference.base import Segmenter, choose_device
from avseg.inference.moments import Scored, View
from avseg.inference.output_paths import digest
from avseg.inference.source import Source
from avseg.media.container import noted
from avseg.media.flow import neighbour_flow
from avseg.media.video import FramePair
from avseg.models.catalogue import GROUPS, OPEN_VOCABULARY, SOURCE, folder_of
from avseg.openvocab.choose import Choice, choose
from avseg.openvocab.hear import AST, Listener, Names, Tagger, Wanted
from avseg.openvocab.see import Both, Eyes, InstanceEyes, PromptedEyes
from avseg.prefetch import prefetch

NAME = OPEN_VOCABULARY
"""What ``--checkpoint`` calls it."""

THRESHOLD = 0.5
"""Of a candidate's own mask."""

_TOGETHER = {"cpu": 2, "cuda": 16}  # timestamps that are looked at in one pass


@dataclass(frozen=True, eq=False)
class Look:
    """A timestamp as it is seen and heard.

    Attributes:
        time: Seconds.
        frame: ``(S, S, 3)`` uint8 RGB.
        flow: ``(2, S, S)`` float32, pixels per 40 ms.
        wanted: What is heard that a camera can see; the surest first.
        loudness: Decibels relative to full scale.
        full: The frame at the video's own size, where it is wanted.
    """

    time: float
    frame: np.ndarray
    flow: np.ndarray
    wanted: tuple[Wanted, ...]
    loudness: float
    full: np.ndarray | None = None


class OpenVocabulary(Segmenter):
    """Composition of a tagger of sounds and a segmenter that finds things by name.

    Args:
        tagger: Says what is heard.
        eyes: Finds what that names.
        device: See `Segmenter`; only told here, since tagger and eyes have theirs.
        threshold: Of a candidate's own mask; 0.5 if not given.
        how: How candidates are heard, looked for and chosen.
        name: See `Segmenter`.

    Raises:
        AvsegError: as `Segmenter`, or a tagger whose classes are not AudioSet's.
    """

    names = True

    def __init__(
        self,
        tagger: Tagger,
        eyes: Eyes,
        device: str = "auto",
        threshold: float | None = None,
        how: Choice | None = None,
        name: str = NAME,
    ):
        super().__init__(device, THRESHOLD if threshold is None else threshold, name)
        self.tagger, self.eyes, self.how = tagger, eyes, how or Choice()
        self._names = Names(tagger.mids, self.how.least_sound, self.how.most_nouns)

    @classmethod
    def from_folders(
        cls,
        tagger: str | Path,
        prompted: str | Path,
        instances: str | Path,
        device: str = "auto",
        threshold: float | None = None,
        how: Choice | None = None,
    ) -> "OpenVocabulary":
        """Of three models' folders as transformers writes them: AST, CLIPSeg, and RF-DETR with masks.

        Raises:
            AvsegError: one of them is not there or something else.
        """
        place = choose_device(device)
        eyes = Both(InstanceEyes(instances, place), PromptedEyes(prompted, place))
        return cls(AST(tagger, place), eyes, device, threshold, how)

    @classmethod
    def downloaded(
        cls, device: str = "auto", threshold: float | None = None, how: Choice | None = None
    ) -> "OpenVocabulary":
        """Of the models that ``avseg models download open-vocabulary`` fetched.

        Raises:
            AvsegError: one of them was not downloaded, or is broken.
        """
        found = downloaded_folders()
        segmenter = cls.from_folders(found["ast"], found["clipseg"], found["rf-detr-seg-nano"], device, threshold, how)
        segmenter.weights = fingerprint()
        return segmenter

    @property
    def inputs(self) -> InputConfig:
        """How frames are brought to the size at which they are looked at."""
        return InputConfig(image_size=32 * max(1, round(self.how.size / 32)), resize="stretch")

    def view(self, source: Source) -> View:
        """See `Segmenter.view`."""
        return View.of(self.inputs, source.info.width, source.info.height)

    def _scored(self, source: Source, keep: bool) -> Iterator[Scored]:
        together = _TOGETHER.get(self.device.type, 2)
        looks = prefetch(self._looks(source, keep), waiting=together)
        try:
            while group := list(islice(looks, together)):
                yield from self.score(group)
        finally:
            looks.close()  # type: ignore[attr-defined]

    def score(self, looks: list[Look]) -> Iterator[Scored]:
        """What of each look sounds."""
        try:
            sightings = self.eyes.look(np.stack([look.frame for look in looks]), [look.wanted for look in looks])
        except torch.cuda.OutOfMemoryError:
            raise AvsegError(
                f"The memory of {self.device} is too small for these models: free some of it, or give device cpu."
            ) from None
        for look, candidates in zip(looks, sightings, strict=True):
            score, found = choose(candidates, look.flow, self.how)
            yield Scored(look.time, score, look.loudness, look.full, found)

    def hear(self, listener: Listener, time: float) -> tuple[tuple[Wanted, ...], float]:
        """What is to be looked for at a timestamp, and how loud it is there; nothing in silence."""
        loudness = listener.loudness(time)
        probabilities = listener.at(time)
        return (() if loudness < self.how.quiet else self._names.wanted(probabilities)), loudness

    def listener(self, source: Source) -> Listener:
        """The sound of a source from its start on."""
        return Listener(self.tagger, source.video.wave, source.start, self.how.window, self.how.hop)

    def _looks(self, source: Source, keep: bool) -> Iterator[Look]:
        fit, listener = self.view(source).fit, self.listener(source)
        with noted(source.notes):
            for pair in source.pairs:
                frame = fit.resized(pair.frame)
                flow = np.zeros((2, fit.height, fit.width), dtype=np.float32)
                if pair.neighbour is not None:
                    small = FramePair(pair.time, frame, fit.resized(pair.neighbour), pair.step)
                    flow = neighbour_flow(small, "farneback")
                wanted, loudness = self.hear(listener, pair.time)
                yield Look(pair.time, frame, flow, wanted, loudness, pair.frame if keep else None)


def downloaded_folders() -> dict[str, Path]:
    """The folders of its models by name.

    Raises:
        AvsegError: one was not downloaded.
    """
    found = {name: folder for name in GROUPS[NAME] if (folder := folder_of(name)) is not None}
    lacking = [name for name in GROUPS[NAME] if name not in found]
    if lacking:
        raise AvsegError(
            f"{NAME} needs {', '.join(lacking)}, not downloaded yet: `avseg models download {NAME}` fetches what is "
            "missing."
        )
    return found


def fingerprint() -> str:
    """What tells the downloaded models from others; empty where they are not all here."""
    folders = [folder_of(name) for name in GROUPS[NAME]]
    files = [folder / SOURCE for folder in folders if folder is not None]
    return digest(files, whole=True) if len(files) == len(folders) else ""
