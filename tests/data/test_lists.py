import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import read_videos

from avseg.data.avsbench import avsbench, distant_frames, frame_index, read_frames, video_frames, write_index
from avseg.data.frames import Frame, Subset
from avseg.data.lists import (
    label_subset,
    read_label_subset,
    read_sizes,
    write_label_subset,
    write_label_subsets,
    write_sizes,
)
from avseg.errors import AvsegError

S4 = [("-_wznbUu3DY", "train", "helicopter"), ("0d9u2CymIxc", "test", "helicopter"), ("__GOGlHL23s", "val", "bird")]
MS3 = [("UvHjKXLqmC8", "val"), ("UvHjKXLqmC8_0", "train")]


def table(root: Path, subset: Subset, videos: Iterable[tuple[str, ...]]) -> list[Frame]:
    """The frames of videos that are given by name, split and category."""
    data = avsbench(root, subset)
    return [frame for video in videos for frame in video_frames(data, *video)]


def write_frame_index(root: Path) -> Path:
    """UFE's list of the frames of `S4`, as it was published."""
    rows = [
        "name,start,category,split,time,label",
        "-_wznbUu3DY,5,helicopter,train,0,Y",
        *(f"-_wznbUu3DY,5,helicopter,train,{time},N" for time in range(1, 5)),
        "0d9u2CymIxc,0,helicopter,test,,Y",
        "__GOGlHL23s,4,bird,val,,Y",
    ]
    path = frame_index(avsbench(root, "s4"))
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def _write(root: Path, text: str, name: str = "s4_meta_data.csv") -> Path:
    path = root / ("Single-source" if name.startswith("s4") else "Multi-sources") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_written_indices_are_read_again_in_order(tmp_path: Path) -> None:
    for subset, videos in (("s4", S4), ("ms3", MS3)):
        frames = table(tmp_path, subset, videos)  # type: ignore[arg-type]
        write_index(frames[0].data, frames)
        assert read_frames(frames[0].data) == frames
    s4 = avsbench(tmp_path, "s4")
    assert s4.index.read_text().splitlines()[:2] == ["name,start,category,split", "-_wznbUu3DY,0,helicopter,train"]


def test_a_published_list_of_frames_that_agrees_is_accepted(tmp_path: Path) -> None:
    frames = table(tmp_path, "s4", S4)
    write_index(frames[0].data, frames)
    write_frame_index(tmp_path)
    assert read_frames(frames[0].data) == frames


def test_ms3_frame_index_counts_from_one(tmp_path: Path) -> None:
    frames = table(tmp_path, "ms3", MS3)
    write_index(frames[0].data, frames)
    path = frame_index(frames[0].data)
    path.write_text("video_id,split,time\n" + "".join(f"UvHjKXLqmC8_0,train,{k}\n" for k in range(1, 6)))
    assert read_frames(frames[0].data) == frames
    path.write_text(path.read_text().replace("train,5", "train,0"))
    with pytest.raises(AvsegError, match=r"time '0' is not one of 1\.\.5"):
        read_frames(frames[0].data)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    _write(tmp_path, "\ufeffvideo_id,split\r\na,train\r\n\r\n", "ms3_meta_data.csv")
    assert read_frames(avsbench(tmp_path, "ms3")) == table(tmp_path, "ms3", [("a", "train")])


def test_a_missing_csv_says_what_is_expected_and_whom_to_ask(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"s4_meta_data\.csv.*Single-source.*authors"):
        read_videos(tmp_path, "s4")
    (tmp_path / "Single-source").mkdir()
    with pytest.raises(AvsegError, match="give the folder above"):
        read_videos(tmp_path / "Single-source", "s4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,start,split\na,0,train\n", "no column 'category'"),
        ("", "no column 'name'"),
        ("name,start,category,split\n", "lists no videos"),
        ("name,start,category,split\na,0,dog\n", "line 2 is incomplete"),
        ("name,start,category,split\na,0,dog,training\n", "line 2: split 'training'"),
        ("name,start,category,split\na,0,dog,train\nb,0,dog,val\na,3,dog,train\n", "lists a in lines 2 and 4"),
        ("name,start,category,split\n../../a,0,dog,train\n", r"line 2: '../../a' is not a plain name"),
        ("name,start,category,split\na,0,..,train\n", r"line 2: '..' is not a plain name"),
        ("name,start,category,split\n,0,dog,train\n", "line 2: '' is not a plain name"),
    ],
)
def test_faulty_csvs_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(AvsegError, match=message) as caught:
        read_videos(tmp_path, "s4")
    assert str(path) in str(caught.value)


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    _write(tmp_path, "").write_bytes(b"\xff\xfe\x00\x01\x02")
    with pytest.raises(AvsegError, match="line 1 is not text in UTF-16: save it as CSV in UTF-8"):
        read_videos(tmp_path, "s4")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train,0,Y", "train,0,N", "differ over frame 1 of -_wznbUu3DY"),
        ("train,3,N", "train,3,Y", "differ over frame 4 of -_wznbUu3DY"),
        ("-_wznbUu3DY,5,helicopter,train,4,N\n", "", "lists 4 frames of -_wznbUu3DY"),
        ("train,4,N", "train,5,N", "time '5' is not one of 0..4"),
    ],
)
def test_a_frame_index_that_contradicts_the_videos_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    frames = table(tmp_path, "s4", S4)
    write_index(frames[0].data, frames)
    path = write_frame_index(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(AvsegError, match=message):
        read_videos(tmp_path, "s4")


def test_distant_frames_from_the_csv_or_from_the_images(tmp_path: Path) -> None:
    own, published = distant_frames(tmp_path / "own"), distant_frames(tmp_path / "published")
    frames = [Frame(own, "2", source="VGGSound/-b_000010.mp4"), Frame(own, "1", source="VGGSound/a_000000.mp4")]
    write_index(own, frames)
    assert read_frames(own) == frames
    own.index.write_text(own.index.read_text().replace("VGGSound/-b", "-b"))
    assert read_frames(own) == frames, "a bare name lies in VGGSound/"
    assert [f.raw for f in frames] == [tmp_path / "VGGSound" / "-b_000010.mp4", tmp_path / "VGGSound" / "a_000000.mp4"]
    for n in (10, 9, 1):
        image = Frame(published, str(n)).image
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    assert [frame.video for frame in read_frames(published)] == ["1", "9", "10"]
    with pytest.raises(AvsegError, match=r"index\.csv.*images"):
        read_frames(distant_frames(tmp_path))
    for path in ("/etc/passwd", "VGGSound/../../a.mp4", ""):
        write_index(own, [Frame(own, "1", source=path)])
        with pytest.raises(AvsegError, match=r"line 2.*not a plain name"):
            read_frames(own)
    write_index(own, [*frames, replace(frames[1], video="2")])
    with pytest.raises(AvsegError, match="same n"):
        read_frames(own)


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "video_sizes.csv"
    assert read_sizes(path) == {}
    write_sizes(path, {"-b": (1280, 720), "a": (64, 48)})
    assert read_sizes(path) == {"-b": (1280, 720), "a": (64, 48)}
    path.write_text("name,width,height\na,wide,48\n")
    with pytest.raises(AvsegError, match="line 2 holds no size"):
        read_sizes(path)


def _many(root: Path = Path()) -> list[Frame]:
    counts = {"dog": 40, "cat": 20, "bell": 10, "train": 3}
    videos = [
        (f"{category}_{split}_{i}", split, category)
        for category, count in counts.items()
        for split, n in (("train", count), ("val", 5))
        for i in range(n)
    ]
    return table(root, "s4", videos)


def test_label_subsets_are_nested_and_balanced() -> None:
    videos = _many()
    fractions = [0.02, 0.1, 0.25, 0.5, 1.0]
    subsets = [label_subset(videos, fraction, seed=3) for fraction in fractions]
    for smaller, larger in itertools.pairwise(subsets):
        assert set(smaller) < set(larger)
    assert [len(subset) for subset in subsets] == [1, 7, 18, 36, 73]
    assert set(subsets[-1]) == {frame.video for frame in videos if frame.split == "train"}
    half = Counter(name.split("_")[0] for name in subsets[3])
    assert abs(half["dog"] - 20) <= 1
    assert abs(half["cat"] - 10) <= 1
    assert abs(half["bell"] - 5) <= 1
    assert 1 <= half["train"] <= 2


def test_a_share_of_labels_is_to_the_nearest_video() -> None:
    videos = table(Path(), "s4", [(f"v{i}", "train" if i < 7 else "val", "dog") for i in range(20)])
    for share, count in ((0.01, 1), (0.2, 1), (0.25, 2), (0.5, 4), (0.8, 6), (1, 7)):
        assert len(label_subset(videos, share)) == count, share


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7, 0.8])
def test_small_categories_get_their_share_and_no_more(share: float) -> None:
    counts = {"dog": 30, "rare": 2, "bell": 8}
    videos = table(Path(), "s4", [(f"{name}_{i}", "train", name) for name, n in counts.items() for i in range(n)])
    found = Counter(name.split("_")[0] for name in label_subset(videos, share))
    assert all(abs(found[name] - share * count) <= 0.6 for name, count in counts.items()), found


def test_label_subsets_depend_on_the_seed_not_on_the_order() -> None:
    videos = _many()
    assert label_subset(videos, 0.25, seed=0) == label_subset(videos[::-1], 0.25, seed=0)
    assert set(label_subset(videos, 0.25, seed=0)) != set(label_subset(videos, 0.25, seed=1))
    with pytest.raises(ValueError, match="fraction"):
        label_subset(videos, 0.0)
    with pytest.raises(ValueError, match="no training videos"):
        label_subset([frame for frame in videos if frame.split == "val"], 0.5)


def test_subsets_in_files_are_nested(tmp_path: Path) -> None:
    files = write_label_subsets(_many(tmp_path), (0.5, 0.125, 1), seed=4)
    folder = tmp_path / "labels"
    assert files == {
        folder / "s4-labels-12.5-seed4.txt": 9,
        folder / "s4-labels-50-seed4.txt": 36,
        folder / "s4-labels-100-seed4.txt": 73,
    }
    small, half, whole = (read_label_subset(path, _many()) for path in files)
    assert small < half < whole
    assert half == set(label_subset(_many(), 0.5, seed=4))
    (elsewhere,) = write_label_subsets(_many(tmp_path), [0.05], out=tmp_path / "lists")
    assert elsewhere == tmp_path / "lists" / "s4-labels-5-seed0.txt"
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv lists no training videos"):
        write_label_subsets(table(tmp_path, "ms3", MS3[:1]), [0.5])


def test_label_subset_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    names = label_subset(table(Path(), "s4", S4), 1.0)
    write_label_subset(path, names)
    assert read_label_subset(path, table(Path(), "s4", S4)) == {"-_wznbUu3DY"}
    path.write_text("-_wznbUu3DY\nnobody\n")
    with pytest.raises(AvsegError, match=r"labels\.txt names 'nobody'"):
        read_label_subset(path, table(Path(), "s4", S4))
    path.write_text("\n")
    with pytest.raises(AvsegError, match="holds no names"):
        read_label_subset(path, table(Path(), "s4", S4))
    with pytest.raises(AvsegError, match=r"data\.labelled"):
        read_label_subset(tmp_path / "none.txt", table(Path(), "s4", S4))
