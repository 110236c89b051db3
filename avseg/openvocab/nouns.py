"""What a camera can see of AudioSet's 527 classes: nouns to prompt a segmenter with, and COCO's classes.

``nouns.csv`` was written by hand, row by row, after the ontology's descriptions. Its rules:

- A noun names what **emits** the sound, as one would mark it in the picture: the dog that barks, the bell (or the tower
  that it hangs in) and not the church. For contacts such as chopping these are the things that touch.
- A class has no nouns where its sound has no source that a camera sees (silence, wind, echo, heartbeats), where the
  class names a kind of recording or place, where it is a genre or mood of music, or where the ontology itself says that
  the sound does not tell its source (bang, hum, beep). Vocal music and a cappella are the exceptions among genres, as
  they name who sounds.
- Words with a second, more photographed meaning (cricket, siren) are told apart: cricket insect, warning siren.
- COCO's classes are those of which an object can be the emitter; ``mouse`` and ``keyboard`` are a computer's there.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

MOST_NOUNS = 4


@dataclass(frozen=True)
class Sound:
    """A class of AudioSet.

    Attributes:
        mid: AudioSet's identifier, such as ``/m/05tny_``.
        name: AudioSet's name in English, such as ``Bark``.
        nouns: at most `MOST_NOUNS` visible things in lower case that emit the sound, best first; empty where a camera
            sees none.
        coco: names of the COCO classes that cover it; empty where none does.
    """

    mid: str
    name: str
    nouns: tuple[str, ...]
    coco: tuple[str, ...]


def read_nouns() -> dict[str, Sound]:
    """The 527 classes of AudioSet by mid, in the order of taggers that were trained on all of them.

    The file is read once; the dictionary is the caller's own.
    """
    return {sound.mid: sound for sound in _sounds()}


@cache
def _sounds() -> tuple[Sound, ...]:
    text = resources.files("avseg.openvocab").joinpath("nouns.csv").read_text(encoding="utf-8")
    return tuple(
        Sound(row["mid"], row["name"], _split(row["nouns"]), _split(row["coco"]))
        for row in csv.DictReader(text.splitlines())
    )


def _split(cell: str) -> tuple[str, ...]:
    return tuple(cell.split(";")) if cell else ()
