"""What is heard: a tagger's class probabilities along a track, and the visible things that these name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from avseg.errors import AvsegError
from avseg.inference.audio_windows import SILENCE
from avseg.media.audio import SAMPLE_RATE
from avseg.openvocab.nouns import Sound, read_nouns
from avseg.reading import read_json


class Tagger(Protocol):
    """Says what is heard.

    Attributes:
        mids: AudioSet's identifiers of its classes, in the order of its answers; any part of the 527.
    """

    mids: Sequence[str]

    def tag(self, windows: np.ndarray) -> np.ndarray:
        """Class probabilities ``(n, classes)`` of windows ``(n, samples)``, float32 mono at 16 kHz in [-1, 1]."""


@dataclass(frozen=True)
class Wanted:
    """A visible thing that is heard.

    Attributes:
        noun: What a segmenter is asked for.
        coco: COCO's classes that cover it.
        name: AudioSet's name of the class that names it.
        sound: How surely it is heard, in [0, 1].
    """

    noun: str
    coco: tuple[str, ...]
    name: str
    sound: float


class Names:
    """From a tagger's probabilities to what is to be looked for.

    Args:
        mids: The tagger's.
        least: Probability from which a class counts.
        most: How many nouns are looked for at once.

    Raises:
        AvsegError: the tagger has no classes, or some that AudioSet does not have; the first few are named.
    """

    def __init__(self, mids: Sequence[str], least: float, most: int):
        table = read_nouns()
        unknown = [mid for mid in mids if mid not in table]
        if unknown or not mids:
            named = ", ".join(map(repr, unknown[:3])) if unknown else "none at all"
            raise AvsegError(
                f"The tagger's classes must be AudioSet's identifiers such as /m/05tny_, and there are {named}"
                f"{' and more' if len(unknown) > 3 else ''}: give it a list `mids` of those."
            )
        self._sounds: list[Sound] = [table[mid] for mid in mids]
        self._least, self._most = least, most

    def wanted(self, probabilities: np.ndarray) -> tuple[Wanted, ...]:
        """The nouns of the classes ``(classes,)`` that are heard, the surest first, each once.

        A class's second noun counts for a tenth less than its first, and so on.
        """
        found: dict[str, Wanted] = {}
        for index in np.argsort(-probabilities, kind="stable"):
            probability, sound = float(probabilities[index]), self._sounds[index]
            if probability < self._least:
                break
            for place, noun in enumerate(sound.nouns):
                surely = min(probability, 1.0) * 0.9**place
                if noun not in found or found[noun].sound < surely:
                    found[noun] = Wanted(noun, sound.coco, sound.name, surely)
        return tuple(sorted(found.values(), key=lambda one: -one.sound)[: self._most])


class Listener:
    """Tags a track that is walked through forwards, holding a few seconds of it.

    Windows of ``length`` seconds stand ``hop`` apart, each tagged once; between two centres probabilities are
    interpolated. Windows reach beyond the track's ends into silence.

    Args:
        tagger: Tags windows.
        wave: Gives the track's samples ``(n,)`` at 16 kHz piece by piece, from a whole second on.
        start: The earliest timestamp that will be asked for, in seconds.
        length, hop: Seconds.
    """

    def __init__(
        self,
        tagger: Tagger,
        wave: Callable[[int], Iterator[np.ndarray]],
        start: float = 0.0,
        length: float = 2.0,
        hop: float = 1.0,
    ):
        self._tagger, self._hop = tagger, hop
        self._samples = round(length * SAMPLE_RATE)
        self._first = max(0, int(start - length - hop)) * SAMPLE_RATE
        self._pieces = wave(self._first // SAMPLE_RATE)
        self._held = np.zeros(0, dtype=np.float32)
        self._ended = False
        self._tagged: dict[int, np.ndarray] = {}

    def at(self, time: float) -> np.ndarray:
        """Probabilities ``(classes,)`` at a timestamp no earlier than the one before."""
        place = max(time, 0.0) / self._hop
        before = int(place)
        share = place - before
        known = [self._window(before), self._window(before + 1)] if share else [self._window(before)] * 2
        for number in [number for number in self._tagged if number < before]:
            del self._tagged[number]
        return np.asarray((1 - share) * known[0] + share * known[1])

    def loudness(self, time: float, seconds: float = 0.96) -> float:
        """Root mean square around a timestamp, in decibels relative to full scale; at least −100."""
        piece = self._cut(round((time - seconds / 2) * SAMPLE_RATE), round(seconds * SAMPLE_RATE))
        power = float(np.mean(np.square(piece, dtype=np.float64)))
        return max(SILENCE, 10 * np.log10(max(power, 1e-12)))

    def _window(self, number: int) -> np.ndarray:
        if number not in self._tagged:
            centre = round(number * self._hop * SAMPLE_RATE)
            window = self._cut(centre - self._samples // 2, self._samples)
            self._tagged[number] = self._tagger.tag(window[None])[0]
        return self._tagged[number]

    def _cut(self, begin: int, samples: int) -> np.ndarray:
        """Samples ``begin`` to ``begin + samples`` of the track, zeros where it has none."""
        while not self._ended and self._first + len(self._held) < begin + samples:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                self._held = np.concatenate([self._held, piece])
        spent = begin - 2 * self._samples - self._first
        if spent > 0:
            self._held, self._first = self._held[spent:].copy(), self._first + min(spent, len(self._held))
        found = np.zeros(samples, dtype=np.float32)
        start = max(begin, self._first)
        known = self._held[start - self._first : begin + samples - self._first]
        found[start - begin : start - begin + len(known)] = known
        return found


class AST:
    """The Audio Spectrogram Transformer trained on AudioSet, as Hugging Face transformers has it.

    Args:
        folder: With ``config.json`` and weights; a ``preprocessor_config.json`` counts where there is one.
        device: Where it runs.

    Raises:
        AvsegError: no such model in the folder, or classes that AudioSet does not have.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu"):
        from transformers import ASTFeatureExtractor, ASTForAudioClassification

        self.device = torch.device(device)
        self.model = of_transformers(ASTForAudioClassification, folder).to(self.device).eval()
        file = Path(folder) / "preprocessor_config.json"
        values = read_json(file, "download it again") if file.is_file() else {}
        known = ("num_mel_bins", "max_length", "mean", "std", "do_normalize")
        self._features = ASTFeatureExtractor(**{key: values[key] for key in known if key in values})
        self.mids: Sequence[str] = mids_of(self.model.config.id2label)

    @torch.inference_mode()
    def tag(self, windows: np.ndarray) -> np.ndarray:
        """See `Tagger.tag`; each window is padded to what the model takes."""
        # A channel of pure zeros is silence: the mean that features lose would make numbers of rounding.
        values = self._features(list(windows), sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_values"]
        logits = self.model(values.to(self.device)).logits
        found: np.ndarray = logits.float().sigmoid().cpu().numpy()
        return found


def mids_of(labels: Mapping[int, str]) -> list[str]:
    """AudioSet's identifiers of a model's labels by name.

    Raises:
        AvsegError: AudioSet has no class of that name; the first few are named.
    """
    by_name = {sound.name: mid for mid, sound in read_nouns().items()}
    names = [labels[index] for index in sorted(labels)]
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise AvsegError(
            f"The tagger's labels are not AudioSet's: {', '.join(map(repr, unknown[:3]))}. Give a model that was "
            "trained on AudioSet."
        )
    return [by_name[name] for name in names]


def of_transformers(kind: Any, folder: str | Path) -> Any:
    """What ``kind.from_pretrained`` makes of a local folder; nothing is fetched and no code of the folder is run.

    Raises:
        AvsegError: the folder is not there or holds something else.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise AvsegError(f"{folder} holds no model of transformers (config.json is missing): download it again.")
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of files that are broken or of another model, nearly any
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise AvsegError(
            f"{folder} is no {kind.__name__} that can be loaded ({reason:.200}): download it again."
        ) from None
