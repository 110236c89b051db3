"""Resampling: exact where it can be, and the same in pieces as in one go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avseg.media.resample import Resampler, resample


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (5, 3), (3, 5), (16_000, 16_000)]),
    st.lists(st.integers(0, 1500), min_size=1, max_size=6),
)
def test_pieces_give_the_whole(rates: tuple[int, int], lengths: list[int]) -> None:
    sound = np.random.default_rng(sum(lengths)).normal(size=sum(lengths))
    resampler = Resampler(*rates)
    pieces = [resampler.push(piece) for piece in np.split(sound, np.cumsum(lengths)[:-1])]
    joined = np.concatenate([*pieces, resampler.finish()])

    assert len(joined) == len(sound) * rates[1] // rates[0]
    assert np.abs(joined - resample(sound, *rates)).max(initial=0) < 1e-12


@pytest.mark.parametrize(("rate", "target"), [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000)])
def test_a_tone_keeps_its_phase_and_what_cannot_be_kept_is_removed(rate: int, target: int) -> None:
    time = np.arange(rate) / rate
    kept = resample(np.sin(2 * np.pi * 1000 * time), rate, target)
    assert np.abs(kept - np.sin(2 * np.pi * 1000 * np.arange(target) / target))[300:-300].max() < 1e-5
    if rate > target:
        removed = resample(np.sin(2 * np.pi * 9000 * time), rate, target)
        assert np.abs(removed[300:-300]).max() < 1e-4


def test_memory_does_not_grow_with_what_was_pushed() -> None:
    resampler = Resampler(48_000, 16_000)
    for _ in range(50):
        resampler.push(np.zeros(4_800))
    assert len(resampler._input) < 2_000


def test_rates_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Resampler(0, 16_000)
