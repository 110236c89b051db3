"""The table from AudioSet's classes to visible nouns and COCO's classes."""

import csv
import re
from pathlib import Path

import pytest

from avseg.openvocab.nouns import MOST_NOUNS, Sound, read_nouns

COCO = set(
    re.split(
        ",",
        "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
        "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,"
        "handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
        "surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,"
        "broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,"
        "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
        "teddy bear,hair drier,toothbrush",
    )
)

# Class, a noun that it must have, its COCO classes.
PAIRS = [
    ("Speech", "person", ("person",)),
    ("Baby cry, infant cry", "baby", ("person",)),
    ("Choir", "choir", ("person",)),
    ("Clapping", "hand", ("person",)),
    ("Bark", "dog", ("dog",)),
    ("Whimper (dog)", "dog", ("dog",)),
    ("Whimper", "person", ("person",)),
    ("Moo", "cow", ("cow",)),
    ("Oink", "pig", ()),
    ("Bleat", "goat", ("sheep",)),
    ("Quack", "duck", ("bird",)),
    ("Honk", "goose", ("bird",)),
    ("Mouse", "mouse", ()),  # COCO's mouse is a computer's
    ("Cricket", "grasshopper", ()),
    ("Whale vocalization", "orca", ()),
    ("Roar", "lion", ()),
    ("Keyboard (musical)", "piano", ()),  # and so is its keyboard
    ("Computer keyboard", "computer keyboard", ("keyboard", "laptop")),
    ("Violin, fiddle", "violin", ()),
    ("Wind instrument, woodwind instrument", "bassoon", ()),
    ("Church bell", "bell tower", ()),
    ("Scratching (performance technique)", "turntable", ()),
    ("Beatboxing", "person", ("person",)),
    ("Theremin", "theremin", ()),
    ("Motor vehicle (road)", "truck", ("car", "truck", "bus", "motorcycle")),
    ("Police car (siren)", "police car", ("car",)),
    ("Fire engine, fire truck (siren)", "fire engine", ("truck",)),
    ("Train horn", "locomotive", ("train",)),
    ("Helicopter", "helicopter", ()),
    ("Skateboard", "skateboard", ("skateboard",)),
    ("Chopping (food)", "knife", ("knife",)),
    ("Chop", "axe", ()),
    ("Hair dryer", "hair dryer", ("hair drier",)),
    ("Toilet flush", "toilet", ("toilet",)),
    ("Telephone", "telephone", ("cell phone",)),
    ("Tick-tock", "clock", ("clock",)),
    ("Sawing", "saw", ()),
    ("Basketball bounce", "basketball", ("sports ball",)),
    ("Television", "television", ("tv",)),
    ("Waterfall", "waterfall", ()),
]

NOTHING_TO_SEE = [
    *("Music", "Pop music", "Rock music", "Heavy metal", "Country", "Jazz", "Opera", "Techno", "Drum and bass"),
    *("Classical music", "Salsa music", "Song", "Lullaby", "Christmas music", "Video game music", "Jingle (music)"),
    *("Happy music", "Funny music", "Sad music", "Tender music", "Exciting music", "Angry music", "Scary music"),
    *("Silence", "Wind", "Wind noise (microphone)", "Noise", "White noise", "Pink noise", "Static", "Mains hum"),
    *("Echo", "Reverberation", "Distortion", "Sound effect", "Sine wave", "Chirp tone", "Hum", "Rumble", "Bang"),
    *("Inside, small room", "Inside, large room or hall", "Inside, public space", "Field recording"),
    *("Outside, urban or manmade", "Outside, rural or natural", "Environmental noise", "Heart murmur"),
]


@pytest.fixture(scope="module")
def by_name() -> dict[str, Sound]:
    return {sound.name: sound for sound in read_nouns().values()}


def test_every_class_of_audioset_is_there_once_in_its_order() -> None:
    with Path(__file__).with_name("audioset_527.csv").open(encoding="utf-8", newline="") as file:
        expected = [(row["mid"], row["name"]) for row in csv.DictReader(file)]
    assert len(expected) == 527
    sounds = read_nouns()
    assert [(mid, sound.name) for mid, sound in sounds.items()] == expected
    assert all(mid == sound.mid for mid, sound in sounds.items())


def test_names_are_unique(by_name: dict[str, Sound]) -> None:
    assert len(by_name) == 527


def test_nouns_are_few_plain_and_different() -> None:
    for sound in read_nouns().values():
        assert len(set(sound.nouns)) == len(sound.nouns) <= MOST_NOUNS, sound
        assert all(re.fullmatch(r"[a-z]+(?:[ -][a-z]+)*", noun) for noun in sound.nouns), sound


def test_coco_classes_are_spelt_as_coco_does() -> None:
    assert len(COCO) == 80
    for sound in read_nouns().values():
        assert set(sound.coco) <= COCO, sound
        assert len(set(sound.coco)) == len(sound.coco), sound
        assert sound.nouns or not sound.coco, sound


@pytest.mark.parametrize(("name", "noun", "coco"), PAIRS)
def test_a_class_has_what_one_would_mark(
    by_name: dict[str, Sound], name: str, noun: str, coco: tuple[str, ...]
) -> None:
    assert noun in by_name[name].nouns
    assert by_name[name].coco == coco


@pytest.mark.parametrize("name", NOTHING_TO_SEE)
def test_what_no_camera_sees_has_no_nouns(by_name: dict[str, Sound], name: str) -> None:
    assert by_name[name].nouns == by_name[name].coco == ()


def test_most_classes_have_nouns() -> None:
    assert sum(bool(sound.nouns) for sound in read_nouns().values()) > 400


def test_the_dictionary_is_the_callers_own() -> None:
    read_nouns().clear()
    assert len(read_nouns()) == 527
