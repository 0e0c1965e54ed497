"""Engagement counters: how often each item was shown and how it was taken, per tenant and window (1 h, 24 h, 7 d).

The indexer counts what it archives (`indexer/signals.py`) into one value per tenant and hour, and adds the hours up to
one value per tenant, which each worker reads about every ten seconds: no index rebuild. Counting is exactly once: the
hours and the place in the stream they were counted to are written in one step, and refused when somebody else counted
on from the same place.

Popularity is a smoothed rate of engagement, scaled by rank: with few impressions an item is drawn to the tenant's
mean, so that one like of one view is not the top of the feed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import StoreUnavailable
from retrieval.journal import RETENTION_S, Signal

T = TypeVar("T")

HOUR_S: Final = 3600
EXPIRY_S: Final = 8 * 86_400
PRIOR_IMPRESSIONS: Final = 20.0
"""An item counts as if it had been shown so often before with the tenant's mean result."""
LATEST_HOUR: Final = 2.0
"""In what is trending, the last hour counts so often again."""

MEASURES: Final = ("shown", "watched", "liked", "skipped")
COUNTS: Final = np.dtype([("item", "<u4"), ("sums", "<f4", (len(MEASURES),))])
"""20 bytes: item number, sum of each of MEASURES. Rows are ordered by item."""
WINDOWS_H: Final = (1, 24, 168)
WINDOWS: Final = np.dtype([("item", "<u4"), ("sums", "<f4", (len(WINDOWS_H), len(MEASURES)))])
"""52 bytes: item number, the sums of each of WINDOWS_H. Rows are ordered by item."""

COUNTED_AS: Final[Mapping[Signal, tuple[int, float]]] = MappingProxyType(
    {
        Signal.IMPRESSION: (0, 1.0),
        Signal.WATCH: (1, 1.0),
        Signal.COMPLETE: (1, 1.0),
        Signal.LIKE: (2, 1.0),
        Signal.UNLIKE: (2, -1.0),
        Signal.SHARE: (2, 1.5),
        Signal.BOOKMARK: (2, 1.0),
        Signal.FOLLOW: (2, 1.0),
        Signal.SKIP: (3, 1.0),
        Signal.NOT_INTERESTED: (3, 4.0),
        Signal.REPORT: (3, 8.0),
    }
)
"""Which measure an event adds to, and how much, times its strength."""
WORTH: Final = np.array([0.0, 1.0, 2.0, -0.5])
"""What one of each measure is worth beside an impression."""

# KEYS: how far was counted, then hours. ARGV: n, then n times (shard, position counted from, position counted to),
# then expiry of the positions and of the hours in seconds, then one value per hour. Answers 0 when somebody else has
# counted meanwhile.
SAVE: Final = """
local n = tonumber(ARGV[1])
for i = 1, n do
  if (redis.call('HGET', KEYS[1], ARGV[3 * i - 1]) or '0') ~= ARGV[3 * i] then return 0 end
end
for i = 1, n do redis.call('HSET', KEYS[1], ARGV[3 * i - 1], ARGV[3 * i + 1]) end
redis.call('EXPIRE', KEYS[1], ARGV[3 * n + 2])
for k = 2, #KEYS do redis.call('SET', KEYS[k], ARGV[3 * n + 2 + k], 'EX', ARGV[3 * n + 3]) end
return 1
"""

Counts = npt.NDArray[np.void]
"""COUNTS[n], one row per item."""
Windows = npt.NDArray[np.void]
"""WINDOWS[n], one row per item."""


@dataclass(frozen=True)
class Popularity:
    """Per item number, float32[largest counted item + 1] in [0, 1]; items beyond were never counted: 0."""

    popularity: npt.NDArray[np.float32]
    trending: npt.NDArray[np.float32]

    @staticmethod
    def nothing() -> Popularity:
        return Popularity(np.zeros(0, np.float32), np.zeros(0, np.float32))

    def of(self, items: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(popularity, trending) of the given items, float32[n] each."""
        if not len(self.popularity):
            return np.zeros(len(items), np.float32), np.zeros(len(items), np.float32)
        known = items < len(self.popularity)
        at = np.where(known, items, 0)
        return self.popularity[at] * known, self.trending[at] * known


class Counters:
    """The counters in Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._save: Any = redis.register_script(SAVE)

    async def windows(self, tenant: str) -> Windows:
        """What was counted of a tenant lately. Bytes that are no counters are none. Raises StoreUnavailable."""
        content: Any = await _answered(self.redis.get(keys.windows(tenant)))
        return _parsed(content, WINDOWS)

    async def publish(self, tenant: str, windows: Windows) -> None:
        """Let the service read `windows` from now on. Raises StoreUnavailable."""
        await _answered(self.redis.set(keys.windows(tenant), windows.tobytes(), ex=EXPIRY_S))

    async def tenants(self) -> set[str]:
        """Tenants of which something was counted or published in the last days. Raises StoreUnavailable."""
        found: set[str] = set()
        cursor = 0
        while True:
            answer: Any = await _answered(self.redis.scan(cursor, match=keys.COUNTERS_OF_TENANTS, count=1000))
            cursor, names = answer
            found |= {name.decode("ascii").split(":")[2] for name in names}
            if cursor == 0:
                return found

    async def counted(self) -> dict[int, int]:
        """How far each shard's stream was counted: shard -> position. Raises StoreUnavailable."""
        found: Any = await _answered(self.redis.hgetall(keys.COUNTED))
        return {int(shard): int(position) for shard, position in found.items()}

    async def hours(self, tenant: str, hours: Sequence[int]) -> dict[int, Counts]:
        """The counts of hours (unix seconds / 3600). Raises StoreUnavailable."""
        if not hours:
            return {}
        found: list[Any] = await _answered(self.redis.mget([keys.counts(tenant, hour) for hour in hours]))
        return {hour: _parsed(content, COUNTS) for hour, content in zip(hours, found, strict=True)}

    async def save(
        self, hours: Mapping[tuple[str, int], Counts], *, counted_from: Mapping[int, int], counted_to: Mapping[int, int]
    ) -> bool:
        """Put new counts of (tenant, hour) in place, together with how far they were counted.

        False, and nothing written, when another process has counted on from `counted_from`. Raises StoreUnavailable.
        """
        names = [keys.COUNTED, *(keys.counts(tenant, hour) for tenant, hour in hours)]
        positions = [part for shard, to in counted_to.items() for part in (shard, counted_from.get(shard, 0), to)]
        values = [counts.tobytes() for counts in hours.values()]
        arguments = [len(counted_to), *positions, RETENTION_S, EXPIRY_S, *values]
        return bool(await _answered(self._save(keys=names, args=arguments)))


def added(before: Counts, items: npt.NDArray[np.uint32], sums: npt.NDArray[np.float32]) -> Counts:
    """`before` plus one row of sums (float32[n, MEASURES]) per item, repeats added up."""
    known, which = np.unique(np.concatenate([before["item"], items]), return_inverse=True)
    total = np.zeros(len(known), COUNTS)
    total["item"] = known
    np.add.at(total["sums"], which, np.concatenate([before["sums"], sums]))
    return total


def windows_of(hours: Mapping[int, Counts], *, now_hour: int) -> Windows:
    """Add hours up to the windows that end with `now_hour`. The running hour is part of each."""
    latest = {hour: counts for hour, counts in hours.items() if now_hour - hour < max(WINDOWS_H)}
    nothing = np.zeros(0, np.uint32)
    items = np.unique(np.concatenate([nothing, *(counts["item"] for counts in latest.values())]))
    windows = np.zeros(len(items), WINDOWS)
    windows["item"] = items
    for hour, counts in latest.items():
        rows = np.searchsorted(items, counts["item"])
        for column, length_h in enumerate(WINDOWS_H):
            if now_hour - hour < length_h:
                windows["sums"][rows, column] += counts["sums"]
    return windows


def popularity(windows: Windows) -> Popularity:
    """Popularity over the last 7 days, and what is trending: the last 24 h, their last hour counted again."""
    hour, day, week = (windows["sums"][:, column].astype(np.float64) for column in range(len(WINDOWS_H)))
    items = windows["item"]
    size = int(items.max()) + 1 if len(items) else 0
    dense = np.zeros((2, size), np.float32)
    dense[0, items] = _rate_by_rank(week)
    dense[1, items] = _rate_by_rank(day + LATEST_HOUR * hour)
    return Popularity(dense[0], dense[1])


def _rate_by_rank(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Smoothed value per impression times how much was seen of it, as a rank in (0, 1] among counted items."""
    value = np.maximum(sums @ WORTH, 0.0)
    # An engagement without its impression event still was an impression.
    shown = np.maximum(sums[:, 0], np.minimum(value, 1.0))
    ranked = np.zeros(len(sums), np.float32)
    if not shown.any():
        return ranked
    mean = value.sum() / shown.sum()
    rate = (value + PRIOR_IMPRESSIONS * mean) / (shown + PRIOR_IMPRESSIONS)
    score = rate * np.log1p(value)
    counted = np.flatnonzero(score > 0)
    order = np.argsort(np.argsort(score[counted], kind="stable"), kind="stable")
    ranked[counted] = (order + 1) / max(len(counted), 1)
    return ranked


def _parsed(content: bytes | None, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    if not content or len(content) % dtype.itemsize:
        return np.zeros(0, dtype)
    return np.frombuffer(content, dtype)


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"counters: {type(error).__name__}") from error
