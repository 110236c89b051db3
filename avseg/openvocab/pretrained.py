"""A segmenter of any kind by name, and which one is taken where none was named."""

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.inference.base import Segmenter, check_threshold, choose_device
from avseg.inference.output_paths import weights_of
from avseg.inference.segmenter import AVSegmenter, shipped_model
from avseg.models.catalogue import GROUPS, folder_of, home, resolve
from avseg.models.download import describe, missing
from avseg.models.loading import check_source, read_config
from avseg.openvocab.segmenter import NAME, THRESHOLD, OpenVocabulary, downloaded_folders, fingerprint

_ASKED = "asked"  # a file that says that the question was answered with no


def load_segmenter(source: str | Path | None = None, device: str = "auto", threshold: float | None = None) -> Segmenter:
    """A segmenter, ready to run.

    Args:
        source: What exists as a path first, then a name of the catalogue, such as ``open-vocabulary``, then a
            repository of the Hugging Face hub; None is the model that comes with avseg.
        device: See `Segmenter`.
        threshold: See `Segmenter`; None takes its own.

    Raises:
        AvsegError: nothing there that can segment, or not downloaded.
    """
    if is_open_vocabulary(source):
        choose_device(device)
        check_threshold(threshold)
        return OpenVocabulary.downloaded(device, threshold)
    return AVSegmenter.from_pretrained(source, device, threshold)


def is_open_vocabulary(source: str | Path | None) -> bool:
    """Whether this names the open-vocabulary segmenter and no folder or file of that name."""
    return source is not None and str(source) == NAME and not Path(source).exists()


def check_segmenter(source: str | Path) -> None:
    """Whether `load_segmenter` would find its files, told without reading any.

    Raises:
        AvsegError: it would not.
    """
    if is_open_vocabulary(source):
        downloaded_folders()
    else:
        check_source(source)


def choose_default(ask: Callable[[str], bool] | None, fetch: Callable[[], object]) -> str | None:
    """Which segmenter is taken where none was named: open vocabulary where it is here, else avseg's own.

    Args:
        ask: Puts one question to a person, whose answer is kept; None where nobody is there to answer.
        fetch: Downloads it once the answer was yes.

    Returns:
        What `load_segmenter` takes.
    """
    if all(folder_of(name) for name in GROUPS[NAME]):
        return NAME
    asked = home() / _ASKED
    if ask is None or asked.is_file():
        return None
    if ask(f"For real videos avseg can name what it hears and find it. That needs {describe(missing([NAME]))}"):
        fetch()
        return NAME
    with suppress(OSError):
        asked.parent.mkdir(parents=True, exist_ok=True)
        asked.write_text("Downloading open-vocabulary was answered with no: `avseg models download` still does it.\n")
    return None


class Pretrained:
    """A trained model that is loaded once it is needed.

    Args:
        source: See `load_segmenter`, as are ``device`` and ``threshold``.

    Attributes:
        error: Why it can't be had, once that has turned out.
    """

    def __init__(self, source: str | Path | None = None, device: str = "auto", threshold: float | None = None):
        self._source, self._device, self._threshold = source, device, threshold
        self.error: AvsegError | None = None

    def __call__(self) -> Segmenter:
        """The model.

        Raises:
            AvsegError: see `load_segmenter`.
        """
        return self._segmenter

    @cached_property
    def _segmenter(self) -> Segmenter:
        try:
            return load_segmenter(self._source, self._device, self._threshold)
        except AvsegError as error:
            self.error = error
            raise

    @cached_property
    def known(self) -> dict[str, Any]:
        """Of ``threshold``, ``model`` and ``weights`` (what tells these from others) all that files tell unloaded."""
        if str(self._source) == NAME:
            return {"model": NAME, "weights": fingerprint(), "threshold": self._threshold or THRESHOLD}
        path = shipped_model() if self._source is None else Path(resolve(self._source))
        found: dict[str, Any] = {"model": "shipped" if self._source is None else str(self._source)}
        found["weights"] = weights_of(path)
        threshold = self._threshold
        if threshold is None and path is not None and (path / "config.json").is_file():
            with suppress(AvsegError):
                threshold = read_config(path / "config.json").threshold
        return found if threshold is None else found | {"threshold": threshold}
