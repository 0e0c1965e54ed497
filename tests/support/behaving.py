"""Users with habits, for tests of what is learned from them: each keeps to one of a few circles of items.

Texts say nothing about circles. Items come in waves, so that what is popular changes.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    return _completed(np.repeat(np.arange(users), each), item, at_s.reshape(-1))


def sittings(days: Sequence[int], each: Sequence[int], *, moved: bool, users: int = 240) -> Log:
    """Events of users who watch `each` items in sittings on these days since they came, all of their one circle; or
    moved: of one circle in the first sitting and of another ever after. As many passers-by watch what all of them do
    in that week, so that trends tell something too."""
    rng = np.random.default_rng(0)
    came = rng.integers(0, 200, (users, 1))
    first = rng.integers(0, N_CIRCLES, users)
    then = (first + rng.integers(1, N_CIRCLES, users)) % N_CIRCLES if moved else first
    own = [(_watched(rng, a, each[0]), _watched(rng, b, sum(each))) for a, b in zip(first, then, strict=True)]
    item = np.stack([np.append(old, new[~np.isin(new, old)][: sum(each[1:])]) for old, new in own])
    at_s = (came + np.repeat(days, each)) * 86_400 + 60 * np.arange(sum(each))
    passing = rng.integers(0, 300, (users, 1))
    hot = (11 * (passing // 7) + np.argsort(rng.random((users, 4)), axis=1)[:, :3]) % N_ITEMS
    return _completed(
        np.concatenate([np.repeat(np.arange(users), sum(each)), np.repeat(users + np.arange(users), 3)]),
        np.concatenate([item.reshape(-1), hot.reshape(-1)]),
        BEGAN_S + np.concatenate([at_s.reshape(-1), (passing * 86_400 + 60 * np.arange(3)).reshape(-1)]),
    )


def _completed(user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], at_s: npt.NDArray[np.int64]) -> Log:
    order = np.argsort(at_s, kind="stable")
    n = len(order)
    signal, strength = np.full(n, int(Signal.COMPLETE), np.uint8), np.ones(n, np.float32)
    return Log(user[order], item[order].astype(np.uint32), at_s[order], signal, strength)


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
