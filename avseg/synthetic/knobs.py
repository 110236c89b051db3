"""Everything that can be turned in the generated benchmark, and the editions that are frozen settings of it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avseg.errors import AvsegError
from avseg.synthetic.objects import ObjectSet

VERSION: dict[str, str] = {"small": "1.0 (2026-11-23)", "full": "1.0-draft (2026-11-23)"}
"""The version of each edition. Any change of a default, or of what is drawn for it, is a new, dated version."""


def _pair(name: str, value: Any, kind: type) -> tuple[Any, Any]:
    try:
        low, high = (kind(v) for v in (value if isinstance(value, (list, tuple)) else (value, value)))
    except (TypeError, ValueError) as error:
        raise AvsegError(f"{name} is a range: give two numbers, not {value!r}") from error
    if low > high:
        raise AvsegError(f"{name} is a range from low to high, not {value!r}")
    return low, high


@dataclass(frozen=True)
class Knobs:
    """The settings of the generated benchmark; the defaults are the edition ``full``.

    Shares are in 0..1, pairs are closed ranges that a value is drawn from. `docs/benchmark.md` lists them all.
    """

    edition: str = "full"
    # the file
    size: int = 224  # pixels, both sides
    fps: int = 25
    seconds: int = 5
    sample_rate: int = 16000
    crf: int = 24  # x264's quality: compression is part of the picture
    # who is there
    categories: int = 0  # the first so many of the object set's order of preference; 0: all
    objects_per_scene: tuple[int, int] = (2, 4)
    area: tuple[float, float] = (0.03, 0.25)  # of the picture, each object, unoccluded
    occlusion: float = 0.4  # scenes in which two objects are made to overlap
    visits: int = 1  # videos of one place: the same objects and surroundings, another of them sounding
    clutter: tuple[int, int] = (2, 6)  # silent pictures that belong to no category
    clutter_area: tuple[float, float] = (0.01, 0.08)
    unseen_pictures: float = 0.2  # pictures held out of training
    unseen_objects: float = 0.1  # categories held out of training
    # who sounds (MS3; in S4 one object sounds throughout)
    sounding: tuple[int, int] = (1, 3)
    silent_seconds: float = 0.15
    # motion
    motion_sounding: float = 0.8  # P(move | sounding)
    motion_silent: float = 0.45  # P(move | silent); at 0.4 motion alone chose too well
    motion_clutter: float = 0.1
    motion_amplitude: tuple[float, float] = (0.25, 1.25)  # of each mover, even in logarithm
    loudness_correlation: float = 0.5  # of a mover's amplitude with the loudness that it follows
    # camera and appearance
    camera: float = 1.0  # strength of drift, jitter and parallax
    camera_still: float = 0.25  # scenes without any camera motion
    appearance: float = 1.0  # strength of the change of pose, size, light, colour over the seconds
    appearance_rho: float = 0.5  # AR(1) coefficient from one second to the next
    # picture
    feather: tuple[float, float] = (0.4, 1.0)  # softness of a cut-out's edge, pixels at 224
    colour_match: tuple[float, float] = (0.1, 0.4)  # share of the way to the background's local colour
    shadow: float = 0.35
    blur: tuple[float, float] = (0.0, 0.8)  # pixels at 224
    grain: tuple[float, float] = (2.0, 7.0)  # grey levels
    # sound
    snr_db: tuple[float, float] = (5.0, 20.0)  # source over ambience
    loudness_db: float = 6.0  # plus or minus, around one RMS
    pitch: float = 2.0  # semitones, plus or minus
    equaliser_db: float = 6.0
    reverb: float = 0.3  # largest share of the reverberant sound
    audible_db: float = -40.0  # a sounding second lies above this, in dB of full scale
    split_seconds: float = 2.0  # recordings at least this long give train and test disjoint stretches

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, tuple):
                object.__setattr__(self, field.name, _pair(field.name, value, type(field.default[0])))
            elif isinstance(field.default, float) and isinstance(value, int):
                object.__setattr__(self, field.name, float(value))
        shares = (
            "occlusion",
            "unseen_pictures",
            "unseen_objects",
            "silent_seconds",
            "motion_sounding",
            "motion_silent",
            "motion_clutter",
            "loudness_correlation",
            "camera_still",
            "shadow",
            "reverb",
        )
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise AvsegError(f"{name} is a share: give a number from 0 to 1, not {getattr(self, name)}")
        if not -1 < self.appearance_rho < 1:
            raise AvsegError(f"appearance_rho must lie between -1 and 1, not {self.appearance_rho}")
        if self.size < 32 or self.size % 2:
            raise AvsegError(f"size must be an even number of pixels, 32 or more, not {self.size}")
        if self.visits < 1:
            raise AvsegError(f"visits counts the videos of a place: give 1 or more, not {self.visits}")
        if self.objects_per_scene[0] < 1 or self.sounding[0] < 1:
            raise AvsegError("objects_per_scene and sounding count from 1")
        if not 0 < self.area[0] <= self.area[1] <= 0.8:
            raise AvsegError(f"area must be a range within 0..0.8 of the picture, not {self.area}")

    @property
    def frames(self) -> int:
        """Frames of a video."""
        return self.fps * self.seconds

    def mask_frames(self) -> list[int]:
        """The frame shown at (k - 1) + 15/16 seconds, k = 1..seconds, which mask k belongs to."""
        return [int((k + 15 / 16) * self.fps) for k in range(self.seconds)]


EDITIONS: dict[str, Knobs] = {
    "small": Knobs(
        edition="small",
        size=128,
        categories=4,
        objects_per_scene=(2, 2),
        area=(0.1, 0.35),
        # With one video a place, 120 labelled frames are learnt by heart, and a model that does so need not listen.
        visits=2,
        clutter=(0, 2),
        unseen_objects=0.0,
        motion_silent=0.5,
        camera=0.7,
        snr_db=(10.0, 20.0),
        grain=(1.0, 4.0),
        blur=(0.0, 0.5),
        pitch=1.0,
        equaliser_db=3.0,
        reverb=0.15,
    ),
    "full": Knobs(),
}


def make_knobs(edition: str = "full", **overrides: Any) -> Knobs:
    """An edition with some knobs turned.

    Args:
        edition: a key of `EDITIONS`.
        overrides: fields of `Knobs`; None leaves the edition's value.

    Raises:
        AvsegError: the edition or a knob does not exist, or a value is out of its range.
    """
    if edition not in EDITIONS:
        raise AvsegError(f"there is no edition '{edition}': choose {' or '.join(EDITIONS)}")
    known = {field.name for field in dataclasses.fields(Knobs)} - {"edition"}
    for name in overrides:
        if name not in known:
            raise AvsegError(f"there is no knob '{name}': docs/benchmark.md lists them")
    return dataclasses.replace(EDITIONS[edition], **{k: v for k, v in overrides.items() if v is not None})


def benchmark_hash(
    knobs: Knobs, objects: ObjectSet, subset: str, seed: int, counts: Mapping[str, int], backgrounds: str = ""
) -> str:
    """A short SHA-256 over all that decides what the benchmark is: version, knobs, seed, counts, objects.

    Args:
        knobs: the settings.
        objects: the object set; its content counts, not its place.
        subset: ``s4`` or ``ms3``.
        seed: the benchmark's seed.
        counts: videos in each split.
        backgrounds: digest of the photographs used as backgrounds, empty for procedural ones.
    """
    facts = {
        "version": VERSION[knobs.edition],
        "knobs": dataclasses.asdict(knobs),
        "objects": objects.digest,
        "subset": subset,
        "seed": seed,
        "counts": dict(counts),
        "backgrounds": backgrounds,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
