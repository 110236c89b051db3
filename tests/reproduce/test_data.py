from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import read_videos

from avseg.data.avsbench import avsbench as data_sets
from avseg.data.avsbench import write_index
from avseg.data.frames import Frame
from avseg.errors import AvsegError
from avseg.reproduce.data import generated_source, given_source
from avseg.reproduce.definition import read_scale


def test_given_data_are_known_by_their_index(avsbench: Path, tmp_path: Path) -> None:
    source = given_source(avsbench, "s4")
    assert source.facts == {
        "kind": "AVSBench's layout",
        "hash": source.hash,
        "counts": {"train": 8, "val": 2, "test": 3},
    }
    assert given_source(avsbench, "ms3").hash != source.hash
    videos = read_videos(avsbench, "s4")

    def write(chosen: Iterable[tuple[Frame, ...]]) -> None:
        write_index(data_sets(tmp_path, "s4"), [frame for video in chosen for frame in video])

    write(reversed(videos))
    assert given_source(tmp_path, "s4").hash == source.hash
    write(videos[1:])
    assert given_source(tmp_path, "s4").hash != source.hash
    # The same videos, one of them validated on rather than trained on.
    first = next(video for video in videos if video[0].split == "train")
    moved = tuple(replace(frame, split="val") for frame in first)
    write([moved if video == first else video for video in videos])
    assert given_source(tmp_path, "s4").hash != source.hash
    write(video for video in videos if video[0].split != "test")
    with pytest.raises(AvsegError, match=r"s4_meta_data\.csv lists no test videos"):
        given_source(tmp_path, "s4")
    with pytest.raises(AvsegError, match="does not exist"):
        given_source(tmp_path / "nowhere", "s4")


def test_a_benchmark_is_generated_once_and_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(folder: Path) -> None:
        raise AvsegError("no network")

    monkeypatch.setattr("avseg.synthetic.stamps.fetch_stamps", offline)
    counts = {"edition": "small", "videos": 6, "val": 1, "test": 2, "seed": 0}
    scale = replace(read_scale("small"), data={"s4": counts})
    said: list[str] = []
    source = generated_source(scale, "s4", tmp_path, said.append)
    assert source.facts["objects"] == "procedural"
    assert source.facts["counts"] == {"train": 3, "val": 1, "test": 2}
    assert source.hash == source.facts["hash"]
    assert any("procedural" in line for line in said)
    prepared = list((tmp_path / "small_s4").rglob("visual_frames/*/*/*/*.png"))
    assert len(prepared) == 30
    times = {path: path.stat().st_mtime_ns for path in prepared}
    said.clear()
    assert generated_source(scale, "s4", tmp_path, said.append) == source
    assert {path: path.stat().st_mtime_ns for path in prepared} == times
    assert not any("stamps" in line for line in said)
    other = replace(scale, data={"s4": counts | {"seed": 1}})
    with pytest.raises(AvsegError, match=r"other settings|another|already"):
        generated_source(other, "s4", tmp_path, said.append)
