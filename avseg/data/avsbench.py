"""AVSBench on disk (S4, MS3) -> `Clip`.

Paths are in `avseg.data.layout`, lists in `avseg.data.index`, pictures and tensors in `avseg.data.pictures` and
`avseg.data.log_mel`; all that reads or writes the data set is to be had from here.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avseg.config import InputConfig
from avseg.data.clip import Clip
from avseg.data.index import (
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
from avseg.data.layout import (
    FRAMES,
    SPLITS,
    DistantFrame,
    DistantLayout,
    Layout,
    Subset,
    Video,
    frame_times,
    labelled_frames,
)
from avseg.data.log_mel import load_log_mel, save_log_mel
from avseg.data.pictures import Fit, read_image, read_mask, shrink_of, write_image, write_mask
from avseg.errors import AvsegError
from avseg.media.flow import decode_published, read_flow_png, read_published

__all__ = [
    "FRAMES",
    "SPLITS",
    "DistantFrame",
    "DistantLayout",
    "Fit",
    "FlowSource",
    "Layout",
    "Subset",
    "Video",
    "fit_of",
    "frame_times",
    "label_subset",
    "labelled_frames",
    "load_clip",
    "load_distant_clip",
    "load_log_mel",
    "read_distant_index",
    "read_frame_index",
    "read_image",
    "read_index",
    "read_label_subset",
    "read_log_mel",
    "read_mask",
    "read_sizes",
    "save_log_mel",
    "write_distant_index",
    "write_frame_index",
    "write_image",
    "write_index",
    "write_label_subset",
    "write_label_subsets",
    "write_mask",
    "write_sizes",
]

FlowSource = Literal["computed", "published", "none"]
"""Which stored flow a clip carries: ours, UFE's 8-bit trees, or zeros for a model without the NF branch."""


def load_clip(
    layout: Layout,
    video: Video,
    frames: Sequence[int],
    inputs: InputConfig,
    flow: FlowSource = "computed",
    hidden: bool = False,
    labelled: Collection[int] | None = None,
) -> Clip:
    """Load some frames of a video, with their motion, sound and masks, at the size and aspect that ``inputs`` say.

    Args:
        layout: Where the files are.
        video: A row of `read_index`.
        frames: Numbers k in 1..5, one for each of the clip's T frames.
        inputs: Size, resize, flow method and flow bound.
        flow: See `FlowSource`.
        hidden: Also read the masks that only the generated benchmark has. For diagnostics, never for training.
        labelled: Frames whose masks may be read; None means all published ones. Where none of ``frames`` is among
            them the clip has no masks, and ``valid`` is ``inside``.

    Returns:
        A `Clip`; in one with masks ``valid`` is False throughout frames without one.

    Raises:
        AvsegError: a file is missing, unreadable or of the wrong size; the message names it and the mend.
    """
    if not frames or not set(frames) <= set(range(1, FRAMES + 1)):
        raise ValueError(f"frames must be numbers in 1..{FRAMES}, not {list(frames)}")
    images = [read_image(layout.frame(video, k)) for k in frames]
    sizes = [(image.shape[1], image.shape[0]) for image in images]
    fit = fit_of(layout, video.name, inputs)
    flows = [
        _read_flow(layout.flow(video, k, inputs.flow_method), layout.published_flow(video, k), size, inputs, flow)
        for k, size in zip(frames, sizes, strict=True)
    ]
    published = set(labelled_frames(video) if labelled is None else labelled)
    paths = [
        layout.mask(video, k) if k in published else layout.hidden_mask(video, k) if hidden else None for k in frames
    ]
    masks = [None if path is None else read_mask(path, size) for path, size in zip(paths, sizes, strict=True)]
    examples = read_log_mel(layout.log_mel(video))
    # AVSBench repeats the last example where a video's sound has fewer than five.
    rows = [min(k, len(examples)) - 1 for k in frames]
    return _clip(
        fit, images, flows, masks, examples[rows], video.name, video.category, frame_times()[np.asarray(frames) - 1]
    )


def load_distant_clip(
    layout: DistantLayout, frame: DistantFrame, inputs: InputConfig, flow: FlowSource = "computed"
) -> Clip:
    """Load one of MS3's distant frames as a clip of T = 1 without masks. Its time is not known and given as 0.

    Raises:
        AvsegError: as `load_clip`.
    """
    image = read_image(layout.image(frame))
    size = (image.shape[1], image.shape[0])
    fit = fit_of(layout, frame.name, inputs)
    motion = _read_flow(layout.flow(frame, inputs.flow_method), layout.published_flow(frame), size, inputs, flow)
    examples = read_log_mel(layout.log_mel(frame))[:1]
    return _clip(fit, [image], [motion], [None], examples, frame.name, "", np.zeros(1))


def fit_of(layout: Layout | DistantLayout, name: str, inputs: InputConfig) -> Fit:
    """Where the pictures of a video or distant frame come to lie in the square that a model sees.

    Raises:
        AvsegError: ``letterbox`` needs the size of the raw video, and the list of sizes doesn't give it.
    """
    if inputs.resize == "stretch":
        return replace(Fit.stretch(inputs.image_size), shrink=shrink_of(inputs))
    sizes = layout.video_sizes
    modified = sizes.stat().st_mtime_ns if sizes.is_file() else 0
    size = _sizes(sizes, modified).get(name)
    if size is None:
        raise AvsegError(
            f"{sizes} does not give the size of {name}, which letterbox needs: run `avseg data prepare` "
            "with the raw videos in place, or choose --model.inputs.resize stretch."
        )
    return replace(Fit.letterbox(inputs.image_size, *size), shrink=shrink_of(inputs))


def _clip(
    fit: Fit,
    images: Sequence[npt.NDArray[np.uint8]],
    flows: Sequence[npt.NDArray[np.float32] | None],
    masks: Sequence[npt.NDArray[np.bool_] | None],
    log_mel: Tensor,
    name: str,
    category: str,
    times: npt.NDArray[np.float64],
) -> Clip:
    frames = np.stack([fit.image(image) for image in images]).transpose(0, 3, 1, 2)
    still = np.zeros((2, fit.side, fit.side), dtype=np.float32)
    flow = np.stack([still if motion is None else fit.flow(motion) for motion in flows])
    inside = np.repeat(fit.inside()[None, None], len(images), axis=0)
    valid = inside.copy()
    stacked = None
    if any(mask is not None for mask in masks):
        for row, mask in enumerate(masks):
            valid[row] &= mask is not None
        nothing = np.zeros((fit.side, fit.side), dtype=np.bool_)
        stacked = np.stack([nothing if mask is None else fit.mask(mask) for mask in masks])[:, None]
    return Clip(
        frames=torch.from_numpy(np.ascontiguousarray(frames)),
        flow=torch.from_numpy(flow.astype(np.float16)),
        log_mel=log_mel,
        masks=None if stacked is None else torch.from_numpy(stacked),
        inside=torch.from_numpy(inside),
        valid=torch.from_numpy(valid),
        name=name,
        category=category,
        times=torch.from_numpy(times),
    )


@lru_cache(maxsize=4)
def _sizes(path: Path, modified: int) -> dict[str, tuple[int, int]]:
    return read_sizes(path)


def _read_flow(
    computed: Path, published: tuple[Path, Path], size: tuple[int, int], inputs: InputConfig, source: FlowSource
) -> npt.NDArray[np.float32] | None:
    """``(2, H, W)`` in pixels per 40 ms at the stored size."""
    if source == "none":
        return None
    if source == "computed":
        if not computed.is_file():
            asked = "" if inputs.flow_method == "farneback" else f" --flow_method {inputs.flow_method}"
            raise AvsegError(
                f"{computed} does not exist: run `avseg data prepare{asked}` with the raw videos in place."
            )
        return read_flow_png(computed, size)
    for path in published:
        if not path.is_file():
            raise AvsegError(f"{path} does not exist: put UFE's published flow there, or use --data.flow computed.")
    return decode_published(read_published(*published, size), inputs.flow_bound)


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
