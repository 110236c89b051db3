"""Two short clips to try the page with, generated where they are used: no video comes with avseg."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from avseg import __version__
from avseg.files import scratch, whole_file

SIZE = 320  # pixels of both sides
EDITION = "small"  # whose scenes the model that comes with avseg has learned from; with these seeds it saw none


@dataclass(frozen=True)
class Sample:
    """A generated clip of five seconds.

    Attributes:
        name: Of its file.
        title: What the page calls it.
        subset: ``s4``: one object sounds throughout; ``ms3``: objects take turns.
        seed: Of the scene. Chosen by what is in it, never by what a model says about it.
        knobs: Settings of the generated benchmark.
    """

    name: str
    title: str
    subset: str
    seed: int
    knobs: tuple[tuple[str, Any], ...] = ()


SAMPLES = (
    Sample("one", "Sample: one sounds", "s4", 11),
    Sample(
        "turns",
        "Sample: taking turns",
        "ms3",
        3,
        (("silent_seconds", 0.4),),
    ),
)

_LOCK = Lock()


def sample_file(sample: Sample, folder: Path | None = None) -> Path:
    """The clip's mp4, generated where it isn't there yet: some seconds, without a network.

    Args:
        sample: Which.
        folder: Where clips are kept; None for ``avseg/samples`` in the user's cache, or a folder of the system's
            temporary ones where that can't be written.

    Raises:
        OSError: the folder can't be written.
    """
    from avseg.synthetic import benchmark_hash, load_objects, make_knobs, read_scenes, write_benchmark
    from avseg.synthetic.write import scene_frames, video_file

    folder = samples_folder() if folder is None else folder
    knobs = make_knobs(EDITION, size=SIZE, **dict(sample.knobs))
    counts = {"train": 0, "val": 0, "test": 1}
    made_of = benchmark_hash(knobs, load_objects(None, knobs.categories), sample.subset, sample.seed, counts)
    path = folder / f"{__version__}-{made_of}" / f"{sample.name}.mp4"
    with _LOCK:  # two people may ask at once
        if path.is_file():
            return path
        with scratch("sample") as folder_of_one:
            settings: dict[str, Any] = {"videos": 1, "val": 0, "test": 1, "size": SIZE, "workers": 1}
            settings["edition"] = EDITION
            write_benchmark(folder_of_one, sample.subset, seed=sample.seed, **settings, **dict(sample.knobs))
            record = read_scenes(folder_of_one, sample.subset)[0]
            with whole_file(path) as temporary:
                shutil.copyfile(video_file(scene_frames(folder_of_one, record)[0]), temporary)
    return path


def samples_folder() -> Path:
    """Where clips are kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "avseg" / "samples"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        folder = Path(tempfile.gettempdir()) / f"avseg-samples-{os.getuid() if hasattr(os, 'getuid') else 'here'}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder
