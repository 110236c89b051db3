"""COCO's run-length encoding, against the published C routine written out plainly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avseg.inference.export import CATEGORY, annotation, document
from avseg.media.images import decode_rle, encode_rle


def plain(mask: np.ndarray) -> str:
    """rleEncode and rleToString of COCO's maskApi, one step after the other."""
    counts, last, run = [], 0, 0
    for pixel in mask.flatten(order="F"):
        if int(pixel) != last:
            counts.append(run)
            last, run = int(pixel), 0
        run += 1
    counts.append(run)
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            if more:
                c |= 0x20
            text += chr(c + 48)
    return text


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_any_mask_is_encoded_as_coco_does_and_comes_back(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    rle = encode_rle(mask)
    assert rle["size"] == [height, width]
    assert rle["counts"] == plain(mask)
    np.testing.assert_array_equal(decode_rle(rle), mask)


def test_large_masks() -> None:
    rows, columns = np.mgrid[:720, :1280]
    for mask in (
        (rows - 300) ** 2 + (columns - 500) ** 2 < 200**2,
        (rows // 60 + columns // 77) % 2 == 0,
        np.zeros((720, 1280), bool),
        np.ones((720, 1280), bool),
    ):
        rle = encode_rle(mask)
        assert rle["counts"] == plain(mask)
        np.testing.assert_array_equal(decode_rle(rle), mask)


def test_counts_as_a_list_are_read_too() -> None:
    mask = np.array([[0, 1], [1, 1], [0, 0]], dtype=bool)
    assert encode_rle(mask)["counts"] == plain(mask)
    np.testing.assert_array_equal(decode_rle({"size": [3, 2], "counts": [1, 1, 1, 2, 1]}), mask)


def test_an_annotation_says_where_the_mask_is() -> None:
    mask = np.zeros((30, 50), bool)
    mask[10:14, 20:26] = True
    mask[12, 40] = True
    found = annotation(3, 7, mask, time=1.5)
    assert (found["id"], found["image_id"], found["category_id"], found["iscrowd"]) == (3, 7, CATEGORY["id"], 0)
    assert (found["area"], found["bbox"], found["time"]) == (25, [20, 10, 21, 4], 1.5)


def test_moments_without_sound_are_images_without_annotation() -> None:
    parts = [[("sounding object", np.zeros((4, 6), bool))], [("sounding object", np.ones((4, 6), bool))]]
    made = document(["a.png", "b.png"], [0.0, 0.5], parts, (6, 4), {"description": "x"})
    assert [image["id"] for image in made["images"]] == [1, 2]
    assert made["images"][1] == {"id": 2, "file_name": "b.png", "width": 6, "height": 4, "time": 0.5}
    assert [found["image_id"] for found in made["annotations"]] == [2]
    with pytest.raises(ValueError, match="argument 2"):
        document(["a.png"], [0.0, 0.5], parts, (6, 4), {})
