"""Which trained models lie in a folder, told from their files without loading any."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avseg.config import model_config_from_dict
from avseg.errors import AvsegError
from avseg.reading import CONFIG_BYTES, read_json, read_yaml

_DEPTH = 4  # folders below the one that is searched


@dataclass(frozen=True)
class FoundModel:
    """A folder that `avseg.models.load` takes.

    Attributes:
        folder: Where it is.
        base: Base model.
        image_encoder: As its configuration names it.
        neighbouring: Whether it has the flow branch (NF).
        distant: Whether it learned from distant frames (DF), where its run says so.
        image_size: Side of the images that it sees, in pixels.
        megabytes: Of its weights.
        miou: Mean Jaccard on its run's validation split, in [0, 1], as last measured; None where no run says so.
    """

    folder: Path
    base: str
    image_encoder: str
    neighbouring: bool
    distant: bool
    image_size: int
    megabytes: float
    miou: float | None

    @property
    def ufe(self) -> str:
        """Which parts of UFE it was made with: ``NF + DF``, one of them, or none."""
        return " + ".join(name for name, there in (("NF", self.neighbouring), ("DF", self.distant)) if there)


def find_models(folder: str | Path) -> list[FoundModel]:
    """The models in a folder and below, by path; folders that hold something else are passed over."""
    found = (read_model(path) for path in _folders(Path(folder), _DEPTH))
    return sorted((model for model in found if model is not None), key=lambda model: model.folder)


def read_model(folder: Path) -> FoundModel | None:
    """What a folder's files say of the model in it; None where there is none."""
    config, weights = _json(folder / "config.json"), folder / "model.safetensors"
    if config.pop("format_version", None) is None or not weights.is_file():
        return None
    try:
        described = model_config_from_dict(config)
    except AvsegError:
        return None
    # The best weights of a run lie in a folder of the run's.
    run = folder.parent if folder.name == "best" else folder
    last = _json(run / "run.json").get("validation") if run == folder else None
    miou = last.get("val/miou") if isinstance(last, dict) else None
    return FoundModel(
        folder=folder,
        base=described.base,
        image_encoder=described.image_encoder,
        neighbouring=described.neighbouring_frames,
        distant=_distant(run / "config.yaml"),
        image_size=described.inputs.image_size,
        megabytes=weights.stat().st_size / 1e6,
        miou=float(miou) if isinstance(miou, (int, float)) and 0 <= miou <= 1 else None,
    )


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    yield folder
    if depth:
        with os.scandir(folder) as entries:
            inside = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        for path in inside:
            yield from _folders(path, depth - 1)


def _json(file: Path) -> dict[str, Any]:
    try:
        values = read_json(file, "save it again", CONFIG_BYTES)
    except AvsegError:
        return {}
    return values if isinstance(values, dict) else {}


def _distant(file: Path) -> bool:
    try:
        return bool(read_yaml(file)["ufe"]["distant_frames"])
    except (AvsegError, KeyError, TypeError):
        return False
