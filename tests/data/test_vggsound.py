from pathlib import Path

import pytest

from avseg.data.vggsound import plain, read_folder, read_labels, read_mapping, with_names, youtube_ids
from avseg.errors import AvsegError

AVSBENCH = [
    "baby_laughter",
    "female_singing",
    "male_speech",
    "dog_barking",
    "cat_meowing",
    "lions_roaring",
    "horse_clip-clop",
    "coyote_howling",
    "mynah_bird_singing",
    "playing_acoustic_guitar",
    "playing_tabla",
    "playing_violin",
    "playing_piano",
    "playing_ukulele",
    "playing_glockenspiel",
    "helicopter",
    "race_car",
    "driving_buses",
    "ambulance_siren",
    "typing_on_computer_keyboard",
    "chainsawing_trees",
    "cap_gun_shooting",
    "lawn_mowing",
]


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_table_covers_avsbench_and_nothing_else() -> None:
    mapping = read_mapping()
    assert set(mapping.values()) == set(AVSBENCH)
    assert len(AVSBENCH) == 23
    for label, category in {
        "male speech, man speaking": "male_speech",
        "playing violin, fiddle": "playing_violin",
        "playing violin fiddle": "playing_violin",
        "race car, auto racing": "race_car",
        "dog bow-wow": "dog_barking",
        "horse clip-clop": "horse_clip-clop",
    }.items():
        assert mapping[plain(label)] == category
    for label in ("female speech, woman speaking", "male singing", "dog growling", "playing electric guitar"):
        assert plain(label) not in mapping


def test_names_of_categories_are_labels_too() -> None:
    known = with_names(read_mapping(), ["siren_truck"])
    assert known[plain("horse_clip-clop")] == "horse_clip-clop"
    assert known[plain("siren truck")] == known["siren truck"] == "siren_truck"
    assert with_names({"helicopter": "race_car"}, ["helicopter"])["helicopter"] == "race_car", "the table has the word"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b\n1,2\n", "has no column 'label': its first line should be label,category."),
        ("label,category\n", "lists no labels"),
        ("label,category\nx,../y\n", r"line 2: '\.\./y' is no category's name"),
        ("label,category\nx y,a\nX-Y,b\n", "line 3 gives 'X-Y' a second category"),
    ],
)
def test_a_faulty_mapping_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        read_mapping(table(tmp_path / "m.csv", text))


def test_labels_with_and_without_a_header(tmp_path: Path) -> None:
    expected = {("---1_cCGK4M", 30): "playing violin, fiddle", ("a_b", 5): "helicopter"}
    rows = '---1_cCGK4M,30,"playing violin, fiddle",train\na_b,5,helicopter,test\n'
    assert read_labels(table(tmp_path / "plain.csv", rows)) == expected
    assert read_labels(table(tmp_path / "marked.csv", "\ufeff" + rows)) == expected
    header = "# YouTube ID, start seconds, label,train/test split\n"
    assert read_labels(table(tmp_path / "header.csv", header + rows)) == expected
    moved = "n,label,category,id,start\n1,helicopter,helicopter,a_b,5.0\n"
    assert read_labels(table(tmp_path / "moved.csv", moved)) == {("a_b", 5): "helicopter"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,30,dog barking\nb,31\n", "line 2 is incomplete"),
        ("a,30,dog barking\nb,soon,dog barking\n", "line 2: the start 'soon' is no whole second"),
        ("a_000030.mp4,dog barking\n", "has no column 'id'"),
        ("id,label\na,b\n", "has no column 'start'"),
    ],
)
def test_faulty_labels_are_told(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        read_labels(table(tmp_path / "l.csv", text))


def test_videos_and_labels_meet(tmp_path: Path) -> None:
    """Ids begin with ``-`` and contain ``_``; starts are padded or not; files lie in sub-folders."""
    source = touched(
        tmp_path / "v", "-a_b_000030.mp4", "x_1.mp4", "deep/er/y_7_000012.MP4", "z_3.mp4", "y.mp4", ".tmp-q_1.mp4"
    )
    table(
        source / "any.csv", "-a_b,30,Dog Barking,train\nx,1,unheard of,test\ny_7,12,helicopter,test\nq,1,helicopter,\n"
    )
    found = read_folder(source, read_mapping())
    assert [(v.video, v.start, v.category) for v in found] == [
        ("-a_b", 30, "dog_barking"),
        ("y_7", 12, "helicopter"),
    ]
    assert [v.key for v in found] == ["-a_b_000030", "y_7_000012"]
    assert found[1].path == source / "deep/er/y_7_000012.MP4"


def test_a_folder_that_gives_nothing_is_told(tmp_path: Path) -> None:
    mapping = read_mapping()
    with pytest.raises(AvsegError, match="is no folder"):
        read_folder(tmp_path / "none", mapping)
    with pytest.raises(AvsegError, match=r"holds no CSV of labels: name one with --csv"):
        read_folder(tmp_path, mapping)
    labels = table(tmp_path / "a.csv", "x,1,unheard of,train\n")
    with pytest.raises(AvsegError, match="holds no videos that are called <id>_<start>"):
        read_folder(tmp_path, mapping)
    touched(tmp_path, "y_1.mp4")
    with pytest.raises(AvsegError, match="has no row for any of the 1 videos"):
        read_folder(tmp_path, mapping)
    touched(tmp_path, "x_1.mp4")
    with pytest.raises(AvsegError, match=r"has a category.*--mapping"):
        read_folder(tmp_path, mapping)
    table(tmp_path / "b.csv", "x,1,helicopter,train\n")
    with pytest.raises(AvsegError, match=r"holds 2 CSVs: name that of the labels with --csv"):
        read_folder(tmp_path, mapping)
    assert len(read_folder(tmp_path, mapping, tmp_path / "b.csv")) == 1
    with pytest.raises(AvsegError, match=r"c\.csv does not exist"):
        read_folder(tmp_path, mapping, tmp_path / "c.csv")
    assert labels.is_file()


def test_ids_within_names_of_videos() -> None:
    assert youtube_ids(["-abcdefghi_", "-bcdefghi_1_36", "Abcdefghijk_6000_11000", "short"]) == {
        "-abcdefghi_",
        "-bcdefghi_1_36",
        "-bcdefghi_1",
        "-bcdefghi",
        "Abcdefghijk_6000_11000",
        "Abcdefghijk_6000",
        "Abcdefghijk",
        "short",
    }
