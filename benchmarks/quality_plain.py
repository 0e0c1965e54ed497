"""The plain methods that `benchmarks/quality.py` compares with: each scores every item for every user asked about.

All learn from the known part of the split; what is counted is counted until the moment the user is asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sparse

from benchmarks.quality_data import Ints, Split, best, measured, split

Scores = npt.NDArray[np.floating[Any]]

DAY_S: Final = 86_400
WINDOWS_DAYS: Final = (1, 3, 7, 14, 30, 90, 365)
NEIGHBOURS: Final = 100
RIDGE: Final = 100.0
FACTORS: Final = 32
ROUNDS: Final = 10
SMALL: Final = 4000
"""With no more users than this, EASE is solved among users instead of items."""


def random(asked: Split) -> list[Ints]:
    rng = np.random.default_rng(0)
    return [best(rng.random(asked.data.n_items), seen) for seen in asked.seen]


def popular(asked: Split) -> list[Ints]:
    """By all events that are known."""
    counts = np.bincount(asked.data.item[asked.known], minlength=asked.data.n_items)
    return [best(counts, seen) for seen in asked.seen]


def recent(asked: Split, days: int) -> list[Ints]:
    """By the known events of so many days before the user is asked; where there are none, by all."""
    item, at_s = asked.data.item[asked.known], asked.data.at_s[asked.known]
    always = 1e-6 * np.bincount(item, minlength=asked.data.n_items)
    begin, end = (np.searchsorted(at_s, asked.asked_s - back) for back in (days * DAY_S, 0))
    bounds = zip(begin.tolist(), end.tolist(), asked.seen, strict=True)
    return [best(np.bincount(item[a:b], minlength=asked.data.n_items) + always, seen) for a, b, seen in bounds]


def recent_days(asked: Split) -> int:
    """The window that is best one step earlier: on the part before the one that is asked about, or where a split has
    no such part, on the last event that is known of each user."""
    data, name = asked.data, asked.name
    of = data.splits[name]
    if not (of == "valid").any():
        of = np.where(asked.known, "train", "later")
        rows = np.flatnonzero(asked.known)[::-1]
        of[rows[np.unique(data.user[rows], return_index=True)[1]]] = "valid"
    earlier = split(replace(data, splits={name: of}), name, part="valid")
    text = np.zeros((data.n_items, 1), np.float32)
    return max(WINDOWS_DAYS, key=lambda days: measured(earlier, recent(earlier, days), text)["ndcg20"])


def item_knn(asked: Split) -> list[Ints]:
    """Cosine between columns, NEIGHBOURS of each."""
    matrix = asked.matrix()
    lengths = np.sqrt(np.maximum(np.asarray(matrix.sum(0)).ravel(), 1))
    unit = matrix @ sparse.diags(1 / lengths)
    alike = (unit.T @ unit).tocsr().astype(np.float32)
    alike.setdiag(0)
    for start, end in zip(alike.indptr, alike.indptr[1:], strict=False):
        values = alike.data[start:end]
        if len(values) > NEIGHBOURS:
            values[values < np.partition(values, -NEIGHBOURS)[-NEIGHBOURS]] = 0
    return _lists(asked, (matrix[asked.users] @ alike.T).toarray())


def ease(asked: Split) -> list[Ints]:
    """Embarrassingly shallow autoencoders (Steck, WWW 2019)."""
    matrix = asked.matrix()
    active = matrix[np.flatnonzero(np.asarray(matrix.sum(1)).ravel() > 1)]
    if active.shape[0] <= SMALL:
        return _lists(asked, _ease_among_users(matrix, active, asked.users))
    columns = np.flatnonzero(np.asarray(matrix.sum(0)).ravel())
    gram = (matrix[:, columns].T @ matrix[:, columns]).toarray()
    gram[np.diag_indices(len(columns))] += RIDGE
    half = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(half, np.eye(len(columns), dtype=np.float32), overwrite_b=True, check_finite=False)
    own = matrix[asked.users][:, columns].toarray()
    scores = np.zeros((len(asked.users), asked.data.n_items), np.float32)
    scores[:, columns] = own - own @ inverse / np.diag(inverse)
    return _lists(asked, scores)


def _ease_among_users(matrix: sparse.csr_matrix, active: sparse.csr_matrix, users: Ints) -> Scores:
    """The same by Woodbury's identity; users of one event only add to the diagonal."""
    rows = active.toarray().astype(np.float64)
    diagonal = RIDGE + np.asarray(matrix.sum(0)).ravel() - rows.sum(0)
    scaled = rows / diagonal
    solved = np.linalg.solve(np.eye(len(rows)) + scaled @ rows.T, scaled)
    own = matrix[users].toarray()
    moved = own / diagonal - ((own / diagonal) @ rows.T) @ solved
    result: Scores = own - moved / (1 / diagonal - np.einsum("ui,ui->i", scaled, solved))
    return result


def als(asked: Split) -> list[Ints]:
    """Implicit feedback, alternating least squares (Hu, Koren and Volinsky, ICDM 2008), confidence 2 and ridge 1."""
    matrix = asked.matrix()
    transposed = matrix.T.tocsr()
    items = np.random.default_rng(0).normal(0, 0.01, (asked.data.n_items, FACTORS)).astype(np.float32)
    for _ in range(ROUNDS):
        items = _solved(transposed, _solved(matrix, items))
    return _lists(asked, _solved(matrix, items)[asked.users] @ items.T)


def _solved(matrix: sparse.csr_matrix, other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shared = other.T @ other + np.eye(FACTORS, dtype=np.float32)
    found = np.zeros((matrix.shape[0], FACTORS), np.float32)
    for row in np.flatnonzero(np.diff(matrix.indptr)).tolist():
        mine = other[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]]
        found[row] = np.linalg.solve(shared + mine.T @ mine, 2 * mine.sum(0))
    return found


def _lists(asked: Split, scores: Scores) -> list[Ints]:
    return [best(row, seen) for row, seen in zip(scores, asked.seen, strict=True)]
