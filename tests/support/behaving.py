"""Users with habits, for tests of what is learned from them: each keeps to one of a few circles of items.

Texts say nothing about circles. Items come in waves, so that what is popular changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from indexer.learn import Log
from retrieval.journal import Signal

N_ITEMS = 120
N_CIRCLES = 6
TEXT_DIM = 16
BEGAN_S = 1_700_000_000


def habits(seed: int = 0, users: int = 150, each: int = 20) -> Log:
    """Events of users who watch items of their circle, the popular ones more often."""
    rng = np.random.default_rng(seed)
    item = np.concatenate([_watched(rng, user % N_CIRCLES, each) for user in range(users)])
    at_s = BEGAN_S + rng.integers(0, 20 * 86_400, users)[:, None] + 60 * np.arange(each)
    user = np.repeat(np.arange(users), each)
    order = np.argsort(at_s.reshape(-1), kind="stable")
    n = users * each
    return Log(
        user[order],
        item[order].astype(np.uint32),
        at_s.reshape(-1)[order],
        np.full(n, int(Signal.COMPLETE), np.uint8),
        np.ones(n, np.float32),
    )


def texts(seed: int = 0, n: int = N_ITEMS) -> npt.NDArray[np.float32]:
    """float32[n, TEXT_DIM] unit vectors that know nothing of circles."""
    made = np.random.default_rng(seed).normal(size=(n, TEXT_DIM))
    unit: npt.NDArray[np.float32] = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


def circle_of(item: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    return item % N_CIRCLES


def _watched(rng: np.random.Generator, circle: int, each: int) -> npt.NDArray[np.int64]:
    own = np.arange(circle, N_ITEMS, N_CIRCLES)
    chances = 1 / np.arange(1, len(own) + 1) ** 0.3
    return rng.choice(own, each, replace=False, p=chances / chances.sum())
