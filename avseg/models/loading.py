"""Models read back: folders, training checkpoints and repositories of the hub, whoever wrote them.

Nothing that a file contains is executed, and nothing that it names is fetched. What it says of sizes is held against
the tensors that it has before anything large is built.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from avseg.config import ModelConfig, model_config_from_dict
from avseg.errors import AvsegError
from avseg.models.base import FORMAT_VERSION, AVSModel, build
from avseg.models.catalogue import resolve
from avseg.models.encoders import NAMED
from avseg.models.weights import reach_hub, read_safetensors, read_torch, sound_tensors, tensor_shapes
from avseg.reading import CONFIG_BYTES, read_json

_ROOM = 64 * 2**20  # bytes that a model may hold beside its weights


def load_state(model: AVSModel, state: dict[str, Tensor], source: str | Path) -> None:
    """Load weights, refusing a file that belongs to another model, or has values that no model can compute with.

    Raises:
        AvsegError: missing, unexpected or misshapen tensors, with the first few names; or as
            `avseg.models.weights.sound_tensors`.
    """
    own = model.state_dict()
    _compare(own, {name: tuple(tensor.shape) for name, tensor in state.items()}, source)
    model.load_state_dict(sound_tensors(state, own, source))


def _compare(own: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], source: str | Path) -> None:
    wrong = [f"{name} is missing" for name in own if name not in shapes]
    wrong += [f"{name} is unexpected" for name in shapes if name not in own]
    wrong += [
        f"{name} is {shapes[name]} instead of {tuple(own[name].shape)}"
        for name in own
        if name in shapes and shapes[name] != own[name].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise AvsegError(
            f"{source} holds the weights of another model ({'; '.join(wrong[:3])}{more}): "
            "use weights saved with the same configuration."
        )


def _build_for(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], room: int, source: str | Path) -> AVSModel:
    """Build the model that holds tensors of some shapes, with no weights yet and nothing fetched.

    A configuration may come from anywhere: it is built on the meta device first, where sizes cost nothing, and with no
    more parameters than there are tensors.

    Args:
        config: The architecture.
        shapes: The tensors by name.
        room: Bytes of the file that they are in; what a model holds beside its weights is of that order.
        source: The file, for messages.
    """
    if config.image_encoder not in NAMED and config.image_encoder_config is None:
        raise AvsegError(f"{source} has no configuration of its image encoder {config.image_encoder}; save it again.")
    with _parameters_up_to(2 * len(shapes) + 1000, source), torch.device("meta"):
        model = build(config)
    _compare(model.state_dict(), shapes, source)
    if sum(item.nbytes for item in (*model.parameters(), *model.buffers())) > 16 * room + _ROOM:
        raise AvsegError(f"{source} describes a model that takes far more room than its weights do; save it again.")
    return build(config)


@contextmanager
def _parameters_up_to(most: int, source: str | Path) -> Iterator[None]:
    """Stop what makes more parameters than ``most`` in this thread."""
    made, thread = 0, threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal made
        made += threading.get_ident() == thread
        if made > most:
            raise AvsegError(f"{source} holds the weights of another model, with far fewer tensors: save it again.")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def load(source: str | Path) -> AVSModel:
    """Load a model in evaluation mode.

    Args:
        source: A folder with ``config.json`` and ``model.safetensors`` (never touches the network), a training
            checkpoint (``.ckpt``), the name of a downloaded model (`avseg.models.catalogue`), or the id of a repository
            on the Hugging Face hub.

    Raises:
        AvsegError: nothing there, or not a model of avseg, or damaged.
    """
    source = resolve(source)
    path = Path(source)
    if path.is_file():
        return _load_checkpoint(path)
    if not path.is_dir():
        path = _download(str(source))
    check_source(path)
    config_file, weights_file = path / "config.json", path / "model.safetensors"
    config = read_config(config_file)
    model = _build_for(config, tensor_shapes(weights_file), weights_file.stat().st_size, weights_file)
    load_state(model, read_safetensors(weights_file), weights_file)
    return model.eval()


def check_source(source: str | Path) -> None:
    """Whether `load` would find a model's files, told without reading any; a repository of the hub may be anything.

    Raises:
        AvsegError: nothing there, or not the files of a model.
    """
    path = Path(resolve(source))
    if path.is_dir():
        for name in ("config.json", "model.safetensors"):
            if not (path / name).is_file():
                raise AvsegError(f"{path} has no {name}: give a folder written by `avseg train` or save_pretrained.")
    elif not path.is_file():
        _repository(str(source))


def _repository(name: str) -> None:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise AvsegError(
            f"{name} does not exist: give the folder of a trained model, such as runs/demo/ufe, or a name that "
            "`avseg models` lists."
        )


def read_config(file: Path) -> ModelConfig:
    """What a model's ``config.json`` says; AvsegError where it isn't one that this version reads."""
    values = read_json(file, "save the model again", CONFIG_BYTES)
    if isinstance(values, dict) and "model_type" in values and "format_version" not in values:
        raise AvsegError(
            f"{file} describes a {values['model_type']!s:.40} of transformers, which segments nothing by itself: give "
            "a model of avseg's, or open-vocabulary."
        )
    if not isinstance(values, dict) or "format_version" not in values:
        raise AvsegError(f"{file} is not the config.json of an avseg model: it has no format_version.")
    if "encoder" in values:
        raise AvsegError(
            f"{file} describes the encoder {values['encoder']!s:.40} alone, which marks nothing: name its folder in "
            "the section weights of a configuration, or as `avseg convert --vggish`."
        )
    version = values.pop("format_version")
    if version != FORMAT_VERSION:
        raise AvsegError(f"{file} has format version {version!r:.40}, this avseg reads {FORMAT_VERSION}: update avseg.")
    return model_config_from_dict(values, str(file))


def _load_checkpoint(path: Path) -> AVSModel:
    """A training checkpoint: tensors and plain values only, read without executing anything."""
    try:
        checkpoint = read_torch(path)
        prefix = "model."
        values = dict(checkpoint["avseg_model"])
        state = {k[len(prefix) :]: v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:
        raise AvsegError(
            f"{path} is not a training checkpoint of avseg ({type(error).__name__}): "
            "give a .ckpt of a run, or a folder with config.json."
        ) from error
    model = _build_for(model_config_from_dict(values, str(path)), shapes, path.stat().st_size, path)
    load_state(model, state, path)
    return model.eval()


def _download(name: str) -> Path:
    _repository(name)
    from huggingface_hub import snapshot_download

    try:
        files = ["config.json", "model.safetensors"]
        return Path(snapshot_download(name, allow_patterns=files, local_files_only=not reach_hub()))
    except Exception as error:
        raise AvsegError(
            f"{name} is neither a folder here nor a model that could be had from the hub ({type(error).__name__}): "
            "check the spelling and the connection."
        ) from error
