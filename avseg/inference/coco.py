"""Masks in the form of the COCO data set: run-length encoding, and the file of images, annotations and categories."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

CATEGORY = {"id": 1, "name": "sounding object", "supercategory": "sound"}


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding, as pycocotools writes it.

    Runs go down the columns, zeros first. Each count, from the third on as the difference to the one two before it, is
    written in groups of five bits, the lowest first, as characters from ``0`` on; the sixth bit says that more follow.

    Args:
        mask: ``(H, W)`` bool.

    Returns:
        ``{"size": [H, W], "counts": text}``.
    """
    flat = np.asarray(mask, dtype=np.bool_).flatten(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0] if flat.size and not flat[0] else [0, 0], edges, [flat.size]])
    counts = np.diff(bounds).astype(np.int64)
    values = counts.copy()
    values[3:] -= counts[1:-2]
    return {"size": [int(side) for side in mask.shape], "counts": _characters(values)}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """The inverse of `encode_rle`; also takes counts as a plain list. ``(H, W)`` bool."""
    height, width = rle["size"]
    counts = rle["counts"] if isinstance(rle["counts"], list) else _counts(rle["counts"])
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((height, width), order="F")


def annotation(number: int, image: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """What COCO says of one mask that isn't empty: area in pixels, box as left, top, width and height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "segmentation": encode_rle(mask),
        "area": int(mask.sum()),
        "bbox": box,
        "iscrowd": 0,
        **more,
    }


def document(
    names: Iterable[str],
    times: Iterable[float],
    masks: Iterable[np.ndarray],
    size: tuple[int, int],
    about: dict[str, Any],
) -> dict[str, Any]:
    """A COCO file's content: an image for each moment, and an annotation for each moment with a sounding object.

    Args:
        names: Of the images.
        times: Seconds of the moments.
        masks: ``(H, W)`` bool each.
        size: ``(width, height)``.
        about: What stands under ``info``.
    """
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, (name, time, mask) in enumerate(zip(names, times, masks, strict=True), 1):
        seconds = round(float(time), 6)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1], "time": seconds})
        if mask.any():
            found.append(annotation(len(found) + 1, number, mask, time=seconds))
    return {"info": about, "licenses": [], "images": images, "annotations": found, "categories": [CATEGORY]}


def _characters(values: np.ndarray) -> str:
    columns = []
    more = np.ones(len(values), dtype=np.bool_)  # whether a value has a character in this column
    while more.any():
        low = values & 0x1F
        values = values >> 5
        # A number ends where only copies of its sign, the fifth bit, would follow.
        goes_on = np.where(low & 0x10, values != -1, values != 0)
        columns.append(np.where(more, low + 0x20 * goes_on + 48, 0))
        more = more & goes_on
    characters = np.stack(columns, axis=1).astype(np.uint8).ravel() if columns else np.zeros(0, np.uint8)
    return characters[characters > 0].tobytes().decode("ascii")


def _counts(text: str) -> list[int]:
    counts: list[int] = []
    for value in _values(text):
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def _values(text: str) -> Iterator[int]:
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            yield value - (1 << shift) if bits & 0x10 else value
            value = shift = 0
