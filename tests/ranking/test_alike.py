"""Semantic diversity: who steps back, and how far at most."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ranking.alike import step_back
from tests.ranking.cases import seeds


@given(seeds, st.integers(2, 40), st.integers(1, 12), st.floats(0.5, 10), st.floats(0, 0.9))
def test_diversity_moves_no_row_further_than_allowed(seed: int, n: int, most: int, step: float, above: float) -> None:
    """In either direction, whatever the vectors; and nobody is lost."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(3, 4))[rng.integers(0, 3, n)] + rng.normal(size=(n, 4)) * 0.2
    order = step_back((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), above, step, most)
    assert sorted(order.tolist()) == list(range(n))
    assert np.abs(order - np.arange(n)).max() <= most


def test_copies_spread_out_and_the_rest_keeps_its_order() -> None:
    """Three copies at the top: the first stays, the second steps back 3 places, the third 6."""
    vectors = np.eye(12, dtype=np.float32)
    vectors[1] = vectors[2] = vectors[0]
    assert step_back(vectors, 0.5, 3, 10).tolist() == [0, 3, 1, 4, 5, 6, 7, 2, 8, 9, 10, 11]
