"""Published models by name, of a server on this machine that speaks as the Hugging Face hub does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import write_mp4
from served_models import CONFIG, GONE, Server, entry, saved, tensors, transformers
from tiny import write_ast, write_clipseg, write_rf_detr

from avseg.errors import AvsegError
from avseg.models import catalogue, download
from avseg.models.catalogue import folder_of, named, resolve
from avseg.models.download import missing
from avseg.models.weights import read_state


def test_the_hub_gives_one_commits_files_and_a_folder_of_transformers(address: str, listed: Any) -> None:
    one = listed(transformers())
    Server.files = {"config.json": CONFIG, "model.safetensors": tensors(), "README.md": b"no", "evil.py": b"no"}
    Server.files |= {"vocab.json": b"{}", "onnx/model.safetensors": b"no", "pytorch_model.bin": b"no"}
    Server.large = {"model.safetensors"}
    told: list[tuple[int, int]] = []
    assert download.download(one, lambda name: lambda done, total: told.append((done, total))) == ["thing"]
    folder = folder_of("thing")
    assert folder is not None
    names = ["config.json", "model.safetensors", "source.json", "vocab.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "model.safetensors").read_bytes() == tensors()
    assert sorted(line.split()[0].rpartition("c" * 40)[2] for line in Server.seen if "/resolve/" in line) == [
        "/config.json", "/model.safetensors", "/vocab.json",
    ]  # fmt: skip
    whole = len(CONFIG) + len(tensors()) + 2
    assert told == sorted(told)
    assert told[-1] == (whole, whole)
    assert json.loads((folder / "source.json").read_text())["revision"] == "c" * 40


def test_a_hub_whose_connection_breaks_is_gone_on_with(address: str, listed: Any) -> None:
    one = listed(transformers())
    Server.files = {"config.json": CONFIG, "model.safetensors": tensors()}
    Server.breaks = [len(CONFIG), 500_000]
    with pytest.raises(AvsegError, match=r"\(the connection broke.*goes on where it stopped"):
        download.download(one)
    assert folder_of("thing") is None
    Server.seen = []
    assert download.download(one) == ["thing"]
    assert [line.rpartition("/")[2] for line in Server.seen if "/resolve/" in line] == [
        "model.safetensors bytes=458752-"  # whole pieces of what came; the other file is there
    ]


def test_what_the_hub_itself_calls_something_else_is_refused(address: str, listed: Any) -> None:
    one = listed(transformers())
    Server.files = {"config.json": CONFIG, "model.safetensors": tensors()}
    Server.large, Server.digest = {"model.safetensors"}, "0" * 64
    with pytest.raises(AvsegError, match=r"model\.safetensors of .*o/n is not what was published"):
        download.download(one)
    assert not (catalogue.home() / "models" / "thing").exists()
    assert not (catalogue.home() / "partial" / "thing").exists()


def test_the_first_commit_stays_the_one_until_it_is_gone(address: str, listed: Any) -> None:
    one = listed(transformers())
    Server.files = {"config.json": CONFIG, "model.safetensors": tensors()}
    for first in ("c" * 40, GONE):
        Server.commit = first
        download.download(one)
        shutil.rmtree(catalogue.home() / "models" / "thing")
        Server.seen, Server.commit = [], "e" * 40
        assert download.download(one) == ["thing"]
        assert f"/api/models/o/n/revision/{first}?blobs=true" in Server.seen
        shutil.rmtree(catalogue.home() / "models" / "thing")
        (catalogue.home() / "hashes.json").unlink()
    assert "/api/models/o/n?blobs=true" in Server.seen  # the newest, whose hashes are the same


def test_old_weights_of_pytorch_become_safetensors(address: str, listed: Any) -> None:
    one = listed(transformers())
    state = {"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.int64)}
    Server.files = {"config.json": CONFIG, "pytorch_model.bin": saved(state)}
    assert download.download(one) == ["thing"]
    folder = folder_of("thing")
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    read = read_state(folder)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": b'{"model_type": "other"}', "model.safetensors": tensors}, "describes other, not some"),
        ({"config.json": b"<html>", "model.safetensors": tensors}, "config.json"),
        ({"config.json": CONFIG, "model.safetensors": b"<!DOCTYPE html>"}, "not a safetensors file"),
        ({"config.json": CONFIG, "model.safetensors": b"x" * 5000}, "not a safetensors file"),
        ({"config.json": CONFIG, "pytorch_model.bin": b"x" * 5000}, "no file of weights"),
        ({"config.json": CONFIG, "model.safetensors": tensors, "vocab.json": b"{"}, "vocab.json"),
    ],
)
def test_a_repository_that_is_not_what_it_says_leaves_nothing(
    address: str, listed: Any, files: dict[str, Any], reason: str
) -> None:
    Server.files = {name: value() if callable(value) else value for name, value in files.items()}
    with pytest.raises(AvsegError, match=f"thing: what came is not what it says .*{reason}"):
        download.download(listed(transformers()))
    assert not (catalogue.home() / "models" / "thing").exists()
    assert not (catalogue.home() / "partial" / "thing").exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": CONFIG}, r"no model\.safetensors or pytorch_model\.bin"),
        ({"model.safetensors": b"no"}, r"no config\.json"),
        ({"config.json": CONFIG, "../model.safetensors": b"no"}, r"no model\.safetensors"),
    ],
)
def test_a_repository_without_a_model_is_a_sentence(address: str, listed: Any, files: Any, reason: str) -> None:
    Server.files = files
    with pytest.raises(AvsegError, match=f"it holds {reason}"):
        download.download(listed(transformers()))


def test_a_repositorys_files_stay_in_their_folder(address: str, listed: Any, resnet: bytes) -> None:
    Server.files = {"../../../evil.pth": resnet, "/evil.pth": resnet, "s4/best.pth": resnet, "ms3/best.pth": resnet}
    assert download.download(listed(entry("hub:o/n", files=("*.pth",)))) == ["thing/ms3_best", "thing/s4_best"]
    assert not any("evil" in line for line in Server.seen)


def test_the_whole_way_from_the_hub_to_a_segmented_video(address: str, tmp_path: Path) -> None:
    """In processes of their own, to which HF_ENDPOINT alone says where the hub is."""
    for name, write in (("ast", write_ast), ("clipseg", write_clipseg), ("rf-detr-seg-nano", write_rf_detr)):
        folder = write(tmp_path / name)
        repository = named(name)[0].source.partition(":")[2]
        Server.repositories[repository] = {file.name: file.read_bytes() for file in folder.iterdir()}
    environment = {**os.environ, "HF_ENDPOINT": address, "AVSEG_HOME": str(tmp_path / "own"), "HF_HUB_OFFLINE": "0"}

    def avseg(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "avseg", *words]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    write_mp4(tmp_path / "disc.mp4", seconds=1)
    done = avseg("models", "download", "open-vocabulary")
    assert (done.returncode, done.stdout) == (0, "ast\nclipseg\nrf-detr-seg-nano\n"), done.stderr
    asked = len(Server.seen)
    done = avseg("segment", "disc.mp4", "--checkpoint", "open-vocabulary", "--fps", "1", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "disc" / "moments.json").is_file()
    done = avseg("segment", "disc.mp4", "--checkpoint", "clipseg", "--out", "other")
    assert done.returncode == 1
    assert "describes a clipseg of transformers, which segments nothing by itself" in done.stderr
    assert len(Server.seen) == asked


def test_a_repository_of_checkpoints_becomes_a_model_each(address: str, listed: Any, resnet: bytes) -> None:
    one = listed(entry("hub:o/n", files=("*.pth",)))
    Server.files = {"first one.pth": resnet, "other.pth": resnet, "broken.pth": b"nothing"}
    assert download.download(one) == ["thing/first_one", "thing/other"]
    assert folder_of("thing/other") is not None
    with pytest.raises(AvsegError, match="thing is several models: give one of thing/first_one, thing/other"):
        resolve("thing")
    assert missing(["thing"]) == []


def test_an_empty_repository_is_a_sentence(address: str, listed: Any) -> None:
    with pytest.raises(AvsegError, match=r"it holds none of \*\.pth"):
        download.download(listed(entry("hub:o/n", files=("*.pth",))))


def test_a_hub_that_is_not_there_is_a_sentence(listed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", "http://127.0.0.1:9", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        AvsegError,
        match=r"from https://huggingface\.co/o/n \(no connection\): .*config\.json, model\.safetensors, vocab\.json",
    ):
        download.download(listed(transformers()))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(AvsegError, match="HF_HUB_OFFLINE is set"):
        download.download(listed(transformers()))
