"""Semantic diversity: items that say the same are kept apart."""

from functools import lru_cache

import numpy as np

from ranking.columns import Float32, Rows


def step_back(vectors: Float32, above: float, step: float, most: int) -> Rows:
    """Return intp[d]: the new order of d rows so that those alike something just before them step back.

    vectors: float32[d, k], unit rows, best first. A row steps back `step` places per fully alike row among the `most`
    before it, `most` at most. It follows that no row moves more than `most` places in either direction: a row is
    overtaken only by rows that stood at most `most` places behind it. In the spirit of maximal marginal relevance
    (Carbonell and Goldstein, 1998), but without its greedy loop.
    """
    # Of a copy: with itself, BLAS takes a symmetric routine that is twice as slow at this size.
    alike = vectors @ vectors.copy().T
    alike -= above
    np.maximum(alike, 0, out=alike)
    steps = np.einsum("ij,ij->i", alike, _just_before(len(vectors), most)) * (step / (1 - above))
    return np.argsort(np.arange(len(vectors)) + np.minimum(steps, most), kind="stable")


@lru_cache(maxsize=64)
def _just_before(n: int, most: int) -> Float32:
    """Return float32[n, n]: 1 where column j is one of the `most` rows before row i."""
    back = np.arange(n)[:, None] - np.arange(n)
    return ((back > 0) & (back <= most)).astype(np.float32)
