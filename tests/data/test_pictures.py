from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.data.fit import Fit
from avseg.errors import AvsegError
from avseg.media.images import read_image, read_mask, write_image, write_mask


def test_images_are_rgb_and_written_exactly(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), image), "another reader sees RGB too"


def test_masks_of_every_published_mode(tmp_path: Path) -> None:
    on = np.random.default_rng(0).random((40, 60)) > 0.5
    grey = Image.fromarray(on.astype(np.uint8))  # on is 1, nearly black: no threshold at 128
    palette = Image.fromarray(np.where(on, 3, 0).astype(np.uint8), mode="P")
    palette.putpalette([255, 255, 255, *[0] * 6, 0, 0, 0])  # background is white, index 3 is black
    pictures = {
        "one": Image.fromarray(on),
        "grey": grey,
        "palette": palette,
        "red": Image.fromarray(np.stack([on * np.uint8(200), on * np.uint8(0), on * np.uint8(0)], -1)),
        "alpha": Image.fromarray(np.stack([on * np.uint8(9)] * 3 + [np.full_like(on, 255, np.uint8)], -1)),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), on), name
    assert Image.open(tmp_path / "one.png").mode == "1"
    assert Image.open(tmp_path / "palette.png").mode == "P"
    write_mask(tmp_path / "own.png", on)
    assert np.array_equal(read_mask(tmp_path / "own.png", (60, 40)), on)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    write_mask(tmp_path / "a_1.png", np.ones((40, 60), dtype=bool))
    with pytest.raises(AvsegError, match=r"a_1\.png is 60×40 pixels, not 64×64"):
        read_mask(tmp_path / "a_1.png", (64, 64))


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_faulty_pictures_are_named(tmp_path: Path, read) -> None:
    write_image(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = (tmp_path / "whole.png").read_bytes()
    for name, content in {"empty": b"", "cut": data[: len(data) // 2], "text": b"not an image"}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(AvsegError, match=rf"{name}\.png is not a whole image"):
            read(tmp_path / f"{name}.png")
    with pytest.raises(AvsegError, match=r"none\.png does not exist"):
        read(tmp_path / "none.png")


def test_stretching_resizes_everything() -> None:
    fit = Fit.stretch(32)
    assert fit.image(np.zeros((64, 64, 3), np.uint8)).shape == (32, 32, 3)
    mask = np.zeros((64, 64), dtype=bool)
    mask[:, :33] = True  # column 16 of the small mask is half on, which is not more than half
    assert np.array_equal(fit.mask(mask), np.arange(32)[None].repeat(32, 0) < 16)
    mask[:32, 33] = True
    assert fit.mask(mask)[:16, 16].all()
    flow = np.stack([np.full((64, 128), 4.0), np.full((64, 128), 3.0)]).astype(np.float32)
    assert np.allclose(fit.flow(flow)[0], 1.0)
    assert np.allclose(fit.flow(flow)[1], 1.5)
    assert fit.inside().all()


def test_letterboxing_gives_the_video_its_aspect_back() -> None:
    fit = Fit.letterbox(64, 1280, 720)
    assert (fit.width, fit.height, fit.left, fit.top) == (64, 36, 0, 14)
    inside = fit.inside()
    assert inside.sum() == 64 * 36
    assert inside[14:50].all()
    image = fit.image(np.full((224, 224, 3), 200, np.uint8))
    assert (image[inside] == 200).all()
    assert (image[~inside] == 0).all()
    mask = fit.mask(np.ones((224, 224), dtype=bool))
    assert np.array_equal(mask, inside)
    flow = fit.flow(np.full((2, 224, 224), 7.0, np.float32))
    assert np.allclose(flow[0][inside], 7 * 64 / 224)
    assert np.allclose(flow[1][inside], 7 * 36 / 224)
    assert (flow[:, ~inside] == 0).all()
    tall = Fit.letterbox(64, 100, 400)
    assert (tall.width, tall.height, tall.left, tall.top) == (16, 64, 24, 0)
