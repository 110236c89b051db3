"""Prepared data say which front end made them, and a model that expects another one is told."""

import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import make_avsbench, read_videos
from toy_models import toy

from avseg.config import AUDIO_OFFSET, Config, DataConfig, InputConfig, ModelConfig
from avseg.data.avsbench import avsbench, distant_frames
from avseg.data.frames import DataSet, Frame
from avseg.data.front_end import FrontEndWarning, PreparedWith
from avseg.data.loader import evaluation_clips, training_data
from avseg.data.log_mel import load_log_mel
from avseg.data.mine import mine
from avseg.data.prepare import prepare
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, Recording, shipped_model
from avseg.inference.moments import View
from avseg.inference.source import open_source
from avseg.media.audio import frame_log_mel, load_audio
from avseg.media.front_end import official_pairs, official_sound
from avseg.media.images import read_image
from avseg.media.video import FramePair


def inputs(front_end: str = "clean") -> InputConfig:
    return InputConfig(image_size=32, front_end=front_end)  # type: ignore[arg-type]


def told(root: Path, front_end: str) -> list[str]:
    """What opening the data says, for evaluation and for training."""
    config = Config(data=DataConfig(root=str(root)), model=ModelConfig(inputs=inputs(front_end)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluation_clips(root, "s4", "test", inputs(front_end))
        training_data(config)
    return [str(found.message) for found in caught if issubclass(found.category, FrontEndWarning)]


def test_avsbench_front_end_makes_the_authors_files(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "s4", {"train": 1, "test": 1}, size=96)
    assert not prepare(tmp_path, "s4", size=96, front_end="avsbench", workers=1).failures
    layout = avsbench(tmp_path, "s4")
    assert PreparedWith.of(layout) == PreparedWith("avsbench", AUDIO_OFFSET)
    for video in read_videos(tmp_path, "s4"):
        raw = video[0].raw
        for k, pair in enumerate(official_pairs(raw, range(1, 6), (96, 96)), 1):
            assert np.array_equal(read_image(video[k - 1].image), pair.frame)
        theirs = torch.from_numpy(frame_log_mel(official_sound(raw)))
        assert (load_log_mel(video[0].log_mel) - theirs).abs().max() <= 1e-5
    assert len(told(tmp_path, "clean")) == 2
    (first, _) = told(tmp_path, "clean")
    assert "was made with front_end avsbench, and the model has model.inputs.front_end clean" in first
    assert told(tmp_path, "avsbench") == []


def test_what_is_there_decides_unless_overwritten(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "s4", {"train": 1, "test": 1}, prepared=True)
    layout = avsbench(tmp_path, "s4")
    assert PreparedWith.of(layout) == PreparedWith("clean", AUDIO_OFFSET)
    with pytest.raises(AvsegError, match="made with front end clean, not avsbench: give --front_end clean, or --over"):
        prepare(tmp_path, "s4", front_end="avsbench", workers=1)
    assert prepare(tmp_path, "s4", workers=1).written == {}
    assert prepare(tmp_path, "s4", front_end="avsbench", overwrite=True, workers=1).written["frames"] == 10
    assert PreparedWith.of(layout) == PreparedWith("avsbench", AUDIO_OFFSET)
    for text in (
        "{}",
        "[" * 100_000,
        '{"front_end": "clean", "audio_offset": NaN}',
        '{"front_end": [], "audio_offset": 0.0}',
    ):
        layout.front_end.write_text(text)
        with pytest.raises(AvsegError, match=r"made-s4\.json is .*: run `avseg data prepare` with --overwrite"):
            prepare(tmp_path, "s4", workers=1)


def test_data_without_a_note_are_told_apart_by_who_wrote_their_sound(tmp_path: Path) -> None:
    """avseg writes one channel behind a bare header; ffmpeg, which wrote the published sounds, names itself there."""
    make_avsbench(tmp_path, "s4", {"train": 1, "test": 1}, prepared=True)
    layout = avsbench(tmp_path, "s4")
    layout.front_end.unlink()
    assert PreparedWith.of(layout) == PreparedWith("clean", AUDIO_OFFSET)
    for wav in (layout.folder / "s4_data" / "audio_wav").rglob("*.wav"):
        plain = wav.read_bytes()
        wav.write_bytes(plain[:36] + b"LIST\x04\x00\x00\x00INFO" + plain[36:])
    assert PreparedWith.of(layout) == PreparedWith("avsbench", AUDIO_OFFSET)
    assert len(told(tmp_path, "clean")) == 2
    assert prepare(tmp_path, "s4", workers=1, flow_method="dis").written == {"flow": 10}
    assert PreparedWith.of(layout) == PreparedWith("avsbench", AUDIO_OFFSET), "noted by now"
    shutil.rmtree(layout.folder / "s4_data" / "visual_frames")
    shutil.rmtree(layout.folder / "s4_data" / "audio_log_mel")
    layout.front_end.unlink()
    assert PreparedWith.of(layout) is None


def test_distant_frames_that_were_centred_are_not_mixed_with_others(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "ms3", {"train": 1, "val": 1}, distant=2, prepared=True)
    distant = distant_frames(tmp_path / "MS3_Extend")
    assert PreparedWith.of(distant) == PreparedWith("clean", AUDIO_OFFSET)
    distant.front_end.unlink()  # as before notes were taken
    assert PreparedWith.of(distant) == PreparedWith("clean", 0.0)
    data = DataConfig(root=str(tmp_path), subset="ms3")
    config = Config(data=data, model=ModelConfig(inputs=inputs()))
    config.ufe.distant_frames = True
    with pytest.warns(FrontEndWarning, match=r"MS3_Extend was made with audio_offset 0\.0"):
        training_data(config)
    assert prepare(tmp_path, "ms3", workers=1).written == {}, "nothing is missing"
    next((distant.folder / "audios_log_mel").glob("*.pkl")).unlink()
    with pytest.raises(AvsegError, match=r"audios_log_mel holds sound that was cut 0\.46 s later"):
        prepare(tmp_path, "ms3", workers=1)
    shutil.rmtree(distant.folder / "audios_log_mel")
    assert prepare(tmp_path, "ms3", workers=1).written == {"log_mel": 2}
    assert PreparedWith.of(distant) == PreparedWith("clean", AUDIO_OFFSET)


def test_mined_frames_are_made_as_the_data_set_s(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "ms3", {"train": 1}, distant=1)
    assert not prepare(tmp_path, "ms3", front_end="avsbench", workers=1).failures
    source = tmp_path / "VGGSound"
    (source / "l.csv").write_text("-vgg_1,30,helicopter,train\n")
    report = mine(source, tmp_path, tmp_path / "mined", workers=1)
    assert len(report.frames) == 1
    assert PreparedWith.of(distant_frames(report.folder)) == PreparedWith("avsbench", AUDIO_OFFSET)
    clean = mine(source, _clean(tmp_path), tmp_path / "clean_mined", workers=1)
    ours = [read_image(folder / "images" / "1.png").astype(int) for folder in (report.folder, clean.folder)]
    assert np.abs(ours[0] - ours[1]).max() <= 2, "a frame of the video's own size"
    sounds = [load_log_mel(folder / "audios_log_mel" / "1.pkl") for folder in (report.folder, clean.folder)]
    assert (sounds[0] - sounds[1]).abs().mean() > 0.05
    with pytest.raises(AvsegError, match=r"front end avsbench, and .* with clean: name another --out, or remove"):
        mine(source, tmp_path / "other", tmp_path / "mined", workers=1)


def _clean(root: Path) -> Path:
    shutil.copytree(root / "Multi-sources", root / "other" / "Multi-sources")
    assert not prepare(root / "other", "ms3", overwrite=True, front_end="clean", workers=1).failures
    return root / "other"


def test_inference_sees_and_hears_with_the_models_front_end(tmp_path: Path) -> None:
    """What a model is given of a raw video's frame is what was prepared of it."""
    make_avsbench(tmp_path, "s4", {"test": 1}, size=96)
    assert not prepare(tmp_path, "s4", size=96, front_end="avsbench", workers=1).failures
    layout, (video,) = avsbench(tmp_path, "s4"), read_videos(tmp_path, "s4")
    stored = load_log_mel(video[0].log_mel)[0, 0].numpy()
    for given in (video[0].raw, Recording([np.zeros((96, 96, 3), np.uint8)] * 40, 8, _wave(layout, video))):
        apart = {}
        for front_end in ("clean", "avsbench"):
            segmenter = AVSegmenter(toy("light", front_end=front_end), "cpu")
            glimpse = next(segmenter._glimpses(open_source(given, 1.0, 15 / 16), keep=False))
            apart[front_end] = float(np.abs(glimpse.log_mel[0] - stored).mean())
        assert apart["avsbench"] < 0.02 < 0.1 < apart["clean"]


def _wave(layout: DataSet, video: tuple[Frame, ...]) -> np.ndarray:
    return load_audio(video[0].raw)


def test_pictures_of_any_size_shrink_as_the_front_end_says() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    for front_end, method in (("clean", cv2.INTER_AREA), ("avsbench", cv2.INTER_LINEAR)):
        view = View.of(inputs(front_end), 160, 90)
        glimpse = view.glimpse(FramePair(0.0, picture, None, 0.0), (np.zeros((1, 96, 64)), 0.0), None, False)
        assert np.array_equal(glimpse.pixels.transpose(1, 2, 0), cv2.resize(picture, (32, 32), interpolation=method))


def test_a_model_folder_of_before_hears_as_it_was_trained() -> None:
    assert "audio_offset" not in (Path(str(shipped_model())) / "config.json").read_text(encoding="utf-8")
    read = AVSegmenter.from_pretrained(device="cpu").model.config.inputs
    assert (read.front_end, read.audio_offset) == ("clean", -0.4575)
