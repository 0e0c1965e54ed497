"""Engagement counters: per tenant and hour, how often each item was shown and how it was taken.

Hourly hashes in Redis add up to any window (24 h, 7 d); what ranking reads is computed from them about every ten
seconds and needs no index rebuild. Popularity is a smoothed rate of engagement, scaled by rank: with few impressions
an item is drawn to the tenant's mean, so that one like of one view is not the top of the feed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import StoreUnavailable
from retrieval.journal import Signal

HOUR_S = 3600
WINDOW_HOURS = 7 * 24
TREND_HOURS = 24
EXPIRY_S = 8 * 86_400
PRIOR_IMPRESSIONS = 20.0
"""An item counts as if it had been shown so often before with the tenant's mean result."""

VALUE: Mapping[Signal, float] = {
    Signal.WATCH: 1.0,
    Signal.COMPLETE: 1.0,
    Signal.LIKE: 2.0,
    Signal.UNLIKE: -2.0,
    Signal.SHARE: 3.0,
    Signal.BOOKMARK: 2.0,
    Signal.FOLLOW: 2.0,
    Signal.SKIP: -0.5,
    Signal.NOT_INTERESTED: -2.0,
    Signal.REPORT: -4.0,
}
"""What one event is worth beside an impression, times its strength."""


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
    """The hourly counters in Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def add(self, tenant: str, events: Iterable[tuple[int, Signal, float]], *, now_s: float) -> None:
        """Count (item, signal, strength 0-1) events. Raises StoreUnavailable."""
        sums: Counter[str] = Counter()
        for item, signal, strength in events:
            sums[f"{item}:{int(signal)}"] += round(100 * strength)
        key = keys.counters(tenant, int(now_s // HOUR_S))
        try:
            pipeline = self.redis.pipeline(transaction=False)
            for field, amount in sums.items():
                pipeline.hincrby(key, field, amount)
            pipeline.expire(key, EXPIRY_S)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"counters: {type(error).__name__}") from error

    async def hours(self, tenant: str, hours: Iterable[int]) -> dict[int, dict[bytes, bytes]]:
        """The raw counters of the given hours (unix seconds / 3600). Raises StoreUnavailable."""
        wanted = list(hours)
        try:
            pipeline = self.redis.pipeline(transaction=False)
            for hour in wanted:
                pipeline.hgetall(keys.counters(tenant, hour))
            return dict(zip(wanted, await pipeline.execute(), strict=True))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"counters: {type(error).__name__}") from error


def popularity(hours: Mapping[int, Mapping[bytes, bytes]], *, now_s: float) -> Popularity:
    """Popularity over the last 7 days and trend over the last 24 h, from raw hourly counters."""
    now_hour = int(now_s // HOUR_S)
    week = _sums(counts for hour, counts in hours.items() if now_hour - hour < WINDOW_HOURS)
    day = _sums(counts for hour, counts in hours.items() if now_hour - hour < TREND_HOURS)
    return Popularity(_rate_by_rank(week), _rate_by_rank(day))


def _sums(counters: Iterable[Mapping[bytes, bytes]]) -> npt.NDArray[np.float64]:
    """float64[items, 2]: impressions and the value of engagement."""
    shown: Counter[int] = Counter()
    value: Counter[int] = Counter()
    for counts in counters:
        for field, amount in counts.items():
            item, signal = (int(part) for part in field.split(b":"))
            if signal == Signal.IMPRESSION:
                shown[item] += int(amount)
            else:
                value[item] += int(int(amount) * VALUE.get(Signal(signal), 0.0))
    sums = np.zeros((1 + max((*shown, *value), default=-1), 2))
    for column, counted in enumerate((shown, value)):
        for item, hundredths in counted.items():
            sums[item, column] = hundredths / 100
    return sums


def _rate_by_rank(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Smoothed value per impression times how much was seen of it, as a rank in (0, 1] among counted items."""
    shown, value = sums[:, 0], np.maximum(sums[:, 1], 0.0)
    # An engagement without its impression event still was an impression.
    shown = np.maximum(shown, np.minimum(value, 1.0) * (value > 0))
    if not shown.any():
        return np.zeros(len(sums), np.float32)
    mean = value.sum() / shown.sum()
    rate = (value + PRIOR_IMPRESSIONS * mean) / (shown + PRIOR_IMPRESSIONS)
    score = rate * np.log1p(value)
    ranked = np.zeros(len(sums), np.float32)
    counted = np.flatnonzero(score > 0)
    order = np.argsort(np.argsort(score[counted], kind="stable"), kind="stable")
    ranked[counted] = (order + 1) / max(len(counted), 1)
    return ranked
