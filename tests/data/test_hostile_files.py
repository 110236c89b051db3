"""Files that nobody means to write, or somebody means harm with: one sentence each, before memory or time is spent."""

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import load_clip, make_avsbench, read_videos

from avseg.config import Config, DataConfig, InputConfig, RunConfig
from avseg.data.avsbench import avsbench, read_frames, write_index
from avseg.data.cache import Shard
from avseg.data.check import check
from avseg.data.dataset import whole_videos
from avseg.data.lists import read_label_subset, read_sizes
from avseg.data.log_mel import load_log_mel
from avseg.data.vggsound import read_labels
from avseg.errors import AvsegError
from avseg.evaluation.scores import read_evaluation
from avseg.inference.recording import Recording
from avseg.media.audio import write_wav
from avseg.media.flow import read_flow_png, read_published
from avseg.media.images import image_size_of, read_image, read_mask
from avseg.synthetic.backgrounds import _read_photograph
from avseg.training.run import train


def png(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of that size by its header, with hardly a pixel behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def published(path: Path) -> object:
    return read_published(path, path)


def recording(path: Path) -> object:
    write_wav(path.parent / "sound.wav", np.zeros(1600, np.float32))
    return Recording.from_folder(path.parent)


@pytest.mark.parametrize("read", [read_image, read_mask, read_flow_png, published, recording, _read_photograph])
@pytest.mark.parametrize("side", [13_000, 50_000, 2**31 - 1])
def test_a_header_is_believed_before_a_pixel_is_decoded(read: Callable, side: int, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(side, side))
    with pytest.raises(AvsegError, match=rf"1\.png is {side}×{side} pixels, more than 67,108,864 in all"):
        read(tmp_path / "1.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_sizes_in_headers_are_those_of_the_pixels(suffix: str) -> None:
    import cv2

    for width, height in [(1, 1), (17, 300), (640, 2)]:
        data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()
        assert image_size_of(data) == (width, height)
        assert all(image_size_of(data[:n]) in (None, (width, height)) for n in range(60))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for read in (read_image, read_mask, read_flow_png, _read_photograph):
        with pytest.raises(AvsegError, match="it is no regular file"):
            read(tmp_path / "a.png")
    with pytest.raises(OSError, match="it is no regular file"):
        load_log_mel(tmp_path / "a.png")


def test_check_looks_at_headers_first(tmp_path: Path) -> None:
    video = make_avsbench(tmp_path, videos={"train": 1}, prepared=True)[0]
    for path in (video[1].image, video[2].flow(), video[0].mask):
        path.write_bytes(png(50_000, 50_000))
    video[3].image.rename(video[3].image.with_suffix(".jpg"))
    told = [str(problem) for problem in check(tmp_path, "s4", workers=1)]
    assert sum("has 50000×50000 pixels, not 64×64 as most frames." in line for line in told) == 3
    jpg = "-s4_train_0_4.png is missing: -s4_train_0_4.jpg is there, but AVSBench's loaders read PNG"
    assert sum(jpg in line for line in told) == 1
    assert len(told) == 4
    with pytest.raises(AvsegError, match=r"_4\.png does not exist: -s4_train_0_4\.jpg is there.*: convert it"):
        load_clip(video, (4,), InputConfig(image_size=64))
    with pytest.raises(AvsegError, match="50000×50000 pixels, not 64×64"):
        load_clip(video, (3,), InputConfig(image_size=64))


ROWS = "name,start,category,split\na,0,dog_barking,train\nb,{start},{category},{split}\n"


def table(start: str = "0", category: str = "dog", split: str = "train") -> bytes:
    return ROWS.format(start=start, category=category, split=split).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(category="bébé").decode().encode("cp1252"), "line 3 is not text in UTF-8: save it as CSV in UTF-8"),
        (table().decode().encode("utf-16-le"), "line 1 holds a NUL character"),
        (table(category="dog\0"), "line 3 holds a NUL character"),
        (table(category="x" * 5000), "line 3: 'x{60}'… is not a plain name"),
        (table(category="d\u0007g"), "line 3: .* is not a plain name"),
        (table(split="9" * 5000), "line 3: split '9{60}'… is not one of"),
        (table(category="x" * 200_000), r"line 3 cannot be read as CSV \(field larger"),
        (b"", "has no column 'name'"),
    ],
    ids=["cp1252", "utf-16 without mark", "nul", "long name", "bell", "digits", "huge field", "empty"],
)
def test_a_csv_is_read_or_its_line_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    index = avsbench(tmp_path, "s4").index
    index.parent.mkdir()
    index.write_bytes(data)
    with pytest.raises(AvsegError, match=message) as told:
        read_videos(tmp_path, "s4")
    assert str(told.value).startswith(str(index))
    assert len(str(told.value)) < len(str(index)) + 250


def test_a_table_without_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avseg.data.lists._MOST_ROWS", 1000)
    path = tmp_path / "sizes.csv"
    for rows in (999, 1000):
        path.write_text("name,width,height\n" + "a,1,1\n" * rows)
        if rows == 999:
            assert read_sizes(path) == {"a": (1, 1)}
    with pytest.raises(AvsegError, match="has more than 1,000 rows"):
        read_sizes(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_mark_tells_the_encoding(tmp_path: Path, encoding: str) -> None:
    index = avsbench(tmp_path, "s4").index
    index.parent.mkdir()
    index.write_bytes(table("5" * 5000, "bébé").decode().encode(encoding))
    videos = read_videos(tmp_path, "s4")
    assert [video[0].category for video in videos] == ["dog_barking", "bébé"]
    (tmp_path / "few.txt").write_bytes("b\n".encode(encoding))
    assert read_label_subset(tmp_path / "few.txt", [frame for video in videos for frame in video]) == {"b"}


@pytest.mark.parametrize("width", ["0", "-4", "1e9", "9" * 5000, "nan", ""])
def test_sizes_and_seconds_are_small_numbers(tmp_path: Path, width: str) -> None:
    (tmp_path / "sizes.csv").write_text(f"name,width,height\na,{width},48\n")
    with pytest.raises(AvsegError, match="line 2 holds no size"):
        read_sizes(tmp_path / "sizes.csv")
    (tmp_path / "labels.csv").write_text(f"a,1,dog\nb,{'9' * 5000 if width != 'nan' else width},cat\n")
    with pytest.raises(AvsegError, match=r"line 2: the start .{3,70} is no whole second"):
        read_labels(tmp_path / "labels.csv")


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def nested(levels: int) -> tuple:
    pair: tuple = ()
    for _ in range(levels):
        pair = (pair, pair)
    return pair


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a place in memory that takes 32 GB
        b"\x80\x02" + b"}" + b"N" * 100 + b"0" * 100 + b".",
        b"N0" * 5000 + b"N.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
        pickle.dumps({nested(3): 1}),
        pickle.dumps(torch.full((5, 1, 96, 64), 3e38)),
        pickle.dumps(torch.full((5, 1, 96, 64), -torch.inf)),
        pickle.dumps(Call(torch.storage._load_from_bytes, b"PK\x03\x04" + bytes(100))),
    ],
    ids=["memo", "pops", "steps", "bytes", "hashing", "3e38", "infinite", "archive"],
)
def test_a_pickle_costs_no_more_than_its_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pkl "):
        load_log_mel(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 8, b"\xff" * 100, struct.pack("<Q", 200_000) + b"[" * 300_000, struct.pack("<Q", 2) + b"{}" * 50],
    ids=["empty", "short", "long header", "nested", "no rows"],
)
def test_a_damaged_shard_counts_as_absent(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.safetensors|JSON|Expecting|nested"):
        Shard(tmp_path / "a.safetensors")


def test_no_validation_videos_are_told_before_anything_else(tmp_path: Path) -> None:
    make_avsbench(tmp_path, videos={"train": 2, "test": 1}, prepared=True)
    config = Config(data=DataConfig(root=str(tmp_path)), run=RunConfig(out=str(tmp_path / "run"), accelerator="cpu"))
    with pytest.raises(AvsegError, match="no videos of split 'val': training is validated on them, so write val in"):
        train(config)
    with pytest.raises(AvsegError, match=r"no videos of split 'val': .* write val in the column split"):
        whole_videos(avsbench(tmp_path, "s4"), "val")
    data = avsbench(tmp_path, "s4")
    write_index(data, [frame for frame in read_frames(data) if frame.split == "train"])
    with pytest.raises(AvsegError, match=r"no videos of split 'test': its videos are of train: choose"):
        whole_videos(avsbench(tmp_path, "s4"), "test")


def test_a_message_is_one_line_whatever_a_file_says(tmp_path: Path) -> None:
    index = avsbench(tmp_path, "s4").index
    index.parent.mkdir()
    index.write_bytes(table(split='"a\nb\x1b[2J\u202e"'))
    with pytest.raises(AvsegError) as told:
        read_videos(tmp_path, "s4")
    assert str(told.value).isprintable()


@pytest.mark.parametrize("value", ["3", "-0.1", "NaN", "1e999", "1" + "0" * 400, '"x"', "[]", "[" * 100_000])
def test_scores_lie_between_0_and_1(tmp_path: Path, value: str) -> None:
    video = '{"name": "a", "category": "", "miou": %s, "f_score": 0.5, "frames": [0.5, null], "silent": [false, true]}'
    head = '{"format_version": 1, "model": "m", "root": "r", "subset": "s4", "split": "test", "avseg": "1", '
    text = head + '"protocols": {"T=5": {"diagnostics": {}, "videos": [' + video + "]}}}"
    (tmp_path / "scores.json").write_text(text % "0.5")
    assert read_evaluation(tmp_path / "scores.json").scores["T=5"].miou == 0.5
    (tmp_path / "scores.json").write_text(text % value)
    with pytest.raises(AvsegError, match=r"scores\.json .*: give a file that `avseg evaluate --json` wrote"):
        read_evaluation(tmp_path / "scores.json")
