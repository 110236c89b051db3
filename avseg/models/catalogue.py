"""Published models by name: what can be had, where from, how large, under which licence, and where it lies once it is.

Nothing is fetched here; see `avseg.models.fetching` and `avseg.models.download`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avseg.errors import AvsegError

Kind = Literal["avs", "encoder", "transformers"]
OPEN_VOCABULARY = "open-vocabulary"
NOT_STATED = "not stated"
SOURCE = "source.json"
"""The file that makes a downloaded folder complete; it says what was fetched."""


@dataclass(frozen=True)
class Published:
    """A model that somebody published.

    Attributes:
        name: What it is called here.
        what: What it is, in words.
        kind: ``avs`` and ``encoder`` are converted; ``transformers`` stays as it is.
        holds: What has to be in it: a kind that `avseg.models.convert` recognises, or a ``model_type`` of transformers.
        source: ``drive:ID`` of Google Drive, ``hub:OWNER/NAME`` of the Hugging Face hub, or an address.
        licence: As its authors state it.
        megabytes: About how large; None where nobody says.
        data: What it was trained on.
        encoder: Its image encoder, as a configuration names it.
        size: Pixels of the images that it looks at; None where it has no say.
        scores: Its authors' mIoU and F-score, as printed.
        revision: Of the hub. Without one it is the newest when it is fetched first, and that one from then on.
        files: Of a repository, which are fetched beside a transformers model's configuration and weights; patterns.
        sha256: Of an address's file, or the beginning of it.
        vggish: Whether a conversion needs VGGish, which is fetched as well.
    """

    name: str
    what: str
    kind: Kind
    source: str
    licence: str
    megabytes: int | None = None
    holds: str = ""
    data: str = ""
    encoder: str = ""
    size: int | None = None
    scores: str = ""
    revision: str = ""
    files: tuple[str, ...] = ()
    sha256: str = ""
    vggish: bool = False

    @property
    def address(self) -> str:
        """Where a person finds it."""
        kind, _, rest = self.source.partition(":")
        if kind == "drive":
            return f"https://drive.google.com/file/d/{rest}"
        return f"https://huggingface.co/{rest}" if kind == "hub" else self.source

    @property
    def wanted(self) -> str:
        """Which files a person has to fetch there, in words."""
        if self.kind != "transformers":
            return " or ".join(self.files) or "the file"
        return ", ".join((CONFIGURATION, WEIGHTS[0], *self.files))


CONFIGURATION = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Of a transformers model, the first that its repository has."""

_PREPARATION = "preprocessor_config.json"
_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _avsegformer(subset: str, encoder: str, drive: str, scores: str) -> Published:
    short, spelled = {"resnet50": ("resnet50", "ResNet-50"), "pvt_v2_b5": ("pvt", "PVT-v2-b5")}[encoder]
    return Published(
        f"avsegformer-{subset.lower()}-{short}",
        f"AVSegFormer (AAAI 2024) with {spelled}",
        "avs",
        f"drive:{drive}",
        NOT_STATED,
        holds="avsegformer",
        data=f"AVSBench {subset}",
        encoder=encoder,
        size=224,
        scores=scores,
    )


def _transformers(
    name: str, what: str, repository: str, licence: str, megabytes: int, holds: str, data: str,
    size: int | None = None, files: tuple[str, ...] = (),
) -> Published:  # fmt: skip
    return Published(
        name, what, "transformers", f"hub:{repository}", licence, megabytes, holds, data, size=size,
        files=(_PREPARATION, *files),
    )  # fmt: skip


CATALOGUE: tuple[Published, ...] = (
    _avsegformer("S4", "resnet50", "1nvIfR-1XZ_BgP8ZSUDuAsGhAwDJRxgC3", "76.45 / .859"),
    _avsegformer("S4", "pvt_v2_b5", "1ZJ55jxoHP1ur-hLBkGcha8sjptE_shfw", "82.06 / .899"),
    _avsegformer("MS3", "resnet50", "1MRk5gQnUtiWwYDpPfB20fO07SVLhfuIV", "49.53 / .628"),
    _avsegformer("MS3", "pvt_v2_b5", "1iKTxWtehAgCkNVty-4H1zVyAOaNxipHv", "58.36 / .693"),
    Published(
        "ecmvae",
        "ECMVAE (ICCV 2023), each checkpoint of its repository as ecmvae/NAME",
        "avs",
        "hub:OpenNLPLab/MMVAE-AVS",
        NOT_STATED,
        holds="ecmvae",
        data="AVSBench S4 or MS3, as the files' names may tell",
        size=224,
        scores="81.74 / .901 (S4, PVT-v2-b5)",
        files=("*.pth", "*.pt", "*.bin", "*.safetensors"),
        vggish=True,
    ),
    Published(
        "vggish",
        "VGGish: what TPAVI, ECMVAE and CATR hear with",
        "encoder",
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "Apache-2.0",
        288,
        holds="vggish",
        data="AudioSet",
        sha256="10086976",
    ),
    Published(
        "resnet18",
        "ResNet-18: what sees optical flow",
        "encoder",
        "https://download.pytorch.org/models/resnet18-5c106cde.pth",
        "BSD-3-Clause",
        47,
        holds="resnet18",
        data="ImageNet",
        sha256="5c106cde",
    ),
    _transformers(
        "resnet50", "ResNet-50", "microsoft/resnet-50", "Apache-2.0", 102, "resnet", "ImageNet", 224
    ),
    _transformers("pvt_v2_b5", "PVT-v2-b5", "OpenGVLab/pvt_v2_b5", "Apache-2.0", 328, "pvt_v2", "ImageNet", 224),
    _transformers(
        "sam_vit_b", "Segment Anything, ViT-B: where SAMA-AVS starts", "facebook/sam-vit-base", "Apache-2.0", 375,
        "sam", "SA-1B", 1024,
    ),
    _transformers(
        "sam_vit_l", "Segment Anything, ViT-L: where SAMA-AVS starts", "facebook/sam-vit-large", "Apache-2.0", 1250,
        "sam", "SA-1B", 1024,
    ),
    _transformers(
        "sam_vit_h", "Segment Anything, ViT-H: where SAMA-AVS starts", "facebook/sam-vit-huge", "Apache-2.0", 2564,
        "sam", "SA-1B", 1024,
    ),
    _transformers(
        "ast", "Audio Spectrogram Transformer: hears 527 classes", "MIT/ast-finetuned-audioset-10-10-0.4593",
        "BSD-3-Clause", 346, "audio-spectrogram-transformer", "AudioSet",
    ),
    _transformers(
        "clipseg", "CLIPSeg: marks what a text names", "CIDAS/clipseg-rd64-refined", "Apache-2.0", 603,
        "clipseg", "PhraseCut", 352, _TOKENIZER,
    ),
    _transformers(
        "rf-detr-seg-nano", "RF-DETR with masks: marks instances of 80 classes", "Roboflow/rf-detr-seg-nano",
        "Apache-2.0", 135, "rf_detr", "COCO",
    ),
)  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {OPEN_VOCABULARY: ("ast", "clipseg", "rf-detr-seg-nano")}
"""Names that stand for several."""

_BY_NAME = {entry.name: entry for entry in CATALOGUE}


def home() -> Path:
    """The folder below which avseg keeps what was downloaded: ``AVSEG_HOME``, else ``avseg`` in the user's cache."""
    given = os.environ.get("AVSEG_HOME")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avseg"


def named(name: str) -> list[Published]:
    """What a name stands for.

    Raises:
        AvsegError: the catalogue has no such name.
    """
    names = GROUPS.get(name, (name,))
    if names[0] not in _BY_NAME:
        raise AvsegError(
            f"There is no published model '{name}': `avseg models` lists {', '.join([*GROUPS, *_BY_NAME])}."
        )
    return [_BY_NAME[each] for each in names]


def is_named(name: str) -> bool:
    """Whether the catalogue has the name, or the name of one of an entry's several models (``ecmvae/NAME``)."""
    first = name.partition("/")[0]
    return name in GROUPS or name in _BY_NAME or (first in _BY_NAME and bool(_BY_NAME[first].files) and "/" in name)


def folder_of(name: str) -> Path | None:
    """Where a downloaded model lies; None where it was not downloaded, or not to its end."""
    folder = home() / "models" / name
    whole = folder if (folder / SOURCE).is_file() else folder.parent
    return folder if (whole / SOURCE).is_file() and (folder / "config.json").is_file() else None


def models_in(name: str) -> Iterator[str]:
    """The models that a downloaded entry gave, as ``--checkpoint`` names them."""
    folder = home() / "models" / name
    if folder_of(name):
        yield name
    elif (folder / SOURCE).is_file():
        yield from (f"{name}/{each.parent.name}" for each in sorted(folder.glob("*/config.json")))


def resolve(source: str | Path) -> str | Path:
    """A downloaded model's folder for its name; anything that exists, or that the catalogue doesn't name, as it is.

    Raises:
        AvsegError: a model of the catalogue that was not downloaded.
    """
    text = str(source)
    if Path(source).exists() or not is_named(text):
        return source
    folder = folder_of(text)
    if folder is not None:
        return folder
    first = text if text in _BY_NAME else text.partition("/")[0]
    several = list(models_in(first)) if first in _BY_NAME else []
    if several:
        raise AvsegError(f"{text} is several models: give one of {', '.join(several)}.")
    raise AvsegError(f"{text} was not downloaded: `avseg models download {first}` fetches it.")
