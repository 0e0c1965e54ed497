"""Semantic diversity: items that say the same are kept apart."""

import numpy as np

from ranking.columns import Float32, Rows
from ranking.compiled import compiled


@compiled("intp[:](float32[:, ::1], float32, float32, intp)", any_order=True)
def step_back(vectors: Float32, above: float, step: float, most: int) -> Rows:
    """Return intp[d]: the new order of d rows so that those alike something just before them step back.

    vectors: float32[d, k], unit rows, best first. A row steps back `step` places per fully alike row among the `most`
    before it, `most` at most. It follows that no row moves more than `most` places in either direction: a row is
    overtaken only by rows that stood at most `most` places behind it. In the spirit of maximal marginal relevance
    (Carbonell and Goldstein, 1998), but without its greedy loop.
    """
    places = np.empty(len(vectors), np.float32)
    for row in range(len(vectors)):
        alike = np.float32(0)
        for before in range(max(row - most, 0), row):
            cosine = np.float32(0)
            for at in range(vectors.shape[1]):
                cosine += vectors[row, at] * vectors[before, at]
            alike += max(cosine - above, np.float32(0))
        places[row] = row + min(alike * step / (np.float32(1) - above), np.float32(most))
    return np.argsort(places, kind="mergesort")
