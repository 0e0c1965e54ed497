"""Intervals hold what they promise: known values, laws, and the truth in 95 of 100 made-up samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.operator.intervals import NOTHING, difference, drawn_again, share, share_by_user


def test_known_values() -> None:
    """Wilson's interval of 15 of 148 and 5 of 56, and Newcombe's of a difference: his own examples."""
    one = share(15, 148)
    assert (one.low, one.high) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    gap = difference(share(56, 70), share(48, 80))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=20))
def test_an_interval_holds_its_figure(users: list[tuple[int, int]]) -> None:
    """Inside [0, 1], around the value, never wider than knowing nothing; of no users there is none."""
    wholes = np.array([max(user) for user in users], np.float64)
    parts = np.array([min(user) for user in users], np.float64)
    found = share_by_user(parts, wholes)
    if not users:
        assert found == NOTHING
        return
    assert found.value is not None and found.low is not None and found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(parts.sum() / wholes.sum())
    alone = share(int(parts.sum()), int(wholes.sum()))
    assert alone.low is not None and found.low <= alone.low + 1e-9


@pytest.mark.parametrize("alike", [True, False])
def test_the_truth_is_inside_in_95_of_100_samples(alike: bool) -> None:
    """Users of one mind or of very different minds, 60 of them, 20 videos each: at least 92 % of the intervals hold."""
    rng, held, samples, users = np.random.default_rng(7), 0, 400, 60
    for _ in range(samples):
        minds = np.full(users, 0.2) if alike else rng.beta(0.5, 2.0, users)
        found = share_by_user(rng.binomial(20, minds).astype(np.float64), np.full(users, 20.0))
        held += (found.low or 0) <= 0.2 <= (found.high or 1)
    assert held >= 0.92 * samples


def test_users_that_differ_make_it_wider() -> None:
    """The same sum from two kinds of users is less sure than from many alike: videos are not independent."""
    wholes = np.full(50, 20.0)
    alike, apart = np.full(50, 10.0) + np.tile([1.0, -1.0], 25), np.tile([20.0, 0.0], 25)
    near, far = share_by_user(alike, wholes), share_by_user(apart, wholes)
    assert near.value == far.value
    assert (far.high or 0) - (far.low or 0) > 3 * ((near.high or 0) - (near.low or 0))


def test_drawing_again_is_repeatable_and_modest() -> None:
    """The same seed gives the same interval, around the mean; one observation has none, none has no value."""
    values = np.random.default_rng(1).normal(5, 2, 200)

    def mean(places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        return float(values[places].mean())

    one, again = (drawn_again(mean, 200, 200, np.random.default_rng(3)) for _ in range(2))
    assert one == again
    assert one.low is not None and one.high is not None and one.value is not None
    assert one.low < one.value < one.high
    assert one.high - one.low == pytest.approx(2 * 1.96 * 2 / 200**0.5, rel=0.2)
    assert drawn_again(mean, 1, 1, np.random.default_rng(3)).low is None
    assert drawn_again(mean, 0, 0, np.random.default_rng(3)) == NOTHING


def test_nothing_compared_with_something_is_nothing() -> None:
    """Without a hold-out there is no difference to speak of."""
    assert difference(share(3, 10), NOTHING) == NOTHING
    assert share(0, 0) == NOTHING
