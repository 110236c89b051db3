"""Published models by name, of plain addresses and a drive, against a real server on this machine."""

import errno
import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.reference import Reference
from served_models import CONFIG, Server, entry, saved, tensors, transformers

from avseg.cli import main
from avseg.errors import AvsegError
from avseg.models import catalogue, download
from avseg.models.catalogue import CATALOGUE, folder_of, models_in, named, resolve
from avseg.models.download import describe, missing
from avseg.models.weights import read_state


def test_a_plain_file_comes_whole_is_converted_and_taken_by_name(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth", sha256=hashlib.sha256(resnet).hexdigest()[:8]))
    Server.files = {"weights.pth": resnet}
    told: list[tuple[int, int]] = []
    assert folder_of("thing") is None
    with pytest.raises(AvsegError, match="`avseg models download thing` fetches it"):
        resolve("thing")
    assert download.download(one, lambda name: lambda done, total: told.append((done, total))) == ["thing"]
    assert told[-1] == (len(resnet), len(resnet))
    folder = folder_of("thing")
    assert folder is not None
    assert resolve("thing") == folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    origin = json.loads((folder / "source.json").read_text())
    assert origin["sha256"] == {"weights.pth": hashlib.sha256(resnet).hexdigest()}
    assert read_state(folder / "model.safetensors")["bn1.weight"].shape == (64,)
    assert not (catalogue.home() / "partial" / "thing").exists()
    assert missing(["thing"]) == []


def test_a_broken_connection_goes_on_where_it_stopped(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files, Server.breaks = {"weights.pth": resnet}, [1_000_000]
    with pytest.raises(AvsegError, match=r"thing cannot be had from .* goes on where it stopped"):
        download.download(one)
    assert folder_of("thing") is None
    assert download.download(one) == ["thing"]
    assert Server.seen[-1] == "/weights.pth bytes=983040-"  # whole pieces of what came


def test_what_came_whole_and_was_not_kept_is_not_fetched_again(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": resnet}
    begun = catalogue.home() / "partial" / "thing" / "weights.pth.part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(resnet)
    assert download.download(one) == ["thing"]
    assert Server.seen == [f"/weights.pth bytes={len(resnet)}-"]


def test_a_beginning_of_something_longer_is_begun_anew(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": resnet}
    begun = catalogue.home() / "partial" / "thing" / "weights.pth.part"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(resnet + b"more")
    with pytest.raises(AvsegError, match="not the beginning of it, and was deleted"):
        download.download(one)
    assert download.download(one) == ["thing"]


def test_two_processes_do_not_fetch_the_same(address: str, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    catalogue.home().mkdir(parents=True)
    with download._alone(one), pytest.raises(AvsegError, match="thing is being downloaded by another process"):
        download.download(one)
    assert Server.seen == []


def test_something_else_than_was_published_is_refused(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth", sha256="0" * 8))
    Server.files = {"weights.pth": resnet}
    with pytest.raises(AvsegError, match=r"is not what was published \(its SHA-256 differs\)"):
        download.download(one)
    assert not (catalogue.home() / "models" / "thing").exists()


def test_the_first_hash_is_kept_and_another_refused_later(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": resnet}
    download.download(one)
    shutil.rmtree(catalogue.home() / "models" / "thing")
    state = torch.load(io.BytesIO(resnet))
    state["bn1.bias"] += 1
    Server.files = {"weights.pth": saved(state)}
    with pytest.raises(AvsegError, match=r"weights\.pth at .* is not what came the first time"):
        download.download(one)
    assert folder_of("thing") is None
    Server.files = {"weights.pth": resnet}
    assert download.download(one) == ["thing"]


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>quota</html>", b"\x80\x02nonsense", b""])
def test_what_is_not_what_it_says_leaves_nothing(address: str, listed: Any, content: bytes) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": content}
    with pytest.raises(AvsegError, match=r"thing: what came is not what it says"):
        download.download(one)
    assert not (catalogue.home() / "models" / "thing").exists()


def test_a_revoked_file_and_no_connection_are_sentences(address: str, listed: Any, capsys: Any) -> None:
    listed(entry(f"{address}/weights.pth"))
    assert main(["models", "download", "thing"]) == 1
    assert "does not give it (HTTP 404): see there what became of it" in (said := capsys.readouterr().err)
    assert said.count("\n") <= 2
    listed(entry("http://127.0.0.1:9/weights.pth"))
    assert main(["models", "download", "thing"]) == 1
    said = capsys.readouterr().err
    assert "cannot be had from http://127.0.0.1:9/weights.pth (no connection)" in said
    assert "or fetch the file from there by other means, and `avseg models download thing --from PATH` takes it" in said


def test_one_that_fails_does_not_keep_others_back(address: str, listed: Any, resnet: bytes, capsys: Any) -> None:
    listed(entry(f"{address}/weights.pth"))
    listed(replace(entry(f"{address}/other.pth"), name="other"))
    Server.files = {"other.pth": resnet}
    assert main(["models", "download", "thing", "other"]) == 1
    said = capsys.readouterr()
    assert said.out == "other\n"
    assert "HTTP 404" in said.err


@pytest.mark.usefixtures("drive")
def test_a_drives_page_of_confirmation_is_passed(listed: Any, resnet: bytes) -> None:
    Server.files = {"ID": resnet}
    assert download.download(listed(entry("drive:ID"))) == ["thing"]
    assert any("/download?id=ID" in line for line in Server.seen)


@pytest.mark.usefixtures("drive")
def test_a_drives_broken_connection_is_gone_on_with(listed: Any, resnet: bytes) -> None:
    one = listed(entry("drive:ID"))
    Server.files, Server.breaks = {"ID": resnet}, [2_000_000]
    with pytest.raises(AvsegError, match=r"incomplete: received \d+ bytes .*goes on where it stopped"):
        download.download(one)
    assert folder_of("thing") is None
    assert download.download(one) == ["thing"]
    assert Server.seen[-1].endswith("-")
    assert int(Server.seen[-1].rpartition("=")[2][:-1]) > 1_000_000


@pytest.mark.usefixtures("drive")
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>too many</html>", b"PK\x03\x04no zip"])
def test_a_drive_that_gives_something_else_leaves_nothing(listed: Any, content: bytes) -> None:
    Server.files = {"ID": content}
    with pytest.raises(AvsegError, match="thing"):
        download.download(listed(entry("drive:ID")))
    assert not (catalogue.home() / "models" / "thing").exists()


@pytest.mark.usefixtures("drive")
def test_a_file_that_the_drive_does_not_have_is_a_sentence(listed: Any) -> None:
    with pytest.raises(AvsegError, match=r"thing: https://drive\.google\.com/file/d/ID does not give it \(removed"):
        download.download(listed(entry("drive:ID")))


@pytest.mark.usefixtures("drive")
def test_another_model_than_was_named_is_refused(listed: Any, resnet: bytes) -> None:
    Server.files = {"ID": resnet}
    with pytest.raises(AvsegError, match=r"not what it says \(it holds resnet\d+, not avsegformer with pvt_v2_b5\)"):
        download.download(listed(entry("drive:ID", kind="avs", holds="avsegformer", encoder="pvt_v2_b5")))


def test_what_was_fetched_by_other_means_is_taken(address: str, listed: Any, resnet: bytes, tmp_path: Path) -> None:
    listed(entry(f"{address}/weights.pth", sha256=hashlib.sha256(resnet).hexdigest()[:8]))
    file = tmp_path / "weights.pth"
    file.write_bytes(resnet[:-1] + b"?")
    assert main(["models", "download", "thing", "--from", str(file)]) == 1
    file.write_bytes(resnet)
    assert main(["models", "download", "thing", "--from", str(file)]) == 0
    assert folder_of("thing") is not None
    listed(transformers())
    assert main(["models", "download", "thing", "--from", str(tmp_path)]) == 1
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "model.safetensors").write_bytes(tensors())
    assert main(["models", "download", "thing", "--from", str(tmp_path)]) == 0
    folder = folder_of("thing")
    assert folder is not None
    assert (folder / "model.safetensors").stat().st_nlink == 1  # whoever changes theirs doesn't change ours
    assert file.read_bytes() == resnet
    assert Server.seen == []
    assert main(["models", "download", "thing", "other", "--from", str(file)]) == 1


def test_a_disk_that_is_full_on_the_way_is_a_sentence(
    address: str, listed: Any, resnet: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    Server.files = {"weights.pth": resnet}
    one = listed(entry(f"{address}/weights.pth"))
    for where in ("avseg.models.download.convert", "avseg.models.fetching._from_address"):
        with monkeypatch.context() as during:
            during.setattr(where, full)
            with pytest.raises(AvsegError, match=r"cannot be kept .*make room there"):
                download.download(one)
        assert folder_of("thing") is None
    assert download.download(one) == ["thing"]
    assert sum(line.startswith("/weights.pth") for line in Server.seen) == 1  # what had come was still there


def test_no_room_is_told_before_anything_is_fetched(address: str, listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(AvsegError, match="has room for 5 MB and thing needs 200"):
        download.download(listed(entry(f"{address}/weights.pth", megabytes=100)))
    assert Server.seen == []
    # Where the catalogue knows no size the server tells it.
    Server.files = {"config.json": CONFIG, "model.safetensors": b"x" * 6_000_000}
    with pytest.raises(AvsegError, match="has room for 5 MB and thing needs 6"):
        download.download(listed(transformers()))
    assert not any("/resolve/" in line for line in Server.seen)


def test_a_licence_that_nobody_states_is_asked_about(address: str, listed: Any, resnet: bytes, capsys: Any) -> None:
    one = listed(replace(entry(f"{address}/weights.pth"), licence=catalogue.NOT_STATED))
    Server.files = {"weights.pth": resnet}
    assert main(["models", "download", "thing"]) == 1  # nobody is there to answer
    assert Server.seen == []
    assert "state no licence" in describe([one])
    assert main(["models", "download", "thing", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "thing"
    assert main(["models", "download", "thing"]) == 0


def test_the_catalogue_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    names = [one.name for one in CATALOGUE]
    assert len(names) == len(set(names))
    for one in CATALOGUE:
        assert one.source.startswith(("drive:", "hub:", "https://"))
        assert one.address.startswith("https://")
        assert one.licence
        assert one.files or not one.source.startswith("hub:")
    assert [one.name for one in named("open-vocabulary")] == ["ast", "clipseg", "rf-detr-seg-nano"]
    assert [one.name for one in missing(["ecmvae"])] == ["vggish", "ecmvae"]
    assert list(models_in("ast")) == []
    with pytest.raises(AvsegError, match="There is no published model 'nothing'"):
        named("nothing")
    assert resolve("owner/name") == "owner/name"
    (tmp_path / "ast").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("ast") == "ast"  # a path that exists comes first


def test_a_published_avs_model_is_downloaded_and_loaded(address: str, listed: Any) -> None:
    """AVSegFormer's checkpoint with few of its layers' numbers would not convert: one whole one does."""
    reference = Reference("avsegformer_resnet50_n2")
    Server.files = {"model.pth": saved(reference.state())}
    one = listed(entry(f"{address}/model.pth", kind="avs"))
    assert download.download(one) == ["thing"]
    from avseg.models import load

    assert load("thing").config.base == "avsegformer"
