"""Learn from what a tenant's users did: a vector of behaviour per item, and which weights tell what they do next. Pure.

Behaviour: two items a user took to shortly one after the other were watched along with each other. How much more often
than chance, for every pair, is a large sparse matrix (positive pointwise mutual information); its leading eigenvectors
are the vectors. That factorising this matrix does what skip-gram embeddings do is from Levy and Goldberg, NIPS 2014;
the exponent SMOOTHING of contexts too. Items of few events have short vectors: EVENTS_OF_DOUBT is added to each count.

A ridge regression maps the vector of the text to the one of behaviour, so that a brand-new video has one too: a short
one where texts tell nothing about behaviour.

Weights: `indexer.calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse

from retrieval.behaviour import Float32, shortened
from retrieval.journal import Signal

Sparse = Any
"""A scipy.sparse.csr_array of float32; scipy ships no types."""

FACTORS: Final = 47
"""With the place that fills a row up, 48: what index codes divide well."""
NEXT: Final = 5
"""An item is watched along with so many before and after it, the nearer the more."""
SMOOTHING: Final = 0.75
EVENTS_OF_DOUBT: Final = 20.0
POWER: Final = 8
"""Times the matrix is applied to find its leading eigenvectors."""
RIDGE: Final = 10.0
"""Times the number of items a tenant's factors are learned from, over 1,000: how little a text is trusted."""
MIN_PAIRS: Final = 2000
MIN_USERS: Final = 50
"""Fewer (user, item) pairs or users than this and texts say more."""
LIKED: Final = frozenset({Signal.WATCH, Signal.COMPLETE, Signal.LIKE, Signal.SHARE, Signal.BOOKMARK, Signal.FOLLOW})
WATCHED: Final = 0.5
"""A watch counts from this fraction on."""


@dataclass(frozen=True)
class Log:
    """n events of one tenant, oldest first: user int64[n] (any numbers), item uint32[n], at_s int64[n] unix seconds,
    signal uint8[n] of `Signal`, strength float32[n] in [0, 1]."""

    user: npt.NDArray[np.int64]
    item: npt.NDArray[np.uint32]
    at_s: npt.NDArray[np.int64]
    signal: npt.NDArray[np.uint8]
    strength: Float32

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Log:
        """The events at `rows`, in that order."""
        return Log(self.user[rows], self.item[rows], self.at_s[rows], self.signal[rows], self.strength[rows])

    def taken_to(self) -> Log:
        """One event per (user, item): the first that says the user took to it."""
        good = np.isin(self.signal, [int(signal) for signal in LIKED])
        good &= (self.signal != Signal.WATCH) | (self.strength >= WATCHED)
        liked = self.take(good)
        pairs = liked.user << 32 | liked.item.astype(np.int64)
        return liked.take(np.sort(np.unique(pairs, return_index=True)[1]))


def enough(log: Log) -> bool:
    """Whether there is something to learn from."""
    taken = log.taken_to()
    return len(taken) >= MIN_PAIRS and len(np.unique(taken.user)) >= MIN_USERS


def factors(log: Log, *, k: int = FACTORS) -> tuple[npt.NDArray[np.uint32], Float32]:
    """(items uint32[n] ascending, float32[n, k] of length up to 1) of the items that users took to."""
    taken = log.taken_to()
    items, column = np.unique(taken.item, return_inverse=True)
    matrix = _association(_neighbours(taken.user, column, len(items)))
    values, vectors = _leading(matrix, min(k, len(items)))
    found = np.zeros((len(items), k), np.float32)
    found[:, : len(values)] = vectors * np.sqrt(np.maximum(values, 0))
    longest = np.quantile(np.linalg.norm(found, axis=1), 0.999)
    return items, shortened(found / np.float32(max(float(longest), 1e-9)))


def ridge(text: Float32, behaviour: Float32) -> Float32:
    """float32[t, k] that maps unit text vectors float32[n, t] to behaviour float32[n, k] with the least squares."""
    wide = text.astype(np.float64)
    doubt = RIDGE * max(len(text) / 1000, 1.0)
    gram = wide.T @ wide + doubt * np.eye(text.shape[1])
    return np.linalg.solve(gram, wide.T @ behaviour).astype(np.float32)


def _leading(matrix: Sparse, k: int) -> tuple[Float32, Float32]:
    """(values float32[k], vectors float32[n, k]) of the largest eigenvalues of a symmetric matrix, nearly.

    Subspace iteration from a fixed random block with room to spare (Halko, Martinsson and Tropp, SIAM Review 2011).
    """
    n = matrix.shape[0]
    block = np.random.default_rng(0).normal(size=(n, min(2 * k + 8, n))).astype(np.float32)
    for _ in range(POWER):
        block = np.linalg.qr(matrix @ block)[0]
    values, turned = np.linalg.eigh(block.T @ (matrix @ block))
    return values[::-1][:k], (block @ turned[:, ::-1])[:, :k]


def _neighbours(user: npt.NDArray[np.int64], column: npt.NDArray[np.intp], n_items: int) -> Sparse:
    """How often two items were watched along with each other; symmetric."""
    order = np.argsort(user, kind="stable")
    user, column = user[order], column[order]
    counts = sparse.csr_array((n_items, n_items), dtype=np.float32)
    for apart in range(1, NEXT + 1):
        same = user[apart:] == user[:-apart]
        near = np.full(int(same.sum()), (NEXT + 1 - apart) / NEXT, np.float32)
        counts = counts + sparse.csr_array((near, (column[apart:][same], column[:-apart][same])), counts.shape)
    return counts + counts.T


def _association(counts: Sparse) -> Sparse:
    """Positive pointwise mutual information of the counts."""
    total = np.asarray(counts.sum(axis=1)).ravel() + EVENTS_OF_DOUBT
    pairs = counts.tocoo()
    smooth = total**SMOOTHING
    expected = np.sqrt(total * smooth)[pairs.row] * np.sqrt(total * smooth)[pairs.col] / smooth.sum()
    information = np.log(pairs.data / expected)
    above = information > 0
    return sparse.csr_array((information[above], (pairs.row[above], pairs.col[above])), counts.shape)
