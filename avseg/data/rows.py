"""The files of a frame -> arrays at the size that a model sees -> batches: the one way for training and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from avseg.config import InputConfig
from avseg.data.clip import Batch, DistantBatch
from avseg.data.fit import Fit, shrink_of
from avseg.data.frames import Frame
from avseg.data.lists import read_sizes
from avseg.data.log_mel import EXAMPLE, load_log_mel
from avseg.errors import AvsegError
from avseg.media.flow import decode_published, read_flow_png, read_published
from avseg.media.images import read_image, read_mask

FlowSource = Literal["computed", "published", "none"]
"""Which stored flow a clip carries: ours, UFE's 8-bit trees, or zeros for a model without the NF branch."""

Row: TypeAlias = Mapping[str, npt.NDArray]
"""Arrays of one frame: ``image`` ``(3, S, S)`` uint8, ``log_mel`` ``(1, 96, 64)`` float32 and, where they are read,
``flow`` ``(2, S, S)`` float16 and ``mask`` ``(S, S)`` bool."""

B = TypeVar("B", bound=Batch)


def read_row(frame: Frame, inputs: InputConfig, flow: FlowSource, hidden: bool = False) -> Row:
    """Read the files of one frame at the size and aspect that ``inputs`` say.

    Args:
        frame: Which; its mask is read where it is ``labelled``.
        inputs: Size, resize, flow method and flow bound.
        flow: See `FlowSource`.
        hidden: Also read a mask that only the generated benchmark has. For diagnostics, never for training.

    Raises:
        AvsegError: a file is missing, unreadable or of the wrong size; the message names it and the mend.
    """
    image = read_image(frame.image)
    size = (image.shape[1], image.shape[0])
    fit = fit_of(frame, inputs)
    row: dict[str, npt.NDArray] = {"image": np.ascontiguousarray(fit.image(image).transpose(2, 0, 1))}
    if flow != "none":
        row["flow"] = fit.flow(_read_flow(frame, size, inputs, flow)).astype(np.float16)
    if frame.labelled or (hidden and frame.counted):
        row["mask"] = fit.mask(read_mask(frame.mask if frame.labelled else frame.hidden_mask, size))
    examples = read_log_mel(frame.log_mel)
    # AVSBench repeats the last example where a video's sound has fewer than five.
    row["log_mel"] = examples[min(frame.k, len(examples)) - 1].numpy()
    return row


def batch_of(clips: Sequence[Sequence[Frame]], rows: Callable[[Frame], Row], inputs: InputConfig, kind: type[B]) -> B:
    """A batch of ``kind``, without ``audio``; tensors are page-locked where there is a GPU to copy them to.

    Masks are dropped for a `DistantBatch`: a distant frame is never trained on with its label, even where one exists.

    Args:
        clips: One or more, of one length.
        rows: Gives a frame's arrays: `read_row` or `avseg.data.cache.Cache.row`.
        inputs: Of the model.
        kind: Which batch.

    Raises:
        AvsegError: a file is missing or faulty.
    """
    size, side = (len(clips), len(clips[0])), inputs.image_size
    images, flow = _empty((*size, 3, side, side), torch.uint8), _empty((*size, 2, side, side), torch.float16)
    log_mel = _empty((*size, *EXAMPLE), torch.float32)
    inside, valid = (_empty((*size, 1, side, side), torch.bool) for _ in range(2))
    masks = None if issubclass(kind, DistantBatch) else _empty((*size, 1, side, side), torch.bool)
    for b, clip in enumerate(clips):
        fit = fit_of(clip[0], inputs)
        for t, frame in enumerate(clip):
            row = rows(frame)
            moving = row if frame.flow_from is None else rows(frame.flow_from)
            mask = row.get("mask")
            counted = frame.counted and (masks is None or mask is not None)
            # Arrays rather than tensors: a tensor's own assignments take several times as long for rows of this size.
            images.numpy()[b, t], log_mel.numpy()[b, t] = row["image"], row["log_mel"]
            flow.numpy()[b, t] = moving.get("flow", 0)
            inside.numpy()[b, t] = fit.inside() if fit.padded else True
            valid.numpy()[b, t] = inside.numpy()[b, t] if counted else False
            if masks is not None:
                masks.numpy()[b, t] = False if mask is None else mask
    return kind(
        frames=images,
        flow=flow,
        log_mel=log_mel,
        masks=masks,
        inside=inside,
        valid=valid,
        names=tuple(clip[0].video for clip in clips),
        categories=tuple(clip[0].category for clip in clips),
        times=torch.tensor([[frame.time for frame in clip] for clip in clips], dtype=torch.float64),
    )


def fit_of(frame: Frame, inputs: InputConfig) -> Fit:
    """Where the images of a video come to lie in the square that a model sees.

    Raises:
        AvsegError: ``letterbox`` needs the size of the raw video, and the list of sizes doesn't give it.
    """
    if inputs.resize == "stretch":
        return replace(Fit.stretch(inputs.image_size), shrink=shrink_of(inputs))
    sizes = frame.data.video_sizes
    modified = sizes.stat().st_mtime_ns if sizes.is_file() else 0
    size = _sizes(sizes, modified).get(frame.video)
    if size is None:
        raise AvsegError(
            f"{sizes} does not give the size of {frame.video}, which letterbox needs: run `avseg data prepare` "
            "with the raw videos in place, or choose --model.inputs.resize stretch."
        )
    return replace(Fit.letterbox(inputs.image_size, *size), shrink=shrink_of(inputs))


def read_log_mel(path: Path) -> Tensor:
    """`load_log_mel`, and what to do where it can't.

    Raises:
        AvsegError: no such file, or not a log-mel tensor.
    """
    try:
        return load_log_mel(path)
    except FileNotFoundError:
        raise AvsegError(f"{path} does not exist: run `avseg data prepare` to make it.") from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({error.strerror}): delete it and run `avseg data prepare`.") from None
    except ValueError as error:
        raise AvsegError(f"{error} Delete it and run `avseg data prepare`.") from None


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # A loader's worker process must not touch the GPU: its parent locks the pages.
    lock = torch.cuda.is_available() and get_worker_info() is None
    return torch.empty(shape, dtype=dtype, pin_memory=lock)


@lru_cache(maxsize=4)
def _sizes(path: Path, modified: int) -> dict[str, tuple[int, int]]:
    return read_sizes(path)


def _read_flow(frame: Frame, size: tuple[int, int], inputs: InputConfig, source: FlowSource) -> npt.NDArray[np.float32]:
    """``(2, H, W)`` in pixels per 40 ms at the stored size."""
    if source == "computed":
        path = frame.flow(inputs.flow_method)
        if not path.is_file():
            option = "" if inputs.flow_method == "farneback" else f" --flow_method {inputs.flow_method}"
            raise AvsegError(f"{path} does not exist: run `avseg data prepare{option}` with the raw videos in place.")
        return read_flow_png(path, size)
    for path in frame.published_flow:
        if not path.is_file():
            raise AvsegError(f"{path} does not exist: put UFE's published flow there, or use --data.flow computed.")
    return decode_published(read_published(*frame.published_flow, size), inputs.flow_bound)
