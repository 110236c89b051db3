"""AVSBench's pickled log-mel tensors, read without executing anything that a pickle may hold."""

import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avseg.files import whole_file

EXAMPLE = (1, 96, 64)
"""Shape of one example: channel, 10 ms frames, mel bands."""

_LARGEST_FILE = 64 * 2**20


def load_log_mel(path: str | Path) -> Tensor:
    """Read a pickled log-mel tensor, as AVSBench publishes them.

    Only a tensor is admitted: the pickle may name nothing but the parts that a pickled CPU tensor is made of, and those
    are replaced by functions of this module, so nothing that the file says is executed.

    Returns:
        ``(n, 1, 96, 64)`` float32 that doesn't require a gradient.

    Raises:
        FileNotFoundError: no such file.
        ValueError: anything but one tensor of that shape; the message names the file.
    """
    path = Path(path)
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"{path} is too large for a log-mel tensor: it was not read.")
    data = path.read_bytes()
    try:
        value = _TensorUnpickler(io.BytesIO(data)).load()
    except Exception as error:
        # A damaged pickle can raise nearly any exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a pickled log-mel tensor ({reason}).") from None
    if not isinstance(value, Tensor):
        raise ValueError(f"{path} holds a {type(value).__name__}, not a log-mel tensor.")
    if value.ndim != 4 or value.shape[1:] != EXAMPLE or len(value) == 0 or not value.is_floating_point():
        raise ValueError(f"{path} holds a {value.dtype} tensor of {tuple(value.shape)}, not (n, 1, 96, 64) floats.")
    value = value.detach().to(torch.float32).contiguous()
    if not torch.isfinite(value).all():
        raise ValueError(f"{path} holds values that are not finite.")
    return value


def save_log_mel(path: str | Path, log_mel: Tensor) -> None:
    """Write a log-mel tensor ``(n, 1, 96, 64)`` as AVSBench does: ``pickle.dump`` of a float32 tensor. Whole or not."""
    if log_mel.ndim != 4 or log_mel.shape[1:] != EXAMPLE:
        raise ValueError(f"log_mel must be (n, 1, 96, 64), not {tuple(log_mel.shape)}")
    # A view would be pickled with all of its storage.
    data = pickle.dumps(log_mel.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format))
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


class _LoadStorage:
    """In the place of ``torch.storage._load_from_bytes``, which would unpickle its bytes without any restriction."""

    __slots__ = ()

    def __call__(self, data: Any) -> Any:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("a storage that is not made of bytes")
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(value, (torch.TypedStorage, torch.UntypedStorage)):
            raise pickle.UnpicklingError("a storage that is something else")
        return value


class _RebuildTensor:
    """In the place of ``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``: a view of a storage, within it."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        if not isinstance(storage, torch.TypedStorage):
            raise pickle.UnpicklingError("a tensor without a storage")
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise pickle.UnpicklingError("a tensor of impossible size")
        whole = torch.empty(0, dtype=storage.dtype)
        whole.set_(storage)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 in size or last >= whole.numel() or math.prod(size) > whole.numel():
            raise pickle.UnpicklingError("a tensor that is empty or larger than its storage")
        return torch.as_strided(whole, tuple(size), tuple(stride), offset)


class _EncodeLatin1:
    """In the place of ``_codecs.encode``, with which protocols 0 to 2 write bytes."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("bytes in an unknown encoding")
        return text.encode("latin1")


class _RebuildParameter:
    """In the place of ``torch._utils._rebuild_parameter``: the tensor itself."""

    __slots__ = ()

    def __call__(self, data: Any, *rest: Any) -> Tensor:
        if not isinstance(data, Tensor):
            raise pickle.UnpicklingError("a parameter without a tensor")
        return data


_ADMITTED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch.storage", "_load_from_bytes"): _LoadStorage(),
    ("_codecs", "encode"): _EncodeLatin1(),
    ("collections", "OrderedDict"): OrderedDict,  # of backward hooks, always empty
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs") from None
