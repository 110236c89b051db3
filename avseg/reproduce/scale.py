"""At what size a table is run: which configurations, which encoders, which data where none are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.reading import read_yaml
from avseg.reproduce.definition import FOLDER, Change


@dataclass(frozen=True)
class Scale:
    """A recipe that all cells of a table share.

    Attributes:
        name: ``small`` or ``paper``.
        title: In words.
        config: Path of the configurations, with ``{subset}``, ``{base}`` and ``{encoder}`` in it.
        encoders: The image encoders; the first is the default.
        protocol: The one that tables show.
        data: What is generated for a subset where no data are given: arguments of
            `avseg.synthetic.write_benchmark`.
        subsets: What changes for a subset.
        threads: PyTorch's threads, so that a rerun adds in the same order; None leaves them.
        watch: Epochs between two looks at the pseudo masks.
    """

    name: str
    title: str
    config: str
    encoders: tuple[str, ...]
    protocol: str
    data: Mapping[str, Mapping[str, Any]]
    subsets: Mapping[str, Change] = field(default_factory=dict)
    threads: int | None = None
    watch: int = 1

    def has(self, encoder: str) -> bool:
        """Whether there is any configuration with this image encoder, one that somebody added included."""
        if "{encoder}" not in self.config:
            return encoder in self.encoders
        any_of = Path(normpath(FOLDER / self.config.format(subset="*", base="*", encoder=encoder)))
        return encoder in self.encoders or any(any_of.parent.glob(any_of.name))

    def config_file(self, subset: str, base: str, encoder: str) -> Path:
        """The configuration of a base model.

        Raises:
            AvsegError: this scale has none.
        """
        path = Path(normpath(FOLDER / self.config.format(subset=subset, base=base, encoder=encoder)))
        if not path.is_file():
            raise AvsegError(
                f"The scale {self.name} has no configuration of {base} with {encoder} for {subset}: write {path}."
            )
        return path


def scale_names() -> list[str]:
    """The scales that can be asked for."""
    folder = FOLDER / "scales"
    return sorted(p.stem for p in folder.glob("*.yaml") if "_" not in p.stem)


def read_scale(name: str) -> Scale:
    """Read ``experiments/scales/NAME.yaml``.

    Raises:
        AvsegError: there is no such scale, or its file is faulty.
    """
    path = FOLDER / "scales" / f"{name}.yaml"
    if name not in scale_names():
        raise AvsegError(f"There is no scale '{name}': choose {' or '.join(scale_names())}.")
    try:
        values = read_yaml(path)
        subsets = {subset: Change(**change) for subset, change in values.pop("subsets", {}).items()}
        return Scale(name=name, encoders=tuple(values.pop("encoders")), subsets=subsets, **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise AvsegError(f"{path} is no scale ({error}): correct it.") from error
