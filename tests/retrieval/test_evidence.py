"""What a window of few events borrows: most where it differs by chance alone, next to nothing where it is unlike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from retrieval.counters import HALF_LIVES_H
from retrieval.evidence import borrowed

DAYS = 360
ITEMS = 400
SHARES = 1 / np.arange(1, ITEMS + 1)
WEEK, HALF_YEAR = HALF_LIVES_H[2:]


def faded(items: npt.NDArray[np.int64], age_h: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """What is left of one event per item and age, in a week's window and in half a year's."""
    made = [np.bincount(items, 0.5 ** (age_h / half_life_h), minlength=ITEMS) for half_life_h in (WEEK, HALF_YEAR)]
    return [each.astype(np.float64) for each in made]


def drawn(events_a_day: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(items, ages in hours) of a time in which the same is always popular."""
    rng = np.random.default_rng(seed)
    n = int(events_a_day * DAYS)
    return rng.choice(ITEMS, n, p=SHARES / SHARES.sum()), rng.random(n) * DAYS * 24


def test_a_week_that_differs_by_chance_alone_borrows_most_and_one_that_is_unlike_next_to_nothing() -> None:
    """Thirty times each: the same is always popular; or what is watched this week was not there before."""
    alike, unlike = [], []
    for seed in range(30):
        items, age_h = drawn(20, seed)
        alike.append(borrowed(*faded(items, age_h)))
        unlike.append(borrowed(*faded(np.where(age_h < 7 * 24, ITEMS - 1 - items, items), age_h)))
    assert np.median(alike) > 0.5
    assert max(unlike) < 0.05


def test_the_more_was_counted_the_less_of_a_small_difference_is_put_down_to_chance() -> None:
    """Each week a tenth more of one item: a hundred events do not tell, a hundred thousand do."""
    shares = []
    for events_a_day in (5, 50, 5000):
        items, age_h = drawn(events_a_day, 0)
        more = (age_h < 7 * 24) & (np.arange(len(items)) % 10 == 0)
        shares.append(borrowed(*faded(np.where(more, ITEMS - 1, items), age_h)))
    assert shares[0] > shares[1] > shares[2]


COUNTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=20)


@given(COUNTS, st.data())
def test_a_share_is_a_share(longer: list[float], data: st.DataObject) -> None:
    """Between 0 and 1, for every window that is part of another; an empty one borrows everything."""
    parts = data.draw(st.lists(st.floats(0, 1), min_size=len(longer), max_size=len(longer)))
    whole = np.array(longer)
    assert 0 <= borrowed(whole * np.array(parts), whole) <= 1
    assert borrowed(np.zeros(len(whole)), whole) == 1
