"""Batches gathered from the store: each row is copied once, straight into its place."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from avseg.data.avsbench import DistantFrame, Video, frame_times
from avseg.data.clip import Batch, LabelledBatch
from avseg.data.items import DistantItem, LabelledItem
from avseg.data.log_mel import EXAMPLE
from avseg.data.store import Place, Store

B = TypeVar("B", bound=Batch)


def stored_batch(store: Store, items: Sequence[LabelledItem | DistantItem], side: int, kind: type[B]) -> B:
    """The batch of ``kind`` that collating the items' clips would give, without ``audio``.

    Tensors are page-locked where there is a GPU to copy them to.

    Args:
        store: Holds every frame of ``items`` and those whose flow they carry.
        items: One or more, of one length.
        side: S, the pictures' side.
        kind: `LabelledBatch` or `DistantBatch`.
    """
    size = len(items), len(items[0].stills)
    frames, flow = _empty((*size, 3, side, side), torch.uint8), _empty((*size, 2, side, side), torch.float16)
    log_mel = _empty((*size, *EXAMPLE), torch.float32)
    inside, valid = (_empty((*size, 1, side, side), torch.bool) for _ in range(2))
    masks = _empty((*size, 1, side, side), torch.bool) if kind is LabelledBatch else None
    # Arrays rather than tensors: a tensor's own assignments take several times as long for rows of this size.
    arrays, shown, counted = (frames.numpy(), flow.numpy(), log_mel.numpy()), inside.numpy(), valid.numpy()
    marked = None if masks is None else masks.numpy()
    for b, item in enumerate(items):
        for t, (still, moving) in enumerate(zip(item.stills, item.moving_stills, strict=True)):
            stored = store[still.layout, still.source, still.k]
            moved = stored if moving is still else store[moving.layout, moving.source, moving.k]
            used = still.k not in item.excluded and (still.labelled or marked is None)
            for place, array in zip((stored.frame, moved.flow, stored.log_mel), arrays, strict=True):
                _copy(place, array[b, t])
            shown[b, t] = stored.fit.inside() if stored.fit.padded else True
            counted[b, t] = shown[b, t] if used else False
            if marked is not None:
                _unpack(stored.mask if still.labelled else None, marked[b, t])
    return kind(
        frames=frames,
        flow=flow,
        log_mel=log_mel,
        masks=masks,
        inside=inside,
        valid=valid,
        names=tuple(item.source.name for item in items),
        categories=tuple(item.source.category if isinstance(item.source, Video) else "" for item in items),
        times=torch.from_numpy(np.stack([item_times(item) for item in items])),
    )


def item_times(item: LabelledItem | DistantItem) -> npt.NDArray[np.float64]:
    """Seconds of an item's frames; that of one of MS3's distant frames is not known and given as 0."""
    if isinstance(item.source, DistantFrame):
        return np.zeros(1)
    return frame_times()[np.asarray(item.frames) - 1]


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    # A loader's worker process must not touch the GPU: its parent locks the pages.
    lock = torch.cuda.is_available() and get_worker_info() is None
    return torch.empty(shape, dtype=dtype, pin_memory=lock)


def _copy(place: Place | None, target: npt.NDArray) -> None:
    if place is None:
        target[...] = 0
    else:
        shard, row = place
        target[...] = shard.rows[row]


def _unpack(place: Place | None, target: npt.NDArray) -> None:
    if place is None:
        target[...] = False
    else:
        shard, row = place
        target.reshape(-1)[:] = np.unpackbits(shard.rows[row], count=target.size)
