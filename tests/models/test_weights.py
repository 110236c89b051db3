"""Foreign files: read without executing anything, downloads checked, and errors that name the mend."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avseg.errors import AvsegError
from avseg.models.weights import download, read_state, sha256


class Malicious:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_malicious_pickle_does_not_run(tmp_path: Path) -> None:
    file, trace = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save({"weight": Malicious(trace)}, file)
    with pytest.raises(AvsegError, match=r"bad\.pth is refused"):
        read_state(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the file is indeed malicious
    assert trace.exists()


def test_reads_what_others_wrap_around_weights(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).view(2, 3)
    for number, value in enumerate(
        [{"a.w": tensor}, {"state_dict": {"module.a.w": tensor}}, {"model": {"a.w": tensor}}]
    ):
        file = tmp_path / f"{number}.pth"
        torch.save(value, file)
        assert torch.equal(read_state(file)["a.w"], tensor)
    save_file({"a.w": tensor}, tmp_path / "x.safetensors")
    assert torch.equal(read_state(tmp_path / "x.safetensors")["a.w"], tensor)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_damaged_absent_and_senseless_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with pytest.raises(AvsegError, match="does not exist"):
        read_state(file)
    file.write_bytes(b"")
    with pytest.raises(AvsegError, match="damaged"):
        read_state(file)
    file.write_bytes(b"\x80\x02weights" * 100)
    with pytest.raises(AvsegError, match=r"x\.(pth|safetensors) is (damaged|refused)"):
        read_state(file)


def test_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "half.pth"
    torch.save({"w": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:1500])
    with pytest.raises(AvsegError, match=r"half\.pth"):
        read_state(file)


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3, "w": torch.zeros(2)}, {}])
def test_something_other_than_a_state_dict(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(AvsegError, match=r"x\.pth holds"):
        read_state(tmp_path / "x.pth")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_download_is_checked_and_kept(tmp_path: Path, hub: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"weights")
    published = tmp_path / f"net-{sha256(content)[:8]}.pth"
    content.rename(published)
    file = download(published.as_uri(), "weights.audio")
    assert file == hub / published.name
    published.unlink()
    assert download(published.as_uri(), "weights.audio").read_bytes() == b"weights"
    file.write_bytes(b"tampered")
    with pytest.raises(AvsegError, match="SHA-256 differs"):
        download(published.as_uri(), "weights.audio")


def test_download_that_is_not_what_it_says_leaves_nothing(tmp_path: Path, hub: Path) -> None:
    published = tmp_path / "net-0123abcd.pth"
    published.write_bytes(b"something else")
    with pytest.raises(AvsegError, match="net-0123abcd"):
        download(published.as_uri(), "weights.audio")
    assert not list(hub.glob("*"))


def test_download_that_cannot_be_had_says_what_to_do(tmp_path: Path, hub: Path) -> None:
    url = (tmp_path / "net-0123abcd.pth").as_uri()
    with pytest.raises(AvsegError) as refusal:
        download(url, "weights.flow")
    for part in (url, "weights.flow=FILE", "weights.flow=none", str(hub / "net-0123abcd.pth")):
        assert part in str(refusal.value)
