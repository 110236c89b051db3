import itertools
from collections import Counter
from pathlib import Path

import pytest

from avseg.data.avsbench import (
    DistantFrame,
    DistantLayout,
    Layout,
    Video,
    label_subset,
    read_distant_index,
    read_frame_index,
    read_index,
    read_label_subset,
    read_sizes,
    write_distant_index,
    write_frame_index,
    write_index,
    write_label_subset,
    write_label_subsets,
    write_sizes,
)
from avseg.errors import AvsegError

VIDEOS = [
    Video("-_wznbUu3DY", "helicopter", "train", "s4", 5),
    Video("0d9u2CymIxc", "helicopter", "test", "s4"),
    Video("__GOGlHL23s", "mynah_bird_singing", "val", "s4", 4),
]
MS3 = [Video("UvHjKXLqmC8", "", "val", "ms3"), Video("UvHjKXLqmC8_0", "", "train", "ms3")]


def _write(root: Path, text: str, name: str = "s4_meta_data.csv") -> Path:
    path = root / ("Single-source" if name.startswith("s4") else "Multi-sources") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_written_indices_are_read_again_in_order(tmp_path: Path) -> None:
    write_index(tmp_path, "s4", VIDEOS)
    write_index(tmp_path, "ms3", MS3)
    assert read_index(tmp_path, "s4") == VIDEOS
    assert read_index(tmp_path, "ms3") == MS3


def test_the_csv_is_the_published_one(tmp_path: Path) -> None:
    write_index(tmp_path, "s4", VIDEOS)
    write_frame_index(tmp_path, "s4", VIDEOS)
    layout = Layout(tmp_path, "s4")
    assert layout.index.read_text().splitlines()[:2] == ["name,start,category,split", "-_wznbUu3DY,5,helicopter,train"]
    assert layout.frame_index.read_text().splitlines() == [
        "name,start,category,split,time,label",
        "-_wznbUu3DY,5,helicopter,train,0,Y",
        *(f"-_wznbUu3DY,5,helicopter,train,{time},N" for time in range(1, 5)),
        "0d9u2CymIxc,0,helicopter,test,,Y",
        "__GOGlHL23s,4,mynah_bird_singing,val,,Y",
    ]
    assert read_frame_index(tmp_path, "s4") == [(VIDEOS[0], k, k == 1) for k in range(1, 6)]
    assert read_index(tmp_path, "s4") == VIDEOS


def test_ms3_frame_index_counts_from_one(tmp_path: Path) -> None:
    write_index(tmp_path, "ms3", MS3)
    write_frame_index(tmp_path, "ms3", MS3)
    assert read_frame_index(tmp_path, "ms3") == [(MS3[1], k, True) for k in range(1, 6)]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    _write(tmp_path, "\ufeffvideo_id,split\r\na,train\r\n\r\n", "ms3_meta_data.csv")
    assert read_index(tmp_path, "ms3") == [Video("a", "", "train", "ms3")]


def test_a_missing_csv_says_what_is_expected_and_whom_to_ask(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"s4_meta_data\.csv.*Single-source.*authors"):
        read_index(tmp_path, "s4")
    (tmp_path / "Single-source").mkdir()
    with pytest.raises(AvsegError, match="give the folder above"):
        read_index(tmp_path / "Single-source", "s4")


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
        read_index(tmp_path, "s4")
    assert str(path) in str(caught.value)


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    _write(tmp_path, "").write_bytes(b"\xff\xfe\x00\x01\x02")
    with pytest.raises(AvsegError, match="line 1 is not text in UTF-16: save it as CSV in UTF-8"):
        read_index(tmp_path, "s4")


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
    write_index(tmp_path, "s4", VIDEOS)
    write_frame_index(tmp_path, "s4", VIDEOS)
    path = Layout(tmp_path, "s4").frame_index
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(AvsegError, match=message):
        read_index(tmp_path, "s4")


def test_distant_frames_from_the_csv_or_from_the_pictures(tmp_path: Path) -> None:
    frames = [DistantFrame("2", "-b_000010.mp4"), DistantFrame("1", "VGGSound/a_000000.mp4")]
    write_distant_index(tmp_path / "own", frames)
    assert read_distant_index(tmp_path / "own") == frames
    raw = [DistantLayout(tmp_path / "own").raw_video(frame) for frame in frames]
    assert raw == [tmp_path / "VGGSound" / "-b_000010.mp4", tmp_path / "VGGSound" / "a_000000.mp4"]
    for n in (10, 9, 1):
        picture = tmp_path / "published" / "images" / f"{n}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    assert [frame.name for frame in read_distant_index(tmp_path / "published")] == ["1", "9", "10"]
    with pytest.raises(AvsegError, match=r"index\.csv.*images"):
        read_distant_index(tmp_path)
    for path in ("/etc/passwd", "VGGSound/../../a.mp4", ""):
        write_distant_index(tmp_path / "own", [DistantFrame("1", path)])
        with pytest.raises(AvsegError, match=r"line 2.*not a plain name"):
            read_distant_index(tmp_path / "own")
    write_distant_index(tmp_path / "own", [*frames, frames[0]])
    with pytest.raises(AvsegError, match="same n"):
        read_distant_index(tmp_path / "own")


def test_sizes(tmp_path: Path) -> None:
    path = tmp_path / "video_sizes.csv"
    assert read_sizes(path) == {}
    write_sizes(path, {"-b": (1280, 720), "a": (64, 48)})
    assert read_sizes(path) == {"-b": (1280, 720), "a": (64, 48)}
    path.write_text("name,width,height\na,wide,48\n")
    with pytest.raises(AvsegError, match="line 2 holds no size"):
        read_sizes(path)


def _many() -> list[Video]:
    counts = {"dog": 40, "cat": 20, "bell": 10, "train": 3}
    return [
        Video(f"{category}_{split}_{i}", category, split, "s4")
        for category, count in counts.items()
        for split, n in (("train", count), ("val", 5))
        for i in range(n)
    ]


def test_label_subsets_are_nested_and_balanced() -> None:
    videos = _many()
    fractions = [0.02, 0.1, 0.25, 0.5, 1.0]
    subsets = [label_subset(videos, fraction, seed=3) for fraction in fractions]
    for smaller, larger in itertools.pairwise(subsets):
        assert set(smaller) < set(larger)
    assert [len(subset) for subset in subsets] == [1, 7, 18, 36, 73]
    assert set(subsets[-1]) == {video.name for video in videos if video.split == "train"}
    half = Counter(name.split("_")[0] for name in subsets[3])
    assert abs(half["dog"] - 20) <= 1
    assert abs(half["cat"] - 10) <= 1
    assert abs(half["bell"] - 5) <= 1
    assert 1 <= half["train"] <= 2


def test_a_share_of_labels_is_to_the_nearest_video() -> None:
    videos = [Video(f"v{i}", "dog", "train" if i < 7 else "val", "s4") for i in range(20)]
    for share, count in ((0.01, 1), (0.2, 1), (0.25, 2), (0.5, 4), (0.8, 6), (1, 7)):
        assert len(label_subset(videos, share)) == count, share


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7, 0.8])
def test_small_categories_get_their_share_and_no_more(share: float) -> None:
    counts = {"dog": 30, "rare": 2, "bell": 8}
    videos = [Video(f"{name}_{i}", name, "train", "s4") for name, count in counts.items() for i in range(count)]
    found = Counter(name.split("_")[0] for name in label_subset(videos, share))
    assert all(abs(found[name] - share * count) <= 0.6 for name, count in counts.items()), found


def test_label_subsets_depend_on_the_seed_not_on_the_order() -> None:
    videos = _many()
    assert label_subset(videos, 0.25, seed=0) == label_subset(videos[::-1], 0.25, seed=0)
    assert set(label_subset(videos, 0.25, seed=0)) != set(label_subset(videos, 0.25, seed=1))
    with pytest.raises(ValueError, match="fraction"):
        label_subset(videos, 0.0)
    with pytest.raises(ValueError, match="no training videos"):
        label_subset([video for video in videos if video.split == "val"], 0.5)


def test_subsets_in_files_are_nested(tmp_path: Path) -> None:
    write_index(tmp_path, "s4", _many())
    files = write_label_subsets(tmp_path, "s4", (0.5, 0.125, 1), seed=4)
    folder = tmp_path / "labels"
    assert files == {
        folder / "s4-labels-12.5-seed4.txt": 9,
        folder / "s4-labels-50-seed4.txt": 36,
        folder / "s4-labels-100-seed4.txt": 73,
    }
    small, half, whole = (read_label_subset(path, _many()) for path in files)
    assert small < half < whole
    assert half == set(label_subset(_many(), 0.5, seed=4))
    (elsewhere,) = write_label_subsets(tmp_path, "s4", [0.05], out=tmp_path / "lists")
    assert elsewhere == tmp_path / "lists" / "s4-labels-5-seed0.txt"
    write_index(tmp_path, "ms3", [MS3[0]])
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv lists no training videos"):
        write_label_subsets(tmp_path, "ms3", [0.5])


def test_label_subset_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    names = label_subset(VIDEOS, 1.0)
    write_label_subset(path, names)
    assert read_label_subset(path, VIDEOS) == {"-_wznbUu3DY"}
    path.write_text("-_wznbUu3DY\nnobody\n")
    with pytest.raises(AvsegError, match=r"labels\.txt names 'nobody'"):
        read_label_subset(path, VIDEOS)
    path.write_text("\n")
    with pytest.raises(AvsegError, match="holds no names"):
        read_label_subset(path, VIDEOS)
    with pytest.raises(AvsegError, match=r"data\.labelled"):
        read_label_subset(tmp_path / "none.txt", VIDEOS)
