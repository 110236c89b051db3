"""The open-vocabulary segmenter on AVSBench, scored as any model is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avseg import __version__
from avseg.data.avsbench import avsbench
from avseg.data.clip import LabelledBatch
from avseg.data.dataset import Clip, whole_videos
from avseg.data.loader import evaluation_clips
from avseg.errors import AvsegError
from avseg.evaluation.diagnostics import diagnose, read_scenes
from avseg.evaluation.evaluate import score_videos
from avseg.evaluation.scores import Evaluation, Scores, VideoScore, write_evaluation
from avseg.files import check_file
from avseg.media.audio import SAMPLE_RATE, load_audio
from avseg.openvocab.hear import Listener
from avseg.openvocab.segmenter import Look, OpenVocabulary
from avseg.progress import progress as bar


def evaluate_open_vocabulary(
    segmenter: OpenVocabulary,
    root: str | Path,
    subset: Literal["s4", "ms3"],
    split: str = "test",
    out: str | Path | None = None,
    workers: int = 2,
    progress: bool = True,
) -> Evaluation:
    """Score a segmenter on a split. Frames are independent, so T = 5 and T = 1 are the same.

    Frames and flow are the prepared ones; sound is that of the raw videos or of the prepared WAV files.

    Args:
        segmenter: Which.
        root, subset, split, out, workers, progress: See `avseg.evaluation.evaluate.evaluate_checkpoint`.

    Raises:
        AvsegError: as `evaluate_checkpoint`, or a video without sound.
    """
    if out is not None:
        check_file(out)
    videos = whole_videos(avsbench(root, subset), split)
    for clip in videos:
        _sound_file(clip)
    scenes = read_scenes(root, subset, split)
    clips = evaluation_clips(root, subset, split, segmenter.inputs, workers, truth=True)
    found: list[VideoScore] = []
    with bar(f"Evaluating {segmenter.name}", "videos", progress) as tell:
        for done, (clip, batch) in enumerate(zip(videos, clips, strict=True), 1):
            looks = looks_of(segmenter, clip, batch)
            scores = torch.from_numpy(np.stack([one.score.astype(np.float32) for one in segmenter.score(looks)]))
            logits = torch.logit(scores.clamp(1e-4, 1 - 1e-4)) - float(
                np.log(segmenter.threshold / (1 - segmenter.threshold))
            )
            found += score_videos(batch, logits[None, :, None])
            tell(done, len(videos))
    scores_of = {name: Scores(name, tuple(found)) for name in ("T=5", "T=1")}
    evaluation = Evaluation(
        model=segmenter.name,
        root=str(root),
        subset=subset,
        split=split,
        version=__version__,
        scores=scores_of,
        diagnostics={protocol: diagnose(scores, scenes) for protocol, scores in scores_of.items()},
        flow="computed",
        flow_method="farneback",
        size="truth",
        frames_per_clip=1,
    )
    if out is not None:
        write_evaluation(out, evaluation)
    return evaluation


def looks_of(segmenter: OpenVocabulary, clip: Clip, batch: LabelledBatch) -> list[Look]:
    """A video's frames as the segmenter sees and hears them.

    Args:
        segmenter: Which.
        clip: The frames, whose video or WAV file is listened to.
        batch: The same frames with flow, of one clip.

    Raises:
        AvsegError: a video without sound.
    """
    wave = load_audio(_sound_file(clip))
    how = segmenter.how
    listener = Listener(
        segmenter.tagger, _pieces(wave.mean(axis=1) if wave.ndim > 1 else wave), 0.0, how.window, how.hop
    )
    assert batch.flow is not None
    looks = []
    for k, frame in enumerate(clip):
        wanted, loudness = segmenter.hear(listener, frame.time)
        pixels = batch.frames[0, k].permute(1, 2, 0).numpy()
        looks.append(Look(frame.time, pixels, batch.flow[0, k].float().numpy(), wanted, loudness))
    return looks


def _sound_file(clip: Clip) -> Path:
    first = clip[0]
    files = [first.raw, *([first.path("wav")] if "wav" in first.data.files else [])]
    for file in files:
        if file.is_file():
            return file
    raise AvsegError(
        f"{first.video} has neither a raw video nor a WAV file ({' or '.join(map(str, files))}), and open vocabulary "
        "listens to the sound itself: put one of them there."
    )


def _pieces(wave: np.ndarray):  # type: ignore[no-untyped-def]
    def from_second(second: int) -> Iterator[np.ndarray]:
        yield wave[second * SAMPLE_RATE :]

    return from_second
