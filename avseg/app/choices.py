"""Which models the page offers: the one that comes with avseg, those trained here, and folders that are typed in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avseg.errors import AvsegError
from avseg.inference import shipped_model
from avseg.models.catalogue import CATALOGUE, GROUPS, OPEN_VOCABULARY, folder_of, models_in
from avseg.models.trained import FoundModel, find_models

_LONGEST = 4096  # letters of a path
_MOST = 50  # models that a list can still be read with

SHIPPED = (
    "The model that comes with avseg was trained on **generated scenes**: cut-outs that move before backgrounds, each "
    "with its sound. It knows these, not the world; on film it may mark nothing, or the wrong thing."
)
REAL = (
    "For real videos, fetch models that know the world (`avseg models download open-vocabulary`), or take weights that "
    "learned from real ones: `avseg convert` makes a model of a checkpoint that the "
    "papers' authors published, `avseg train` trains one. Type the folder of either above."
)
NONE = "No model comes with this version, and none was found below `{runs}`: `avseg demo` trains one in minutes."


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen.

    Attributes:
        label: What the page calls it.
        path: A folder with ``config.json`` and ``model.safetensors``, or what a person named at the start.
        shipped: Whether it is the one that comes with avseg.
    """

    label: str
    path: Path
    shipped: bool = False


OPEN = Choice("any real video: names what it hears, and finds it", Path(OPEN_VOCABULARY))
"""The segmenter that `avseg models download` fetches."""


def choices(runs: str | Path = "runs", named: str | Path | None = None) -> list[Choice]:
    """Every model that the page offers, the default first. Downloaded ones are named as `avseg models` names them.

    Args:
        runs: The folder whose runs are listed, newest first.
        named: A model that was asked for: it comes before all others.
    """
    found = [] if named is None else [Choice(str(named), Path(named))]
    if str(named) != OPEN_VOCABULARY and all(folder_of(name) for name in GROUPS[OPEN_VOCABULARY]):
        found.append(OPEN)
    published = [name for entry in CATALOGUE if entry.kind == "avs" for name in models_in(entry.name)]
    found += [Choice(f"{name} (downloaded)", Path(name)) for name in published if name != str(named)]
    shipped = shipped_model()
    if shipped is not None:
        found.append(Choice("avseg's own small model (generated scenes)", shipped, shipped=True))
    known = {choice.path.resolve() for choice in found}
    trained = sorted(find_models(runs), key=lambda model: -(model.folder / "model.safetensors").stat().st_mtime)
    others = [model for model in trained if model.folder.resolve() not in known]
    return found + [Choice(_label(model), model.folder) for model in others[:_MOST]]


def chosen(value: str | None, offered: Sequence[Choice], typed: bool = True) -> Path:
    """The model that a person means.

    Args:
        value: A choice's path, or what was typed.
        offered: The choices.
        typed: Whether other folders may be named. Nobody but this machine's own people should look around on its disk.

    Raises:
        AvsegError: none, or no folder of a model.
    """
    text = value.strip() if isinstance(value, str) else ""
    if len(text) > _LONGEST:
        raise AvsegError("That is too long for the name of a folder: choose a model of the list.")
    if not text:
        raise AvsegError("No model is chosen: choose one, or type the folder of one, such as runs/demo/ufe.")
    for choice in offered:
        if text == str(choice.path):
            return choice.path
    if not typed:
        raise AvsegError(f"'{text}' is not one of the models offered here: choose one of the list.")
    try:
        folder = Path(text).expanduser()
        there = folder.exists()
    except (OSError, RuntimeError, ValueError):  # no such person's home, or nothing that a name may be
        there = False
    if not there:
        raise AvsegError(f"{text} does not exist: type the folder of a trained model, such as runs/demo/ufe.")
    # A name that is no folder could mean a repository on a hub, which the page must not ask.
    if not (folder / "config.json").is_file():
        raise AvsegError(
            f"{text} is not the folder of a trained model (config.json and model.safetensors): type another."
        )
    return folder


def explained(value: str | None, offered: Sequence[Choice], runs: str | Path = "runs") -> str:
    """What a person should know about the model that is chosen, in Markdown."""
    if not offered:
        return f"{NONE.format(runs=runs)} {REAL}"
    shipped = any(choice.shipped and str(choice.path) == value for choice in offered)
    return f"{SHIPPED} {REAL}" if shipped else ""


def _label(model: FoundModel) -> str:
    words = [model.base, *([f"UFE: {model.ufe}"] if model.ufe else [])]
    if model.miou is not None:
        words.append(f"val mIoU {100 * model.miou:.1f}")
    return f"{model.folder} ({', '.join(words)})"
