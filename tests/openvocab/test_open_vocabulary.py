"""Open vocabulary: what is heard, looked for and chosen; streams, files and names; what can't be is a sentence."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_mp4

from avseg.errors import AvsegError
from avseg.inference import segment_video
from avseg.inference.audio_windows import SILENCE as QUIET
from avseg.media.images import decode_rle, read_mask
from avseg.openvocab.choose import Choice, choose, motion_of, without_camera
from avseg.openvocab.hear import AST, Listener, Names, Wanted
from avseg.openvocab.nouns import read_nouns
from avseg.openvocab.see import Both, InstanceEyes, PromptedEyes, Sighting
from avseg.openvocab.segmenter import OpenVocabulary

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BELL, DOG, SILENCE, BrightEyes, LoudTagger, write_ast, write_clipseg, write_rf_detr

SMALL = Choice(size=64)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_mp4(tmp_path / "disc.mp4", seconds=3, size=(96, 64))
    return tmp_path / "disc.mp4"


# ---- Hear ----


def pieces(wave: np.ndarray) -> "Iterator[np.ndarray]":
    return (wave[at : at + 5000] for at in range(0, len(wave), 5000))


def test_windows_are_tagged_once_and_interpolated_between_their_centres() -> None:
    wave = np.zeros(16000 * 10, np.float32)
    wave[5 * 16000 :] = 0.5
    tagger = LoudTagger()
    listener = Listener(tagger, lambda second: pieces(wave[second * 16000 :]))
    times = np.arange(0, 9.9, 0.1)
    barks = np.array([listener.at(time)[1] for time in times])
    assert tagger.windows == 11
    assert barks[times <= 4].max() == 0  # the window around 4 s ends at 5 s
    assert barks[times >= 5] == pytest.approx(0.8)
    assert barks[45] == pytest.approx(0.4)  # halfway between the windows around 4 and 5 s
    assert listener.loudness(9.0) == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert Listener(tagger, lambda second: pieces(wave[second * 16000 :])).loudness(1.0) == QUIET


def test_a_listener_that_starts_late_hears_the_same() -> None:
    wave = np.random.default_rng(0).normal(0, 0.005, 16000 * 20).astype(np.float32)
    wave[12 * 16000 : 14 * 16000] *= 20

    def at(start: float) -> list[np.ndarray]:
        listener = Listener(LoudTagger(), lambda second: pieces(wave[second * 16000 :]), start)
        return [listener.at(start + step / 4) for step in range(int((19 - start) * 4))]

    whole, late = at(0.0), at(11.5)
    np.testing.assert_array_equal(np.stack(late), np.stack(whole[46:]))


def test_classes_become_nouns_the_surest_first() -> None:
    names = Names([SILENCE, DOG, BELL], 0.1, 3)
    wanted = names.wanted(np.array([0.9, 0.6, 0.5]))
    assert wanted[0].noun == "dog"
    assert {one.name for one in wanted} == {"Bark", "Bell"}
    assert [one.sound for one in wanted] == sorted((one.sound for one in wanted), reverse=True)
    assert names.wanted(np.array([1.0, 0.05, 0.0])) == ()
    everything = Names(list(read_nouns()), 0.1, 6)
    assert len(everything.wanted(np.ones(527))) == 6


def test_a_part_of_the_classes_is_accepted_and_unknown_ones_are_named() -> None:
    with pytest.raises(AvsegError, match="there are '/m/nothing'"):
        Names([DOG, "/m/nothing"], 0.1, 3)
    with pytest.raises(AvsegError, match="there are none at all"):
        Names([], 0.1, 3)


def test_ast_gives_a_probability_of_every_class(tmp_path: Path) -> None:
    tagger = AST(write_ast(tmp_path / "ast"))
    assert tagger.mids == list(read_nouns())
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 32000)).astype(np.float32)
    found = tagger.tag(wave)
    assert found.shape == (2, 527)
    assert ((found > 0) & (found < 1)).all()
    assert not np.allclose(found[0], tagger.tag(np.zeros((1, 32000), np.float32))[0])


# ---- See ----


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "ast": write_ast(root / "ast"),
        "clipseg": write_clipseg(root / "clipseg"),
        "rf_detr": write_rf_detr(root / "rf_detr"),
    }


FRAMES = np.random.default_rng(1).integers(0, 255, (2, 96, 96, 3), dtype=np.uint8)
WANTED = (Wanted("dog", ("dog",), "Bark", 0.8), Wanted("bell", (), "Bell", 0.4))


def test_instances_are_of_wanted_classes_alone(folders: dict[str, Path]) -> None:
    eyes = InstanceEyes(folders["rf_detr"], least=0.0)
    assert eyes.side == 64
    first, second = eyes.look(FRAMES, [WANTED, ()])
    assert len(first) == 5
    assert {one.wanted.noun for one in first} == {"dog"}
    assert second == []
    assert all(one.mask.shape == (96, 96) and 0 <= one.mask.min() <= one.mask.max() <= 1 for one in first)
    with torch.inference_mode():
        chances = eyes.model(torch.zeros(1, 3, 64, 64)).logits.sigmoid()
    assert chances.shape[-1] >= 3
    assert InstanceEyes(folders["rf_detr"], least=1.0).look(FRAMES, [WANTED, WANTED]) == [[], []]


def test_prompts_give_one_candidate_a_noun(folders: dict[str, Path]) -> None:
    eyes = PromptedEyes(folders["clipseg"], least=0.0)
    first, second = eyes.look(FRAMES, [WANTED, WANTED[1:]])
    assert [one.wanted.noun for one in first] == ["dog", "bell"]
    assert [one.wanted.noun for one in second] == ["bell"]
    assert all(one.mask.max() == pytest.approx(1.0) for one in [*first, *second])
    assert not np.allclose(first[0].mask, first[1].mask)  # the text counts
    assert not np.allclose(first[1].mask, second[0].mask)  # so does the frame
    alone = eyes.look(FRAMES[1:], [WANTED[1:]])[0][0]
    np.testing.assert_allclose(alone.mask, second[0].mask, atol=1e-4)


def test_instances_first_and_prompts_for_the_rest(folders: dict[str, Path]) -> None:
    eyes = Both(InstanceEyes(folders["rf_detr"], least=0.0), PromptedEyes(folders["clipseg"], least=0.0))
    found = eyes.look(FRAMES, [WANTED, ()])
    assert [one.wanted.noun for one in found[0]] == ["dog"] * 5 + ["bell"]
    assert found[1] == []


def test_a_folder_of_something_else_is_a_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"config\.json is missing"):
        PromptedEyes(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AvsegError, match="is no ASTForAudioClassification that can be loaded"):
        AST(tmp_path)


# ---- Choose ----


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, left:right] = 1
    return mask


def test_the_cameras_motion_is_taken_away() -> None:
    y, x = np.mgrid[0:32, 0:32] / 32 - 0.5
    camera = np.stack([2 + 3 * x, 3 * y - 1]).astype(np.float32)  # a pan and a zoom
    assert without_camera(camera).max() < 1e-5
    moving = camera.copy()
    moving[0, 8:24, 4:12] += 2
    residual = without_camera(moving)
    inside = box(4, 12) > 0.5
    assert residual[inside].mean() > 1.5
    assert residual[~inside].mean() < 0.3
    assert motion_of(residual, inside) > 0.8 > 0.3 > motion_of(residual, box(18, 26) > 0.5)
    assert motion_of(np.zeros((32, 32)), inside) == pytest.approx(0.5)


def test_sound_sight_and_motion_decide_and_the_best_are_united() -> None:
    flow = np.zeros((2, 32, 32), np.float32)
    flow[0, 8:24, 4:12] = 3
    loud, faint = Wanted("dog", (), "Bark", 0.8), Wanted("bell", (), "Bell", 0.2)
    left, right = Sighting(loud, 0.9, box(4, 12)), Sighting(loud, 0.9, box(20, 28))
    score, found = choose([right, left], flow, Choice(keep=0.9))
    assert [one.noun for one in found] == ["dog"]
    np.testing.assert_array_equal(score >= 0.5, box(4, 12) > 0.5)
    np.testing.assert_array_equal(decode_rle(found[0].region), box(4, 12) > 0.5)
    parts = found[0]
    assert parts.score == pytest.approx(0.8 * 0.9 * parts.motion**0.5)
    assert len(choose([right, left], flow, Choice(keep=0.9, motion=0.0))[1]) == 2
    score, found = choose([left, Sighting(faint, 0.9, box(20, 28))], np.zeros_like(flow), Choice(keep=0.6))
    assert [one.name for one in found] == ["Bark"]
    score, found = choose([left], flow, Choice(least_score=0.9))
    assert (found, score.max()) == ((), 0)
    assert choose([], flow, Choice())[1] == ()


def test_a_thing_found_under_several_names_counts_once_with_their_sum() -> None:
    mask, other = np.zeros((2, 16, 16), np.float32)
    mask[2:8, 2:8] = other[10:14, 10:14] = 1
    names = [Wanted(noun, (), noun, sound) for noun, sound in (("dog", 0.3), ("animal", 0.2), ("bell", 0.4))]
    seen = [Sighting(names[1], 0.5, mask.copy()), Sighting(names[0], 1.0, mask), Sighting(names[2], 0.9, other)]
    _, found = choose(seen, np.zeros((2, 16, 16), np.float32), Choice(motion=0.0, keep=0.1))
    assert [(one.noun, round(one.score, 6)) for one in found] == [("dog", 0.4), ("bell", 0.36)]
    many = [Sighting(names[0], 1.0, mask) for _ in range(9)]
    assert choose(many, np.zeros((2, 16, 16), np.float32), Choice(motion=0.0))[1][0].score == 1.0


# ---- Whole ----


def test_a_video_is_streamed_and_named(video: Path) -> None:
    eyes = BrightEyes()
    segmenter = OpenVocabulary(LoudTagger(), eyes, "cpu", how=SMALL)
    moments = list(segmenter.stream(video, fps=4))
    assert [moment.time for moment in moments] == [n / 4 for n in range(12)]
    for moment in moments:
        disc = moment.frame.max(axis=2) > 140
        assert (moment.mask & disc).sum() / (moment.mask | disc).sum() > 0.7
        assert [one.name for one in moment.found] == ["Bark"]
    assert set(eyes.asked) == {("dog",)}
    result = segmenter(video, fps=4)
    for index, moment in enumerate(moments):
        np.testing.assert_array_equal(result.mask(index), moment.mask)
        assert result.names(index) == moment.found


def test_silence_is_an_empty_mask(tmp_path: Path) -> None:
    write_mp4(tmp_path / "quiet.mp4", seconds=2)
    from avseg import Recording

    frames = np.full((8, 64, 64, 3), 200, np.uint8)
    recording = Recording(frames, 4, np.zeros(32000, np.float32))
    result = OpenVocabulary(LoudTagger(), BrightEyes(), "cpu", how=SMALL)(recording, fps=4)
    assert result.scores.max() == 0
    assert result.found == ()


def test_files_say_what_was_found(video: Path, tmp_path: Path) -> None:
    segmenter = OpenVocabulary(LoudTagger(), BrightEyes(), "cpu", how=SMALL)
    report = segment_video(video, segmenter, tmp_path / "out", fps=4, save=("video", "masks", "coco", "npz"))
    summary = json.loads(report.summary.read_text())
    assert summary["options"]["model"] == "open-vocabulary"
    (found,) = summary["moments"][0]["found"]
    assert (found["name"], found["noun"], found["sound"]) == ("Bark", "dog", 0.8)
    coco = json.loads((tmp_path / "out" / "disc" / "coco.json").read_text())
    assert [each["name"] for each in coco["categories"]] == ["sounding object", "Bark"]
    assert {each["category_id"] for each in coco["annotations"]} == {2}
    mask = read_mask(tmp_path / "out" / "disc" / "masks" / coco["images"][3]["file_name"])
    np.testing.assert_array_equal(decode_rle(coco["annotations"][3]["segmentation"]), mask)


def test_names_are_written_on_the_overlay_unless_switched_off(video: Path, tmp_path: Path) -> None:
    from avseg.media.video import read_frames

    shown = {}
    for labels in (True, False):
        segmenter = OpenVocabulary(LoudTagger(), BrightEyes(), "cpu", how=SMALL)
        report = segment_video(video, segmenter, tmp_path / str(labels), fps=4, save=("video",), labels=labels)
        shown[labels] = read_frames(report.video, [1.0])[0]
    assert np.abs(shown[True].astype(int) - shown[False]).max() > 100


def test_several_things_are_annotated_apart(video: Path, tmp_path: Path) -> None:
    class Two(LoudTagger):
        def tag(self, windows: np.ndarray) -> np.ndarray:
            return np.tile([0.0, 0.8, 0.8], (len(windows), 1))

    class Halves(BrightEyes):
        def look(self, frames: np.ndarray, wanted):  # type: ignore[no-untyped-def]
            left = np.zeros(frames.shape[1:3], np.float32)
            left[:, : left.shape[1] // 2] = 1
            masks = {"dog": left, "bell": 1 - left}
            return [[Sighting(one, 0.9, masks[one.noun]) for one in each if one.noun in masks] for each in wanted]

    segmenter = OpenVocabulary(Two(), Halves(), "cpu", how=Choice(size=64, keep=0.0))
    result = segmenter(video, fps=2)
    parts = result.parts(0)
    assert {name for name, _ in parts} == {"Bark", "Bell", "sounding object"}
    assert sum(mask.sum() for _, mask in parts) == result.mask(0).sum() == 96 * 64
    result.to_coco(tmp_path / "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert len(coco["annotations"]) == 2 * len(result)


def test_from_folders_runs_on_a_video(folders: dict[str, Path], video: Path) -> None:
    segmenter = OpenVocabulary.from_folders(
        folders["ast"], folders["clipseg"], folders["rf_detr"], "cpu", how=Choice(size=64, least_sound=0.0)
    )
    result = segmenter(video, fps=2)
    assert len(result) == 6
    assert np.isfinite(result.scores.astype(np.float32)).all()


@pytest.mark.parametrize(("name", "value"), [("window", 0.0), ("most_nouns", 0), ("keep", 1.5), ("size", 10)])
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(AvsegError, match=f"{name} is {value}: give a number from"):
        Choice(**{name: value})  # type: ignore[arg-type]
