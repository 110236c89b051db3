"""Image files and their pixels: headers are looked at before any pixel is decoded; reading, writing, resizing."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.reading import read_bytes

LARGEST = 2**26
"""Pixels that an image may have: 8,192 × 8,192, twice those of an 8K frame."""

_LARGEST_FILE = 2**28  # bytes
_START = 2**16  # bytes in which a header is looked for where the whole file isn't wanted
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def image_size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) that the header of a PNG, JPEG, BMP or WebP file gives; None for anything else."""
    try:
        if data[:8] == _PNG and data[12:16] == b"IHDR":
            width, height = struct.unpack(">II", data[16:24])
        elif data[:2] == b"BM":
            width, height = struct.unpack("<HH" if data[14:18] == b"\x0c\0\0\0" else "<ii", data[18:26][: _bmp(data)])
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            width, height = _webp_size(data)
        elif data[:2] == b"\xff\xd8":
            width, height = _jpeg_size(data)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return (width, abs(height)) if width > 0 and height else None


def stored_size(path: str | Path) -> tuple[int, int] | None:
    """(width, height) in the header of an image file; None where it can't be read or is no image."""
    try:
        return image_size_of(read_bytes(path, most=_START, cut=True))
    except OSError:
        return None


def image_bytes(path: str | Path, absent: str, faulty: str, size: tuple[int, int] | None = None) -> bytes:
    """An image file's bytes, once its header is found to be that of an image which may be decoded.

    Args:
        path: PNG, JPEG, BMP or WebP, whatever its name ends in.
        absent: What to do about a file that isn't there, as the end of a sentence.
        faulty: What to do about a faulty one.
        size: (width, height) that it must have; None admits any up to `LARGEST` pixels.

    Raises:
        AvsegError: no such file, no whole image, or one of another size.
    """
    try:
        data = read_bytes(path, most=_LARGEST_FILE)
    except FileNotFoundError:
        raise AvsegError(f"{path} does not exist: {in_another_format(Path(path)) or absent}.") from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({error.strerror}): {faulty}.") from None
    found = image_size_of(data)
    whole = _PNG_END in data[-64:] if data[:8] == _PNG else b"\xff\xd9" in data[-1024:] or data[:2] != b"\xff\xd8"
    if found is None or not whole:
        raise AvsegError(f"{path} is not a whole image: {faulty}.")
    if size is not None and found != size:
        raise AvsegError(f"{path} is {found[0]}×{found[1]} pixels, not {size[0]}×{size[1]}: {faulty}.")
    if found[0] * found[1] > LARGEST:
        raise AvsegError(f"{path} is {found[0]}×{found[1]} pixels, more than {LARGEST:,} in all: {faulty}.")
    return data


def decode(path: str | Path, flags: int, absent: str, faulty: str, size: tuple[int, int] | None = None) -> npt.NDArray:
    """The pixels of an image file as OpenCV orders them, ``(H, W)`` or ``(H, W, channels)``.

    Args:
        path, absent, faulty, size: As `image_bytes`.
        flags: OpenCV's ``IMREAD_…``.

    Raises:
        AvsegError: as `image_bytes`, or pixels that can't be decoded.
    """
    data = image_bytes(path, absent, faulty, size)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise AvsegError(f"{path} is not a whole image: {faulty}.")
    return np.asarray(image)


def in_another_format(path: Path) -> str:
    """What to do where a PNG isn't there and a JPEG of its name is, as the end of a sentence; else nothing."""
    other = next((path.with_suffix(end) for end in (".jpg", ".jpeg", ".JPG") if path.with_suffix(end).is_file()), None)
    return f"{other.name} is there, but AVSBench's loaders read PNG for S4 and MS3: convert it" if other else ""


def _bmp(data: bytes) -> int:
    return 4 if data[14:18] == b"\x0c\0\0\0" else 8


def _webp_size(data: bytes) -> tuple[int, int]:
    if len(data) < 30:
        raise IndexError
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """The size that a JPEG's frame header gives, which stands behind segments of any number and length."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 1:  # fillers, and markers without a segment
            place += 1 if marker == 0xFF else 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 0


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """An image as RGB, ``(H, W, 3)`` uint8.

    Raises:
        AvsegError: missing, unreadable, cut off, or larger than any frame.
    """
    prepare = "`avseg data prepare`"
    image = decode(path, cv2.IMREAD_COLOR, f"run {prepare} to make it", f"delete it and run {prepare}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def write_image(path: str | Path, image: npt.NDArray[Any]) -> None:
    """Write RGB ``(H, W, 3)`` or grey ``(H, W)``, uint8 or uint16, as PNG, whole or not at all."""
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    done, data = cv2.imencode(".png", image)
    if not done:
        raise AvsegError(f"{path} could not be encoded as PNG: check the image's size {image.shape[:2]}.")
    with whole_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """A mask, ``(H, W)`` bool: a pixel is on where its value is above 0.

    Values are the grey level of modes 1 and L and the palette's index of mode P (whatever colour it stands for); a
    coloured mask is on where any colour channel is.

    Args:
        path: PNG of mode 1, L or P, or in colour.
        size: ``(width, height)`` that it must have; None admits any.

    Raises:
        AvsegError: missing, unreadable, cut off, or of another size.
    """
    mend = "restore the mask, or prepare the frames at its size" if size else "restore the mask from the data set"
    data = image_bytes(path, "restore the mask, or take its video out of the CSV", mend, size)
    try:
        with Image.open(io.BytesIO(data)) as image:
            colours = {"RGBA": 3, "LA": 1}.get(image.mode)
            values: npt.NDArray = np.asarray(image)
    except Exception:  # a damaged file can raise nearly any
        raise AvsegError(f"{path} is not a whole image: restore the mask from the data set.") from None
    if values.ndim == 3:
        values = np.asarray(values[..., :colours].any(axis=-1))
    return np.asarray(values > 0)


def write_mask(path: str | Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write ``(H, W)`` bool as a grey PNG of 0 and 255, whole or not at all."""
    write_image(path, mask.astype(np.uint8) * np.uint8(255))


Shrink = Literal["area", "bilinear"]
"""How an axis gets shorter: averaged over area, or, as AVSBench's authors do, interpolated, which lets detail alias."""


def resize(image: np.ndarray, size: tuple[int, int], shrink: Shrink = "area") -> np.ndarray:
    """Resize to exactly ``size``, without keeping the aspect.

    Each axis that shrinks is averaged over area, each axis that grows is interpolated linearly, so that an image
    that gets wider and lower at once is treated well on both axes.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` with C ≤ 4, uint8, uint16 or float32.
        size: ``(width, height)`` in pixels.
        shrink: ``bilinear`` interpolates axes that shrink as well.

    Returns:
        The image with the same type, ``(height, width)`` or ``(height, width, C)``.

    Raises:
        ValueError: ``size`` isn't two positive whole numbers.
    """
    width, height = size
    if int(width) != width or int(height) != height or width < 1 or height < 1:
        raise ValueError(f"size must be (width, height) in whole pixels, at least 1 each, not {size}")
    old_height, old_width = image.shape[:2]
    if (width, height) == (old_width, old_height):
        return image
    if shrink == "bilinear":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    shrinks = (width < old_width, height < old_height)
    if shrinks == (True, False) and height > old_height:
        image = cv2.resize(image, (width, old_height), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if shrinks == (False, True) and width > old_width:
        image = cv2.resize(image, (old_width, height), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    method = cv2.INTER_AREA if any(shrinks) else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask ``(H, W)`` bool: ``{"size": [H, W], "counts": text}``."""
    from pycocotools import mask as coco_masks

    found = coco_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `encode_rle`; also takes counts as a plain list. ``(H, W)`` bool."""
    from pycocotools import mask as coco_masks

    if isinstance(rle["counts"], list):
        rle = coco_masks.frPyObjects(rle, *rle["size"])
    return np.asarray(coco_masks.decode(rle), dtype=np.bool_)
