"""Where initial weights come from: local files, downloads with a checksum, and what to say when neither is there."""

import hashlib
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from avseg.errors import AvsegError

VGGISH_URL = "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
RESNET18_URL = "https://download.pytorch.org/models/resnet18-5c106cde.pth"


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
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(file))
        except (SafetensorError, OSError) as error:
            raise AvsegError(f"{file} is damaged or not a safetensors file ({error}): download it again.") from error
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AvsegError(
            f"{file} is refused: it holds something other than tensors, which could run code. "
            "Save its state_dict() alone, or as .safetensors."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise AvsegError(f"{file} is damaged or not a PyTorch weights file ({type(error).__name__}).") from error


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
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=False)
        except (OSError, RuntimeError) as error:
            raise AvsegError(
                f"{option}: {name} cannot be had from {url} ({error}): download it by other means and give its path "
                f"as {option}=FILE, or put it at {file}, or ask for random weights with {option}=none."
            ) from error
    if not sha256(file).startswith(digest):
        raise AvsegError(f"{file} is not what {url} publishes (its SHA-256 differs): delete it and try again.")
    return file


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
