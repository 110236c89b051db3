"""Labels without drawing a mask: a segmenter marks videos, and what it is sure of becomes a data set in S4's layout.

Each piece of five seconds has one label, as S4's training videos do: the frame about which sound, sight and motion
agree most comes first, and counts as labelled where the least of the three reaches a threshold. All other frames are
distant frames: unlabeled frame exploitation learns from them.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avseg.data.avsbench import FRAMES, avsbench, video_frames, write_index
from avseg.data.frames import Frame
from avseg.data.front_end import choose_front_end
from avseg.data.lists import write_label_subset, write_rows
from avseg.data.log_mel import save_log_mel
from avseg.data.parallel import working_in
from avseg.errors import AvsegError
from avseg.files import check_folder, write_json
from avseg.inference.base import Segmenter
from avseg.inference.inputs import Input
from avseg.inference.moments import Scored
from avseg.inference.source import open_source
from avseg.media.flow import neighbour_flow, write_flow_png
from avseg.media.images import read_image, read_mask, resize, write_image, write_mask
from avseg.media.video import FramePair
from avseg.progress import Progress
from avseg.reading import read_json
from avseg.render import overlay, write_labels

LABELLED, CONFIDENCE = "labelled.txt", "confidence.csv"
UNKNOWN = "unknown"  # category of what has no name
_COLUMNS, _ROWS, _TILE = 6, 8, 160  # of a contact sheet


@dataclass(frozen=True)
class Piece:
    """Five frames of a video, the one that is surest first.

    Attributes:
        name: Of the piece, which S4's list holds.
        category: What is heard in the first frame.
        times: Timestamps in the source video, in seconds.
        confidence: Of each frame, in [0, 1].
        found: What the first frame's mask is made of, by name.
    """

    name: str
    category: str
    times: tuple[float, ...]
    confidence: tuple[float, ...]
    found: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Annotated:
    """What `annotate` left.

    Attributes:
        root: The data set.
        videos: Videos that gave pieces.
        pieces: How many there are, those of earlier runs included.
        labelled: How many training pieces are labelled.
        failures: (video, reason) of those that could not be read.
        notes: (video, remark) of those that gave nothing.
    """

    root: Path
    videos: int
    pieces: int
    labelled: int
    failures: list[tuple[str, str]]
    notes: list[tuple[str, str]]


def annotate(
    inputs: Sequence[Input],
    segmenter: Segmenter | Callable[[], Segmenter],
    out: str | Path,
    threshold: float = 0.5,
    size: int = 224,
    progress: Callable[[str], Progress] | None = None,
) -> Annotated:
    """Mark videos and write AVSBench's layout below ``out``: frames, flow, log-mel, masks and lists.

    A tenth of the videos, at least one piece, is for validation: all its frames have masks, whatever their confidence.
    ``labelled.txt`` names the training pieces whose label counts, for ``data.labelled``; ``confidence.csv`` has every
    frame; ``contact-*.png`` show the labels. Started again, it goes on with videos that are not done.

    Args:
        inputs: The videos.
        segmenter: What marks them, or a function that loads it.
        out: A new folder, or one that an earlier call wrote.
        threshold: Confidence from which a frame is labelled, in (0, 1); see `confidence_of`.
        size: Side of the frames in pixels.
        progress: Gives a progress (seconds done, seconds in all) for a video's name.

    Raises:
        AvsegError: nothing could be marked, ``out`` holds something else or can't be written, or a threshold out of
            range.
    """
    if not 0 < threshold < 1:
        raise AvsegError(f"--confidence is {threshold}: give a number between 0 and 1.")
    check_folder(out)
    root = Path(out)
    data = avsbench(root, "s4")
    if data.folder.exists() and not (root / "annotations").is_dir():
        raise AvsegError(f"{root} holds a data set that was not made by machine: name another --out.")
    splits = _splits(inputs)
    failures: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    with working_in(root / ".avseg" / "annotate", [data.folder]):
        for item in inputs:
            done = root / "annotations" / f"{item.name}.json"
            if done.is_file():
                continue
            try:
                tell = None if progress is None else progress(item.name)
                model = segmenter if isinstance(segmenter, Segmenter) else segmenter()
                pieces = _annotate_one(item, model, data.root, splits[item.name], size, tell)
            except (AvsegError, OSError) as error:
                if not isinstance(segmenter, Segmenter) and getattr(segmenter, "error", None) is not None:
                    raise  # no video's fault
                failures.append((item.name, str(error)))
                continue
            if not pieces:
                notes.append((item.name, f"{item.path} is shorter than {FRAMES} seconds and was left out."))
            write_json(done, {"split": splits[item.name], "pieces": [asdict(piece) for piece in pieces]})
        return _finish(root, threshold, failures, notes)


def confidence_of(moment: Scored, threshold: float) -> float:
    """How far a frame's mask is to be trusted, in [0, 1]; 0 where nothing is marked.

    Of a segmenter with names the least of sound, sight and motion of the best object: all three must agree. Of any
    other the mean probability within the mask.
    """
    if moment.found:
        best = moment.found[0]
        return min(best.sound, best.sight, best.motion)
    score = moment.score.astype(np.float32)
    inside = score >= threshold
    return float(score[inside].mean()) if inside.any() else 0.0


def _splits(inputs: Sequence[Input]) -> dict[str, str]:
    """A tenth of the videos is for validation, at least one of several, chosen by name alone."""
    names = sorted((item.name for item in inputs), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    held = set(names[: max(1, len(names) // 10)]) if len(names) > 1 else set()
    return {name: "val" if name in held else "train" for name in names}


@dataclass
class _Second:
    scored: Scored
    frame: np.ndarray
    flow: np.ndarray
    mask: np.ndarray
    log_mel: np.ndarray


def _annotate_one(
    item: Input, model: Segmenter, root: Path, split: str, size: int, tell: Progress | None
) -> list[Piece]:
    pieces: list[Piece] = []
    held: list[_Second] = []
    fresh = 0
    for done, second in enumerate(_seconds(item, model, size), 1):
        held, fresh = [*held[-(FRAMES - 1) :], second], fresh + 1
        if tell is not None:
            tell(done, done)
        if fresh == FRAMES:
            pieces.append(_write(item, len(pieces), held, model.threshold, root, split))
            fresh = 0
    if fresh and len(held) == FRAMES:  # the last piece reaches back
        pieces.append(_write(item, len(pieces), held, model.threshold, root, split))
    return pieces


def _seconds(item: Input, model: Segmenter, size: int) -> Iterator[_Second]:
    """A frame a second with all that training reads of it."""
    seen = open_source(item.given(), 1.0)
    again = open_source(item.given(), 1.0)
    view = model.view(seen)
    for scored, pair in zip(model.scored(seen), again.pairs, strict=True):
        small = FramePair(
            pair.time,
            resize(pair.frame, (size, size)),
            None if pair.neighbour is None else resize(pair.neighbour, (size, size)),
            pair.step,
        )
        mask = resize(view.enlarge(scored.score), (size, size)) >= model.threshold
        yield _Second(scored, small.frame, neighbour_flow(small), mask, again.audio.at(pair.time)[0])


def _write(item: Input, number: int, held: Sequence[_Second], threshold: float, root: Path, split: str) -> Piece:
    sure = [confidence_of(second.scored, threshold) for second in held]
    first = int(np.argmax(sure))
    order = [(first + step) % FRAMES for step in range(FRAMES)]
    name = re.sub(r"[^\w.-]+", "_", f"{item.name}_{number:04d}").lstrip("-.")
    found = held[first].scored.found
    category = re.sub(r"\W+", "_", found[0].name.lower()).strip("_") if found else UNKNOWN
    frames = video_frames(avsbench(root, "s4"), name, split, category)
    for frame, place in zip(frames, order, strict=True):
        second = held[place]
        write_image(frame.image, second.frame)
        write_flow_png(frame.flow("farneback"), second.flow)
        if frame.labelled:
            write_mask(frame.mask, second.mask)
    save_log_mel(frames[0].log_mel, torch.from_numpy(np.stack([held[place].log_mel for place in order])))
    times = tuple(round(held[place].scored.time, 3) for place in order)
    facts = tuple(one.facts() for one in found)
    return Piece(name, category, times, tuple(round(sure[place], 4) for place in order), facts)


def _finish(root: Path, threshold: float, failures: list[tuple[str, str]], notes: list[tuple[str, str]]) -> Annotated:
    """Lists and contact sheets of all that was annotated, in this run and before."""
    data = avsbench(root, "s4")
    rows: list[tuple[object, ...]] = []
    frames: list[Frame] = []
    labelled: list[str] = []
    shown: list[tuple[Frame, dict[str, Any]]] = []
    files = sorted((root / "annotations").glob("*.json"))
    videos = 0
    for file in files:
        known = read_json(file, "remove it, and the video is annotated again")
        videos += bool(known["pieces"])
        for piece in known["pieces"]:
            table = video_frames(data, piece["name"], known["split"], piece["category"])
            frames += table
            for frame, time, sure in zip(table, piece["times"], piece["confidence"], strict=True):
                counts = known["split"] == "val" or (frame.k == 1 and sure >= threshold)
                rows.append((piece["name"], frame.k, file.stem, time, sure, "label" if counts else "distant"))
            if known["split"] == "train" and piece["confidence"][0] >= threshold:
                labelled.append(piece["name"])
                shown.append((table[0], piece))
    if not frames:
        reason = failures[0][1] if failures else notes[0][1] if notes else "no video was given"
        raise AvsegError(f"Nothing was annotated: {reason}")
    write_index(data, frames)
    choose_front_end(data, None).write(data)
    write_rows(root / CONFIDENCE, ("name", "k", "video", "seconds", "confidence", "use"), rows)
    write_label_subset(root / LABELLED, labelled)
    for old in root.glob("contact-*.png"):
        old.unlink()
    for page in range(0, len(shown), _COLUMNS * _ROWS):
        tiles = [_tile(frame.image, frame.mask, piece) for frame, piece in shown[page : page + _COLUMNS * _ROWS]]
        write_image(root / f"contact-{page // (_COLUMNS * _ROWS) + 1:03d}.png", _sheet(tiles))
    return Annotated(root, videos, len(frames) // FRAMES, len(labelled), failures, notes)


def _tile(image: Path, mask: Path, piece: dict[str, Any]) -> np.ndarray:
    picture = resize(overlay(read_image(image), read_mask(mask)), (_TILE, _TILE))
    return write_labels(picture, [(f"{piece['confidence'][0]:.2f} {piece['category']}", (0.0, 1.0))])


def _sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.full((rows * _TILE, min(len(tiles), _COLUMNS) * _TILE, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // _COLUMNS * _TILE, number % _COLUMNS * _TILE
        sheet[top : top + _TILE, left : left + _TILE] = tile
    return sheet
