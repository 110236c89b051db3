import collections
import io
import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch

from avseg.data.log_mel import load_log_mel, save_log_mel


@pytest.fixture
def tensor() -> torch.Tensor:
    return torch.randn(5, 1, 96, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_reads_what_avsbench_publishes(tmp_path: Path, tensor: torch.Tensor, protocol: int) -> None:
    path = tmp_path / "-a_36.pkl"
    for value in (tensor, tensor.clone().requires_grad_(), torch.nn.Parameter(tensor), tensor.double()):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        read = load_log_mel(path)
        assert torch.equal(read, tensor)
        assert read.dtype == torch.float32
        assert not read.requires_grad


def test_reads_a_view_of_a_larger_storage(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(torch.cat([tensor, tensor + 1])[3:8]))
    assert torch.equal(load_log_mel(path), torch.cat([tensor[3:], tensor[:3] + 1]))


def test_writes_the_published_form(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "folder" / "a.pkl"
    save_log_mel(path, torch.cat([tensor, tensor])[:5].requires_grad_())
    plain = pickle.loads(path.read_bytes())
    assert torch.equal(plain, tensor)
    assert torch.equal(load_log_mel(path), tensor)
    assert path.stat().st_size < 1.1 * tensor.nbytes, "the storage behind the view was written too"


class _Attack:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _load_from_bytes(data: bytes) -> _Attack:
    return _Attack(torch.storage._load_from_bytes, data)


@pytest.mark.parametrize("function", [os.system, subprocess.getoutput, eval, torch.load, getattr])
def test_executes_nothing(tmp_path: Path, function) -> None:
    proof = tmp_path / "proof"
    argument = f"open({str(proof)!r}, 'w')" if function is eval else f"touch {proof}"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(_Attack(function, argument)))
    with pytest.raises(ValueError, match=r"evil\.pkl"):
        load_log_mel(path)
    assert not proof.exists()


def test_executes_nothing_inside_a_storage(tmp_path: Path, tensor: torch.Tensor) -> None:
    proof = tmp_path / "proof"
    inner = io.BytesIO()
    torch.save(_Attack(os.system, f"touch {proof}"), inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "evil.pkl"
    for payload in (inner.getvalue(), pickle.dumps(_Attack(os.system, f"touch {proof}"))):
        path.write_bytes(pickle.dumps(_load_from_bytes(payload)))
        with pytest.raises(ValueError, match=r"evil\.pkl"):
            load_log_mel(path)
        assert not proof.exists()
    # The attack is real: torch's own function, which a plain unpickler would call, does run it.
    torch.storage._load_from_bytes(inner.getvalue())
    assert proof.exists()


def test_refuses_tensors_that_reach_beyond_their_storage(tmp_path: Path, tensor: torch.Tensor) -> None:
    storage = tensor.untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    path = tmp_path / "beyond.pkl"
    for offset, size, stride in [
        (1, (5, 1, 96, 64), (6144, 6144, 64, 1)),
        (0, (10**9, 1, 96, 64), (0, 6144, 64, 1)),
        (-1, (1, 1, 96, 64), (6144, 6144, 64, 1)),
        (0, (5, 1, 96, 64), (6144, 6144, 64)),
    ]:
        attack = _Attack(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, collections.OrderedDict())
        path.write_bytes(pickle.dumps(attack))
        with pytest.raises(ValueError, match=r"beyond\.pkl"):
            load_log_mel(path)


@pytest.mark.parametrize(
    "value",
    [
        {"log_mel": torch.zeros(5, 1, 96, 64)},
        [1, 2, 3],
        torch.zeros(5, 96, 64),
        torch.zeros(0, 1, 96, 64),
        torch.zeros(5, 1, 96, 64, dtype=torch.int64),
        torch.full((5, 1, 96, 64), torch.nan),
    ],
    ids=["dict", "list", "shape", "empty", "integers", "nan"],
)
def test_refuses_anything_but_a_log_mel(tmp_path: Path, value) -> None:
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=r"other\.pkl"):
        load_log_mel(path)


def test_refuses_damaged_files(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "cut.pkl"
    whole = pickle.dumps(tensor)
    for data in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"\x80\x04garbage", b"PK\x03\x04"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"cut\.pkl"):
            load_log_mel(path)


def test_says_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_log_mel(tmp_path / "none.pkl")
