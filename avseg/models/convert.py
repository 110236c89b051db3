"""Published checkpoints, written as folders that avseg loads: a model, or an encoder to start from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from avseg.config import ModelConfig
from avseg.errors import AvsegError
from avseg.files import check_folder, clear, whole_folder, write_json
from avseg.models.base import FORMAT_VERSION, build
from avseg.models.published import (
    Kind,
    published_avsegformer,
    published_ecmvae,
    published_encoder,
    published_tpavi,
    published_vggish,
    recognise,
)
from avseg.models.published_catr import published_catr
from avseg.models.published_sama import published_sama
from avseg.models.weights import VGGISH_URL, read_state

_FILES = {"config.json", "model.safetensors"}
_WITHOUT_SOUND = {  # base models whose checkpoints hold no audio encoder
    "tpavi": ("a TPAVI", published_tpavi),
    "ecmvae": ("an ECMVAE", published_ecmvae),
    "catr": ("a CATR", published_catr),
}
_WITH_SOUND = {"avsegformer": published_avsegformer, "sama": published_sama}


@dataclass(frozen=True)
class Converted:
    """What a conversion left.

    Attributes:
        folder: Holds ``config.json`` and ``model.safetensors``.
        kind: What the file was recognised as.
        config: The model's configuration; None of an encoder alone.
        notes: What a person should know, one sentence each.
    """

    folder: Path
    kind: Kind
    config: ModelConfig | None
    notes: tuple[str, ...] = ()


def convert(file: str | Path, out: str | Path, vggish: str | Path | None = None, overwrite: bool = False) -> Converted:
    """Write a checkpoint that its authors published as a folder of avseg's. Nothing in the file is executed.

    A TPAVI, AVSegFormer, ECMVAE, CATR or SAMA-AVS becomes a model for `avseg.models.load`, which predicts what its
    authors' code does. An encoder alone becomes a folder whose path ``weights.image`` (ResNet-50, PVT-v2-b5),
    ``weights.audio`` (VGGish) or ``weights.flow`` (ResNet-18) takes.

    Args:
        file: What ``torch.save`` wrote, or ``.safetensors``; see `avseg.models.weights.read_state`.
        out: The folder to write.
        vggish: VGGish's weights, a file as published or a folder that this function wrote: those of TPAVI, ECMVAE
            and CATR hold no audio encoder.
        overwrite: Replace a converted model that stands at ``out``. A folder with anything else in it is never
            replaced.

    Raises:
        AvsegError: an unknown file, tensors missing, unexpected or misshapen, no audio encoder, or an ``out`` that is
            not to be overwritten. Then nothing was written.
    """
    out = Path(out)
    clear(out.parent)
    _check_out(out, overwrite)
    for given in (file, vggish):
        if given is not None and not Path(given).exists():
            raise AvsegError(f"{given} does not exist: give the path of a weights file.")
    state = read_state(file)
    kind = recognise(state, file)
    if kind not in _WITHOUT_SOUND and kind not in _WITH_SOUND:
        tensors = published_encoder(state, file, kind)
        with whole_folder(out) as folder:
            save_file(_own(tensors), str(folder / "model.safetensors"), metadata={"format": "pt"})
            write_json(folder / "config.json", {"format_version": FORMAT_VERSION, "encoder": kind})
        return Converted(out, kind, None, _not_used(vggish, f"{file} is an encoder"))
    notes: tuple[str, ...] = ()
    if kind in _WITHOUT_SOUND:
        name, published = _WITHOUT_SOUND[kind]
        config, tensors = published(state, file)
        tensors |= _audio_encoder(file, name, vggish)
    else:
        config, tensors = _WITH_SOUND[kind](state, file)
        notes = _not_used(vggish, f"{file} holds a VGGish of its own")
    with torch.device("meta"):
        model = build(config)
    model.load_state_dict(_own(tensors), assign=True)
    with whole_folder(out) as folder:
        model.save_pretrained(folder)
    return Converted(out, kind, config, notes)


def _check_out(out: Path, overwrite: bool) -> None:
    check_folder(out)
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if there and not overwrite:
        raise AvsegError(f"{out} is there already: name another folder, or replace it with --overwrite.")
    if there - _FILES:
        raise AvsegError(
            f"{out} holds more than a converted model ({min(there - _FILES)}), and would be replaced as a whole: "
            "name another folder."
        )


def _audio_encoder(file: str | Path, kind: str, vggish: str | Path | None) -> dict[str, Tensor]:
    if vggish is None:
        raise AvsegError(
            f"{file} is {kind}, whose checkpoints hold no audio encoder: add --vggish with VGGish's weights "
            f"({VGGISH_URL}) or the folder they were converted to."
        )
    state = read_state(vggish)
    if recognise(state, vggish) != "vggish":
        raise AvsegError(f"--vggish {vggish} is not a VGGish: give its weights, such as those at {VGGISH_URL}.")
    return published_vggish(state, vggish)


def _not_used(vggish: str | Path | None, why: str) -> tuple[str, ...]:
    return () if vggish is None else (f"{why}: --vggish {vggish} was not used.",)


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in single precision that share no memory, as safetensors wants them."""
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    shared: set[int] = set()
    for name, tensor in floats.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in shared or storage.nbytes() != tensor.nbytes:
            floats[name] = tensor.clone(memory_format=torch.contiguous_format)
        shared.add(storage.data_ptr())
    return floats
