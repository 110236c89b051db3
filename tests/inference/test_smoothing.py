"""Smoothing over time, against the plain formulas, and how soon a moment is known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, Smoothing
from avseg.inference.moments import Scored, smooth

TIMES = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.4, 1.5, 2.0, 2.2, 2.4, 2.6, 2.8])
SCORES = np.random.default_rng(0).random((len(TIMES), 8, 8)).astype(np.float16)


def moments() -> Iterator[Scored]:
    for time, score in zip(TIMES, SCORES, strict=True):
        yield Scored(float(time), score, -20.0, np.full((2, 2, 3), round(10 * time), np.uint8))


@pytest.mark.parametrize("seconds", [0.1, 0.5, 3.0])
def test_averaging_is_a_triangle_in_time(seconds: float) -> None:
    weights = np.maximum(0, 1 - np.abs(TIMES[:, None] - TIMES) / seconds)
    expected = np.einsum("ij,jhw->ihw", weights / weights.sum(1, keepdims=True), SCORES.astype(np.float64))
    found = list(smooth(moments(), Smoothing(seconds)))
    np.testing.assert_allclose([moment.score for moment in found], expected, atol=1e-3)
    assert [moment.time for moment in found] == list(TIMES)
    assert [int(moment.frame[0, 0, 0]) for moment in found if moment.frame is not None] == [
        round(10 * time) for time in TIMES
    ]


@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_the_dead_band_is_hysteresis_at_every_threshold(margin: float) -> None:
    found = np.array([moment.score for moment in smooth(moments(), Smoothing(margin=margin))]).astype(np.float64)
    for threshold in (0.3, 0.5, 0.6):
        inside = SCORES[0] >= threshold
        for score, smoothed in zip(SCORES.astype(np.float64), found, strict=True):
            inside = (score >= threshold + margin) | (inside & (score >= threshold - margin))
            clear = np.abs(smoothed - threshold) > 1e-3
            np.testing.assert_array_equal((smoothed >= threshold)[clear], inside[clear])
            assert clear.mean() > 0.9


def test_a_moment_is_known_once_those_around_it_are() -> None:
    seen: list[float] = []

    def watched() -> Iterator[Scored]:
        for moment in moments():
            seen.append(moment.time)
            yield moment

    for moment in smooth(watched(), Smoothing(0.5, 0.1)):
        first_that_tells = next((time for time in TIMES if time >= moment.time + 0.5), TIMES[-1])
        assert seen[-1] == first_that_tells


def test_no_smoothing_changes_nothing() -> None:
    for how in (Smoothing.of(None), Smoothing.of(0)):
        assert [moment.score is given for moment, given in zip(smooth(moments(), how), SCORES, strict=True)]
        np.testing.assert_array_equal([moment.score for moment in smooth(moments(), how)], SCORES)


def test_streams_and_results_are_smoothed_alike(light: AVSegmenter, video: Path) -> None:
    how = Smoothing(0.6, 0.1)
    streamed = list(light.stream(video, fps=4, smoothing=how))
    result = light(video, fps=4, smoothing=how)
    for moment, again in zip(streamed, result.moments(), strict=True):
        np.testing.assert_array_equal(moment.score, again.score)
        np.testing.assert_array_equal(moment.frame, again.frame)
    rough = list(light.stream(video, fps=4))
    assert (
        np.abs(np.diff([m.score for m in streamed], axis=0)).sum()
        < 0.8 * np.abs(np.diff([m.score for m in rough], axis=0)).sum()
    )


@pytest.mark.parametrize("wrong", [(-1, 0), (11, 0), (float("nan"), 0), (0, 0.5), (0, -0.1)])
def test_wrong_amounts_are_told(wrong: tuple[float, float]) -> None:
    with pytest.raises(AvsegError, match="is not available: give 0"):
        Smoothing(*wrong)


@pytest.mark.parametrize("fps", [4, None])
def test_no_frame_waits_for_the_scores_around_it(
    light: AVSegmenter, video: Path, fps: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far smoothing looks: what waits is scores, and the frames are those without smoothing."""
    kept: list[bool] = []

    def watched(moments: Iterator[Scored], how: Smoothing) -> Iterator[Scored]:
        for moment in moments:
            kept.append(moment.frame is not None)
            yield moment

    monkeypatch.setattr("avseg.inference.base.smooth", watched)
    smoothed = list(light.stream(video, fps=fps, smoothing=10))
    assert kept
    assert not any(kept)
    rough = list(light.stream(video, fps=fps))
    assert [moment.time for moment in smoothed] == [moment.time for moment in rough]
    for moment, other in zip(smoothed, rough, strict=True):
        np.testing.assert_array_equal(moment.frame, other.frame)
