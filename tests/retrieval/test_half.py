"""Rows of halves are what `astype` makes of them, and their products what numpy's are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.half import cosines, widened


def stored(*shape: int, seed: int = 0) -> np.ndarray:
    """float16 of any size a stored vector has, read-only as in a mapped file."""
    halves = np.random.default_rng(seed).standard_normal(shape).astype(np.float16)
    halves.flags.writeable = False
    return halves


def test_every_finite_half_is_widened_exactly() -> None:
    """All 63,488 finite float16 values, subnormal ones and both zeros included."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 8)
    exact = finite.astype(np.float32).view(np.uint32)
    assert (widened(finite, np.arange(len(finite))).view(np.uint32) == exact).all()


@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 39), max_size=50), st.integers(0, 99))
def test_rows_in_any_order_and_repeated(n: int, d: int, rows: list[int], seed: int) -> None:
    """The rows that were asked for, in that order; none gives none."""
    halves, wanted = stored(n, d, seed=seed), np.array([row % n for row in rows], np.int64)
    assert np.array_equal(widened(halves, wanted), halves.astype(np.float32)[wanted])


@pytest.mark.parametrize(("q", "n", "d"), [(1, 1, 1), (3, 215, 384), (2, 0, 7), (0, 5, 7), (4, 9, 449)])
def test_products_are_those_of_numpy(q: int, n: int, d: int) -> None:
    """Up to the order in which a sum is made."""
    halves, queries = stored(max(n, 1), d), np.random.default_rng(1).standard_normal((q, d)).astype(np.float32)
    rows = np.arange(n)[::-1].copy()
    exact = halves[rows].astype(np.float64) @ queries.T.astype(np.float64)
    assert cosines(queries, halves, rows).shape == (n, q)
    assert np.allclose(cosines(queries, halves, rows), exact, rtol=1e-4, atol=1e-4)
