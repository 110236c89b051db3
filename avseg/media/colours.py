"""Decoded frames as 8-bit RGB that an ordinary (SDR, BT.709) screen shows right, whatever colours they were made in."""

from __future__ import annotations

from fractions import Fraction
from tempfile import NamedTemporaryFile

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

_BT709, _BT601, _BT2020 = 1, 5, 9  # AVColorSpace
_UNSPECIFIED = frozenset({2, 3})
# Linear RGB of wider primaries -> BT.709's; all with the white point D65.
_TO_BT709 = {
    int(ColorPrimaries.BT2020): (
        (1.660491, -0.587641, -0.072850),
        (-0.124550, 1.132900, -0.008349),
        (-0.018151, -0.100579, 1.118730),
    ),
    int(ColorPrimaries.SMPTE432): (
        (1.224940, -0.224940, 0.0),
        (-0.042057, 1.042057, 0.0),
        (-0.019638, -0.078636, 1.098273),
    ),
}
_HDR = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}
# ITU-R BT.2408: what an SDR screen shows as white has 203 cd/m² in HDR; a common HDR screen reaches 1,000.
_WHITE, _PEAK = 203.0, 1000.0
_KNEE = 0.7  # up to this share of SDR's white brightness stays as it is; above it is compressed
_SCREEN = 2.4  # gamma of an SDR screen (ITU-R BT.1886)
_WIDE = "gbrp16le"
_CUBE = 65  # steps of each colour in the table; between them is interpolated


def matrix_of(frame: VideoFrame) -> int:
    """Which matrix (AVColorSpace) a frame's YCbCr was made with.

    Where the file doesn't say: BT.2020's for HDR, BT.709's from 720 lines or more than 1,024 columns on, and BT.601's
    for smaller frames, as players guess.
    """
    if frame.colorspace not in _UNSPECIFIED or frame.format.is_rgb:
        return int(frame.colorspace)
    if frame.color_trc in _HDR:
        return _BT2020
    return _BT709 if frame.height >= 720 or frame.width > 1024 else _BT601


def wide_colours(frame: VideoFrame) -> str | None:
    """What a frame's colours are that an SDR screen can't show as they are, such as "HDR (PQ)"; None for ordinary."""
    if frame.color_trc in _HDR:
        return f"HDR ({_HDR[frame.color_trc]})"
    names = {int(ColorPrimaries.BT2020): "BT.2020", int(ColorPrimaries.SMPTE432): "Display P3"}
    return names.get(frame.color_primaries)


class ToRGB:
    """Converts frames of one track. Setting one up costs more than converting a frame."""

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        self._to_wide = VideoReformatter()
        self._graphs: dict[tuple[int, int, int, int], Graph] = {}

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """``(H, W, 3)`` uint8, as stored."""
        matrix = matrix_of(frame)
        if wide_colours(frame) is not None:
            frame, matrix = self._narrowed(frame, matrix), _BT709
        converted = self._converter.reformat(frame, format="rgb24", src_colorspace=matrix)
        plane = converted.planes[0]
        rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[: converted.height]  # type: ignore[call-overload]
        return np.array(rows[:, : 3 * converted.width]).reshape(converted.height, converted.width, 3)

    def _narrowed(self, frame: VideoFrame, matrix: int) -> VideoFrame:
        """The same in BT.709's colours, RGB with 16 bits."""
        key = (frame.width, frame.height, int(frame.color_trc), int(frame.color_primaries))
        if key not in self._graphs:
            self._graphs = {key: _graph(*key)}
        graph = self._graphs[key]
        graph.push(self._to_wide.reformat(frame, format=_WIDE, src_colorspace=matrix))
        found = graph.pull()
        assert isinstance(found, VideoFrame)
        return found


def _graph(width: int, height: int, transfer: int, primaries: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=VideoFormat(_WIDE), time_base=Fraction(1))
    with NamedTemporaryFile("w", suffix=".cube") as file:
        file.write(f"LUT_3D_SIZE {_CUBE}\n")
        np.savetxt(file, narrowing(_cube(), transfer, primaries), fmt="%.5f")
        file.flush()
        table = graph.add("lut3d", file=file.name, interp="tetrahedral")
        sink = graph.add("buffersink")
        source.link_to(table)
        table.link_to(sink)
        graph.configure()
    return graph


def narrowing(colours: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """Colours of HDR or of wide primaries as an SDR screen shows them.

    Up to 70 % of SDR's white nothing changes; the rest up to 1,000 cd/m² is compressed into what remains, all three
    channels by one factor, which keeps hue. What BT.709 hasn't got is clipped.

    Args:
        colours: ``(n, 3)`` R'G'B' in [0, 1].
        transfer: AVColorTransferCharacteristic.
        primaries: AVColorPrimaries; BT.2020's are assumed for HDR that doesn't say.

    Returns:
        ``(n, 3)`` R'G'B' in [0, 1].
    """
    light = _light(colours, transfer)
    matrix = _TO_BT709.get(primaries, _TO_BT709[int(ColorPrimaries.BT2020)])
    light = np.maximum(light @ np.array(matrix).T, 0)
    if transfer in _HDR:
        brightest = light.max(1, keepdims=True)
        above = np.clip((brightest - _KNEE) / (_PEAK / _WHITE - _KNEE), 0, 1)
        # A rational curve that leaves the knee with slope 1 and ends at white.
        slope = (_PEAK / _WHITE - _KNEE) / (1 - _KNEE)
        shown = np.where(brightest > _KNEE, _KNEE + (1 - _KNEE) * above * slope / (1 + above * (slope - 1)), brightest)
        light = light * shown / np.maximum(brightest, 1e-9)
    return np.clip(light, 0, 1) ** (1 / _SCREEN)


def _light(signal: np.ndarray, transfer: int) -> np.ndarray:
    """Light that a screen gives off, with SDR's white as 1 (ITU-R BT.2100)."""
    if transfer == int(ColorTrc.SMPTE2084):
        root = signal ** (32 / 2523)
        return 10_000 / _WHITE * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
    if transfer == int(ColorTrc.ARIB_STD_B67):
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        brightness = scene @ np.array([0.2627, 0.6780, 0.0593])
        return _PEAK / _WHITE * scene * np.maximum(brightness, 1e-9)[:, None] ** 0.2
    return signal**_SCREEN


def _cube() -> np.ndarray:
    """Every colour of the table, ``(n, 3)``, red changing fastest."""
    steps = np.linspace(0, 1, _CUBE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return np.stack([red.ravel(), green.ravel(), blue.ravel()], 1)
