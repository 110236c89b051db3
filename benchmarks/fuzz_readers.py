"""What `benchmarks.fuzz` damages: a small file of every kind, and the way by which the package reads it."""

import io
import json
import pickle
import shutil
import struct
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from avseg.config import Config, InputConfig, ModelConfig, WeightsConfig, load_config
from avseg.data.avsbench import avsbench, distant_frames, frame_index, read_frames, video_frames, write_index
from avseg.data.cache import open_cache
from avseg.data.check import check
from avseg.data.clip import LabelledBatch
from avseg.data.embeddings import audio_embeddings
from avseg.data.frames import Frame
from avseg.data.lists import read_label_subset, write_label_subset, write_sizes
from avseg.data.log_mel import save_log_mel
from avseg.data.rows import batch_of, read_row
from avseg.data.vggsound import read_labels
from avseg.errors import AvsegError
from avseg.evaluation.compare import compare_files, comparison_table
from avseg.evaluation.diagnostics import diagnose, read_scenes
from avseg.evaluation.scores import Evaluation, Scores, VideoScore, read_evaluation, write_evaluation
from avseg.inference import AVSegmenter, Recording, segment_video
from avseg.media.audio import load_audio, log_mel_at, read_wav, write_wav
from avseg.media.flow import write_flow_png, write_published
from avseg.media.images import write_image, write_mask
from avseg.media.video import probe
from avseg.media.writer import write_video
from avseg.models import build, load
from avseg.synthetic import read_benchmark
from benchmarks.fuzz_mutate import VALUES, Kind, mutate

INPUTS = InputConfig(image_size=64)
VIDEO = video_frames(avsbench("", "s4"), "-bark_36", "train", "dog_barking")


@dataclass(frozen=True)
class Seed:
    """A whole file, where it lies below a case's folder, and what reads it there.

    Attributes:
        path: Its place.
        kind: How it is damaged.
        read: Called with the case's folder; raises `AvsegError`, or gives what was read.
    """

    path: Path
    kind: Kind
    read: Callable[[Path], Any]


def prepare(folder: Path) -> dict[str, list[Seed]]:
    """Write every seed into ``folder``, and list them by reader."""
    rng = np.random.default_rng(0)
    video = video_frames(avsbench(folder, "s4"), "-bark_36", "train", "dog_barking")
    flow = rng.normal(0, 3, (2, 64, 64)).astype(np.float32)
    for frame in video:
        write_image(frame.image, rng.integers(0, 255, (64, 64, 3)).astype(np.uint8))
        write_flow_png(frame.flow(), flow)
        for path in frame.published_flow:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_published(*frame.published_flow, flow)
    write_mask(video[0].mask, rng.random((64, 64)) > 0.5)
    save_log_mel(video[0].log_mel, torch.randn(5, 1, 96, 64))
    wave = np.sin(np.arange(16_000) / 20).astype(np.float32) / 2
    video[0].path("wav").parent.mkdir(parents=True, exist_ok=True)
    write_wav(video[0].path("wav"), wave)
    write_index(video[0].data, video)
    rows = [f"{video[0].video},0,dog_barking,train,{k},{'Y' if k == 0 else 'N'}" for k in range(5)]
    frame_index(video[0].data).write_text("name,start,category,split,time,label\n" + "\n".join(rows) + "\n")
    write_sizes(video[0].data.video_sizes, {video[0].video: (640, 480)})
    write_label_subset(folder / "few.txt", [video[0].video])
    extend = distant_frames(folder / "MS3_Extend")
    write_index(extend, [Frame(extend, "1", source="VGGSound/x.mp4")])
    (folder / "vggsound.csv").write_text("abcdefghijk,30,dog barking,train\n")
    frames = [np.full((64, 64, 3), 60, np.uint8) for _ in range(8)]
    for n, image in enumerate(frames):
        cv2.circle(image, (10 + 5 * n, 30), 8, (250, 200, 90), -1)
    write_video(folder / "clip.mp4", frames, 8, audio=wave, sample_rate=16_000)
    write_image(folder / "shots" / "1.png", frames[0])
    write_wav(folder / "shots" / "sound.wav", wave)
    _float_wav(folder / "float.wav", wave)
    _write_scores(folder)
    model().save_pretrained(folder / "model")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(Config().to_dict(), sort_keys=False))
    _stored(folder)
    return _seeds(folder)


def _seeds(folder: Path) -> dict[str, list[Seed]]:
    def seeds(kind: Kind, read: Callable[[Path], Any], *paths: Path) -> list[Seed]:
        return [Seed(path, kind, read) for path in paths]

    shards = sorted(path.relative_to(folder) for path in (folder / ".avseg").rglob("*.safetensors"))
    pictures = [
        VIDEO[1].image,
        VIDEO[0].mask,
        VIDEO[0].flow(),
        VIDEO[0].published_flow[0],
    ]
    data = VIDEO[0].data
    tables = [data.index, frame_index(data), data.video_sizes]
    return {
        "mp4": seeds("mp4", _segment, Path("clip.mp4")),
        "wav": [
            *seeds("wav", _hear, Path("float.wav"), Path("shots/sound.wav")),
            *seeds("wav", _check, VIDEO[0].path("wav")),
        ],
        "png": [
            *seeds("png", _check, *pictures, VIDEO[0].published_flow[0]),
            *seeds("png", _recording, Path("shots/1.png")),
        ],
        "csv": [
            *seeds("csv", _check, *tables),
            *seeds("csv", _lists, Path("few.txt"), Path("vggsound.csv"), Path("MS3_Extend/index.csv")),
        ],
        "json": [
            *seeds("json", _compare, Path("a.json")),
            *seeds("json", _diagnose, Path("Single-source/scenes.jsonl")),
            *seeds("json", read_benchmark, Path("benchmark.json")),
        ],
        "pickle": seeds("bytes", _check, VIDEO[0].log_mel),
        "safetensors": [
            *seeds("safetensors", _load, *[Path("model/model.safetensors")] * len(shards)),
            *seeds("safetensors", _stored, *shards),
        ],
        "config.json": seeds("json", _load, Path("model/config.json")),
        "YAML": seeds("yaml", lambda root: load_config(root / "tiny.yaml"), Path("tiny.yaml")),
    }


def damaged(reader: str, seed: Seed, data: bytes, rng: np.random.Generator) -> bytes:
    """The file of one case."""
    if reader == "pickle" and rng.random() < 0.4:
        return _pickle(rng)
    return mutate(data, seed.kind, rng)


def _pickle(rng: np.random.Generator) -> bytes:
    """Something else in a pickle, or another tensor."""
    value: Any = VALUES[rng.integers(len(VALUES))]
    if rng.random() < 0.6:
        shape = ((5, 1, 96, 64), (1, 1, 96, 64), (5, 96, 64), (0, 1, 96, 64), (300, 1, 96, 64), ())[rng.integers(6)]
        kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
        value = torch.full(shape, (0.0, 3e38, -5.0, float("nan"), float("-inf"))[rng.integers(5)])
        value = value.to(kinds[rng.integers(len(kinds))])
        value = {"log_mel": value} if rng.random() < 0.1 else value
    elif rng.random() < 0.3:
        target = io.BytesIO()
        torch.save(torch.zeros(5, 1, 96, 64), target)
        return target.getvalue()
    data = pickle.dumps(value, protocol=int(rng.integers(6)))
    return mutate(data, "bytes", rng) if rng.random() < 0.5 else data


@cache
def model() -> Any:
    """The smallest model that the package has, untrained."""
    config = ModelConfig(width=16, image_encoder="efficientnet_lite0", audio_encoder="cnn", inputs=INPUTS)
    return build(config, WeightsConfig(image="none", audio="none", flow="none"), seed=0).eval()


@cache
def segmenter() -> AVSegmenter:
    """`model`, ready to run."""
    return AVSegmenter(model(), "cpu")


def _segment(root: Path) -> Any:
    video = root / "clip.mp4"
    end = 5.0 if probe(video).duration > 60 else None  # damage may make an hour of a second, which takes its time
    report = segment_video(video, segmenter(), root / "out", fps=2, end=end, save=("video", "masks"))
    return report.moments


def _hear(root: Path) -> Any:
    for path in (root / "float.wav", root / "shots" / "sound.wav"):
        wave = load_audio(path)
        assert np.isfinite(wave).all()
        assert np.isfinite(log_mel_at(wave, [0.1])).all()
    return read_wav(root / "shots" / "sound.wav")[1]


def _recording(root: Path) -> Any:
    return [moment.time for moment in segmenter().stream(Recording.from_folder(root / "shots", 1), fps=1)]


def _check(root: Path) -> Any:
    """`avseg data check`, and reading the clip all the same."""
    for problem in check(root, "s4", workers=1):
        if "\n" in str(problem) or len(str(problem)) > 1000:
            raise AssertionError(f"no sentence: {problem!s:.300}")
    told, clip = None, read_frames(avsbench(root, "s4"))[:5]
    for flow in ("computed", "published"):
        for inputs in (INPUTS, InputConfig(image_size=64, resize="letterbox")):
            try:
                batch = batch_of([clip], lambda frame: read_row(frame, inputs, flow), inputs, LabelledBatch)  # type: ignore[arg-type]  # noqa: B023
                assert batch.flow.isfinite().all()
                assert batch.log_mel.isfinite().all()
            except AvsegError as error:
                told = error
    if told is not None:
        raise told
    return clip[0].video


def _lists(root: Path) -> Any:
    names = read_label_subset(root / "few.txt", VIDEO)
    return len(names), len(read_labels(root / "vggsound.csv")), len(read_frames(distant_frames(root / "MS3_Extend")))


def _load(root: Path) -> Any:
    loaded = load(root / "model")
    if loaded.config.inputs.image_size > 512:
        return "images too large to try"
    moments = list(AVSegmenter(loaded, "cpu").stream(Recording.from_folder(root / "shots", 1)))
    assert all(np.isfinite(moment.score).all() for moment in moments)
    return len(moments)


def _stored(root: Path) -> Any:
    """Embeddings and shards are made where they are missing or damaged, so that there is no sentence to be had."""
    frames = read_frames(avsbench(root, "s4"))
    audio = audio_embeddings(frames, model().audio_encoder, "fuzz")
    assert all(value.isfinite().all() for value in audio.values())
    cache = open_cache(frames, INPUTS, "computed", workers=1)
    assert cache is not None
    return [cache.row(frame)["image"].shape for frame in frames]


def _write_scores(folder: Path) -> None:
    scores = (VideoScore(VIDEO[0].video, "dog_barking", 0.5, 0.6, (0.5, 0.4, 0.6, 0.5, 0.5), (False,) * 5),)
    for name in ("a.json", "b.json"):
        found = {f"T={t}": Scores(f"T={t}", scores) for t in (5, 1)}
        write_evaluation(folder / name, Evaluation("m", "r", "s4", "test", "1", found, {"T=5": {}, "T=1": {}}))
    thing = {key: [True] * 5 for key in ("sounding", "moving")} | {"unseen_object": False, "unseen_picture": True}
    row = {"name": VIDEO[0].video, "split": "test", "subset": "s4", "objects": [thing, thing]}
    (folder / "Single-source" / "scenes.jsonl").write_text(
        json.dumps(row) + "\n" + json.dumps(row | {"name": "b"}) + "\n"
    )
    facts: dict[str, Any] = dict.fromkeys(("version", "edition", "hash", "objects"), "x")
    facts |= {"seed": 0, "counts": {"train": 1}, "categories": ["a"], "unseen_pictures": [], "unseen_categories": []}
    (folder / "benchmark.json").write_text(json.dumps({"s4": facts | {"knobs": {}}}))


def _compare(root: Path) -> Any:
    return comparison_table(compare_files(root / "a.json", root / "b.json", samples=20)).row_count


def _diagnose(root: Path) -> Any:
    return [
        diagnose(scores, read_scenes(root, "s4", "test")) for scores in read_evaluation(root / "b.json").scores.values()
    ]


def _float_wav(path: Path, wave: np.ndarray) -> None:
    body = np.stack([wave, wave], -1).astype("<f4").tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 2, 44_100, 352_800, 8, 32)
    data = b"WAVE" + head + struct.pack("<4sI", b"data", len(body)) + body
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(data)) + data)


def run(seed: Seed, template: Path, folder: Path, data: bytes) -> tuple[str, str]:
    """Copy the whole files to ``folder``, damage one and read it; say what came of it, as `Outcome` has it."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    (folder / seed.path).write_bytes(data)
    warnings.simplefilter("ignore")
    try:
        return "result", str(seed.read(folder))[:200]
    except AvsegError as error:
        told = str(error)
        if "\n" in told or not 10 < len(told) < 1500:
            return "traceback", f"no sentence of {len(told)} characters: {told[:300]!r}"
        return "clean", told.replace(str(folder), "")
    except BaseException:
        return "traceback", traceback.format_exc()[-2500:]
