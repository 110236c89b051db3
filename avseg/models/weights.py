"""Where initial weights come from: local files, downloads with a checksum, and what to say when neither is there."""

import hashlib
import pickle
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avseg.errors import AvsegError
from avseg.files import whole_file

VGGISH_URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
RESNET18_URL = "https://download.pytorch.org/models/resnet18-5c106cde.pth"

_HEADER = 8 * 2**20  # bytes; that of the largest model here takes 0.3 MB
_PATIENCE = 10.0  # seconds for an answer
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}  # others (quantised, packed) don't convert


def read_state(file: str | Path) -> dict[str, Tensor]:
    """The tensors of a foreign weights file by name; nothing that the file contains is executed.

    Args:
        file: ``.safetensors``, or a folder that holds ``model.safetensors``, or whatever ``torch.save`` wrote: a
            state dict, alone or under the key ``state_dict`` or ``model``. A ``module.`` before every name is removed.

    Raises:
        AvsegError: no such file, damaged, or something other than tensors by name.
    """
    file = Path(file)
    if file.is_dir():
        file /= "model.safetensors"
    if not file.is_file():
        raise AvsegError(f"{file} does not exist: give the path of a weights file.")
    values = _read(file)
    for key in ("state_dict", "model"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict) or not values:
        raise AvsegError(f"{file} holds no weights by name: give a state dict.")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in values.items()):
        raise AvsegError(f"{file} holds more than tensors by name: save the model's state_dict() alone.")
    if all(name.startswith("module.") for name in values):
        values = {name.removeprefix("module."): tensor for name, tensor in values.items()}
    return {name: tensor.detach() for name, tensor in values.items()}


def _read(file: Path) -> object:
    if file.suffix == ".safetensors":
        tensor_shapes(file)
        return read_safetensors(file)
    try:
        return read_torch(file)
    except pickle.UnpicklingError as error:
        raise AvsegError(
            f"{file} is refused: it is no file of weights, or it holds something other than tensors, which could run "
            "code. Save a model's state_dict() alone, or as .safetensors."
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly any
        raise AvsegError(f"{file} is damaged or not a PyTorch weights file ({type(error).__name__}).") from error


def read_torch(file: Path) -> Any:
    """What ``torch.save`` wrote, tensors and plain values alone; nothing that the file contains is executed.

    Raises:
        ValueError: it would take more room than it has: PyTorch packs nothing.
        Exception: whatever a damaged file makes PyTorch raise; `pickle.UnpicklingError` where it holds anything else.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > file.stat().st_size:
                raise ValueError("packed")
    return torch.load(file, map_location="cpu", weights_only=True)


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file by name, from its header; no tensor is read.

    Raises:
        AvsegError: damaged, or no safetensors file.
    """
    from safetensors import safe_open

    with _told(file):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if length > min(_HEADER, file.stat().st_size - 8):
            raise ValueError("its header is longer than can be")
        with safe_open(str(file), framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        AvsegError: damaged, or no safetensors file.
    """
    from safetensors.torch import load_file

    with _told(file):
        return load_file(str(file))


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the library, of the system, or of a type of numbers that PyTorch lacks
        raise AvsegError(f"{file} is damaged or not a safetensors file ({error!s:.200}): copy it again.") from error


def sound_tensors(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Weights in the types of those that they are for, once they were found to be numbers to compute with.

    Args:
        state: Of the shapes of ``wanted``.
        wanted: Tensors whose types count; they may be on the meta device.
        source: Where they are from, for the message.

    Raises:
        AvsegError: a tensor with another kind of number than is wanted (a float for a float, a whole number for a whole
            one), with NaN or infinity, or a negative variance; it is named.
    """
    sound = {}
    for name, tensor in state.items():
        like, kind = wanted[name], tensor.dtype
        alike = kind == like.dtype or kind in (_FLOATS if like.is_floating_point() else _WHOLE)
        if tensor.layout != torch.strided or tensor.is_meta or not alike:
            raise AvsegError(f"{source}: {name} holds {kind}, not {like.dtype}: take the weights as they were trained.")
        tensor = tensor.to(like.dtype)
        if like.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise AvsegError(f"{source}: {name} has values that are NaN or infinite: copy or train it again.")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise AvsegError(f"{source}: {name} has negative values, which no variance is: copy or train it again.")
        sound[name] = tensor
    return sound


def download(url: str, option: str) -> Path:
    """A file of PyTorch's hub, from its cache folder where it is there already.

    The hexadecimal end of the file's name is the start of its SHA-256 and is checked every time.

    Args:
        url: Where it is published.
        option: The option that asked for it, for the message.

    Raises:
        AvsegError: it cannot be downloaded, or it is not what was published.
    """
    file = hub_file(url)
    name = file.name
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    assert found is not None
    digest = found.group(1)
    if not file.is_file():
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE) as answer, whole_file(file) as temporary:
                with temporary.open("wb") as stream:
                    shutil.copyfileobj(answer, stream)
                if not sha256(temporary).startswith(digest):
                    raise OSError("what comes is something else: its SHA-256 differs")
        except (OSError, HTTPException) as error:
            raise AvsegError(
                f"{option}: {name} cannot be had from {url} ({error}): download it by other means and give its path "
                f"as {option}=FILE, or put it at {file}, or ask for random weights with {option}=none."
            ) from error
    if not sha256(file).startswith(digest):
        raise AvsegError(f"{file} is not what {url} publishes (its SHA-256 differs): delete it and try again.")
    return file


def reach_hub() -> bool:
    """Whether the Hugging Face hub answers, asked once for a short while; libraries ask again and again for minutes."""
    return _hub_answers(int(time.monotonic() // 60))


def from_hub(repository: str, name: str) -> Path:
    """A file of a repository on the Hugging Face hub; from the cache where the hub does not answer.

    Raises:
        Exception: whatever the hub's library raises where it can't be had.
    """
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, name, local_files_only=not reach_hub()))


@lru_cache(maxsize=1)
def _hub_answers(minute: int) -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return True  # an answer, too
    except (OSError, HTTPException):
        return False
    return True


def hub_file(url: str) -> Path:
    """Where a file of PyTorch's hub is kept once it was downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """Sixteen hexadecimal digits that change with any weight of ``module``: names, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
