"""A planned scene as pictures: frames, and which object is visible at every pixel."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from avseg.synthetic.backgrounds import draw_background
from avseg.synthetic.knobs import Knobs
from avseg.synthetic.layers import Camera, Image, Layer, Patch, bent, index_map, matrix, patch_factor, warped
from avseg.synthetic.objects import Picture, read_picture
from avseg.synthetic.scene import Scene

ROOM = 1.3  # sides of the background per side of the picture: what the camera may reach


class Painter:
    """Everything of a scene that doesn't change from frame to frame, ready to paint any frame.

    Args:
        scene: the plan.
        knobs: the settings.
        textures: cut-outs that backgrounds may take patches from.
        photographs: backgrounds to choose from, where the scene wants a photograph.
    """

    def __init__(
        self, scene: Scene, knobs: Knobs, textures: Sequence[Picture], photographs: Sequence[Path] = ()
    ) -> None:
        self.scene, self.knobs = scene, knobs
        rng = np.random.default_rng([scene.seed, 1])
        self._background = draw_background(rng, scene.background, round(knobs.size * ROOM), textures, photographs)
        self._patches = [self._prepare(layer) for layer in scene.layers]
        self._shadows = [self._shadow(patch) for patch in self._patches]
        self._shadow_at = rng.uniform(-0.03, 0.03), float(rng.uniform(0.01, 0.04))
        side = knobs.size + 64
        grain = rng.normal(0, scene.grain, (side, side, 1)) + rng.normal(0, scene.grain / 2, (side, side, 3))
        self._grain = grain.astype(np.float32)
        self._grain_at = rng.integers(0, 64, (knobs.frames, 2))

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """All frames in order, (H, W, 3) RGB."""
        for frame in range(self.knobs.frames):
            yield self.frame(frame)

    def frame(self, frame: int) -> npt.NDArray[np.uint8]:
        """One frame, (H, W, 3) RGB."""
        scene, side = self.scene, self.knobs.size
        canvas = self._behind(frame)
        for layer, patch, shadow in zip(scene.layers, self._patches, self._shadows, strict=True):
            affine = matrix(layer, scene.camera, patch, frame, side)
            if self.knobs.shadow > 0:
                self._darken(canvas, shadow, affine)
            result = warped(bent(patch, layer, frame), affine, side)
            if result is None:
                continue
            pixels, window = result
            light = (layer.gain[frame] * layer.cast[frame]).astype(np.float32)
            region = canvas[window]
            region *= 1 - pixels[..., 3:]
            region += pixels[..., :3] * light
        canvas *= np.float32(scene.light[frame])
        if scene.blur * side / 224 > 0.15:
            canvas = cv2.GaussianBlur(canvas, (0, 0), scene.blur * side / 224)
        y, x = self._grain_at[frame]
        canvas += self._grain[y : y + side, x : x + side]
        return np.clip(canvas, 0, 255).astype(np.uint8)

    def index_maps(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """At the labelled moments: the visible object (seconds, H, W), 0 none; pixels (seconds, objects, 2)."""
        layers = [o.layer for o in self.scene.objects]
        both = [
            index_map(self.scene.layers, self.scene.camera, self._patches, layers, frame, self.knobs.size)
            for frame in self.knobs.mask_frames()
        ]
        return np.stack([m for m, _ in both]), np.stack([c for _, c in both])

    def _behind(self, frame: int) -> Image:
        camera: Camera = self.scene.camera
        side, room = self.knobs.size, self._background.shape[0]
        turn = cv2.getRotationMatrix2D(
            ((room - 1) / 2, (room - 1) / 2), -np.degrees(camera.roll[frame]), float(camera.zoom[frame])
        )
        turn[:, 2] += (side - room) / 2 + 0.6 * side * np.array([camera.x[frame], camera.y[frame]])
        picture = cv2.warpAffine(self._background, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
        return picture.astype(np.float32)

    def _prepare(self, layer: Layer) -> Patch:
        """The cut-out at its size: premultiplied RGB and alpha, edge feathered, colour nearer to what is behind."""
        side = self.knobs.size
        rgba: Image = read_picture(layer.picture).astype(np.float32)
        if layer.mirrored:
            rgba = rgba[:, ::-1]
        factor = patch_factor(layer, side, rgba.shape[:2])
        shape = [max(2, round(n * factor)) for n in rgba.shape[:2]]
        alpha: Image = rgba[..., 3:] / 255
        both: Image = cv2.resize(
            np.ascontiguousarray(np.concatenate([rgba[..., :3] * alpha, alpha], -1)),
            (shape[1], shape[0]),
            interpolation=cv2.INTER_AREA,
        )
        room = 2 + max(shape) // 6  # for the part that bends out of the cut-out's box
        both = cv2.copyMakeBorder(both, room, room, room, room, cv2.BORDER_CONSTANT)
        colour, alpha = both[..., :3], both[..., 3]
        # colour is carried outwards, so that a softened edge doesn't show what the cut-out hides
        spread = cv2.GaussianBlur(both, (0, 0), 2.0)
        colour = np.where(
            alpha[..., None] > 0.9,
            colour / np.maximum(alpha[..., None], 1e-3),
            spread[..., :3] / np.maximum(spread[..., 3:], 1e-3),
        )
        alpha = cv2.GaussianBlur(alpha, (0, 0), layer.feather * side / 224)
        colour = self._matched(layer, colour, alpha)
        pixels = np.concatenate([colour * alpha[..., None], alpha[..., None]], -1).astype(np.float32)
        return Patch(np.ascontiguousarray(pixels), factor, (shape[1] / 2, shape[0] / 2))

    def _matched(self, layer: Layer, colour: Image, alpha: Image) -> Image:
        """Mean colour moved a share of the way to the background around the layer."""
        room = self._background.shape[0]
        middle = [int(np.clip(curve.mean() / ROOM + (1 - 1 / ROOM) / 2, 0, 1) * room) for curve in (layer.y, layer.x)]
        reach = room // 6
        around = self._background[
            max(0, middle[0] - reach) : middle[0] + reach, max(0, middle[1] - reach) : middle[1] + reach
        ]
        if not around.size:
            return colour
        mean = (colour * alpha[..., None]).sum((0, 1)) / max(float(alpha.sum()), 1e-3)
        return np.clip(colour + layer.colour_match * (around.mean((0, 1)) - mean), 0, 255).astype(np.float32)

    def _shadow(self, patch: Patch) -> Image:
        alpha = np.ascontiguousarray(patch.pixels[..., 3])
        return cv2.GaussianBlur(alpha, (0, 0), max(1.0, 0.06 * min(alpha.shape))) * np.float32(self.knobs.shadow)

    def _darken(self, canvas: Image, shadow: Image, affine: npt.NDArray[np.float64]) -> None:
        moved = affine.copy()
        moved[:, 2] += np.array(self._shadow_at) * self.knobs.size
        result = warped(shadow, moved, self.knobs.size)
        if result is not None:
            region = canvas[result[1]]
            region *= 1 - result[0][..., None]
