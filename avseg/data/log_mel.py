"""AVSBench's pickled log-mel tensors, read without executing anything that a pickle may hold."""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avseg.files import whole_file
from avseg.reading import read_bytes

EXAMPLE = (1, 96, 64)
"""Shape of one example: channel, 10 ms frames, mel bands."""

_LARGEST_FILE = 64 * 2**20
_LARGEST_VALUE = 100  # ln of a mel band's magnitude: from ln 0.01 = -4.6 to about 10
_MOST_STEPS = 2000  # of a pickle; a tensor's has about 50
_CONTAINERS = frozenset(
    ("DUP", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "BUILD", "INST", "OBJ")
)  # steps that no tensor needs, with which hashing can take for ever
_OLD_STORAGE = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # what the form of storages within a pickle begins with


def load_log_mel(path: str | Path) -> Tensor:
    """Read a pickled log-mel tensor, as AVSBench publishes them.

    Only a tensor is admitted: the pickle may name nothing but the parts that a pickled CPU tensor is made of, and those
    are replaced by functions of this module, so nothing that the file says is executed.

    Returns:
        ``(n, 1, 96, 64)`` float32 that doesn't require a gradient.

    Raises:
        OSError: no such file, no regular one, or a larger one than any log-mel tensor.
        ValueError: anything but one tensor of that shape; the message names the file.
    """
    data = read_bytes(path, _LARGEST_FILE)
    try:
        _check_steps(data)
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
    if not (value.abs() <= _LARGEST_VALUE).all():
        raise ValueError(f"{path} holds values that no log-mel has (non-finite, or beyond ±{_LARGEST_VALUE}).")
    return value


def save_log_mel(path: str | Path, log_mel: Tensor) -> None:
    """Write a log-mel tensor ``(n, 1, 96, 64)`` as AVSBench does: ``pickle.dump`` of a float32 tensor. Whole or not."""
    if log_mel.ndim != 4 or log_mel.shape[1:] != EXAMPLE:
        raise ValueError(f"log_mel must be (n, 1, 96, 64), not {tuple(log_mel.shape)}")
    # A view would be pickled with all of its storage.
    data = pickle.dumps(log_mel.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format))
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def _check_steps(data: bytes) -> None:
    """Walk through a pickle without doing what it says: a few bytes can ask for any memory, and for any time."""
    for count, (step, value, _) in enumerate(pickletools.genops(data)):
        if step.name in _CONTAINERS or count > _MOST_STEPS:
            raise pickle.UnpicklingError("steps that no tensor needs")
        if step.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(value, int) and value > _MOST_STEPS:
            raise pickle.UnpicklingError("a place in memory that no tensor needs")


class _LoadStorage:
    """In the place of ``torch.storage._load_from_bytes``, which would unpickle its bytes without any restriction."""

    __slots__ = ()

    def __call__(self, data: Any) -> Any:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError("a storage that is not made of bytes")
        if not data.startswith(_OLD_STORAGE):  # archives can hold far more than their size, and lead elsewhere
            raise pickle.UnpicklingError("a storage in another form")
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
        if len(size) != len(stride) or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
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


class _NoHooks:
    """In the place of ``OrderedDict``, of a tensor's backward hooks, which is always empty."""

    __slots__ = ()

    def __call__(self) -> dict[str, Any]:
        return {}


_ADMITTED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch.storage", "_load_from_bytes"): _LoadStorage(),
    ("_codecs", "encode"): _EncodeLatin1(),
    ("collections", "OrderedDict"): _NoHooks(),
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs") from None
