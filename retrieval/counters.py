"""Engagement counters: how often each item was shown and how it was taken, per tenant and fading window.

The indexer counts what it archives (`indexer/signals.py`) into one value per tenant and hour, and adds the hours up to
one value per tenant, which each worker reads about every ten seconds: no index rebuild. Counting is exactly once: the
hours and the place in the stream they were counted to are written in one step, and refused when somebody else counted
on from the same place.

A window has no edge: what was counted weighs half as much after each of HALF_LIVES_H. So nothing falls out of it from
one hour to the next, a quiet night leaves the order as it was, and hours that are a week old can be kept as one sum
(`Before`). Which half-life tells what is popular differs between tenants; `indexer learn` finds it out
(docs/decisions/0013-behaviour-and-fading-windows.md).

Age is counted in whole hours, from the beginning of the hour of a count to that of the running hour, which weighs 1. So
in the shortest window too an event never weighs more than twice, or less than half, of what fading by the second would
leave of it; at the full hour everything fades alike, and the order goes on as it was; and between two events nothing
changes, so that there is nothing to publish.

Popularity is the logarithm of how much engagement there was, times a smoothed rate of it: with few impressions an item
is drawn to the tenant's mean, so that one like of one view is not the top of the feed. And where a week holds little,
what is popular is drawn to the half year (`retrieval/evidence.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import StoreUnavailable
from retrieval.evidence import borrowed
from retrieval.journal import RETENTION_S, Signal

T = TypeVar("T")

HOUR_S: Final = 3600
EXPIRY_S: Final = 8 * 86_400
KEPT_H: Final = 168
"""Hours that are kept one by one; older ones are added to `Before`."""
BEFORE_EXPIRY_S: Final = 400 * 86_400
MOST_BEFORE: Final = 50_000
"""Items of which older counts are kept: those with most engagement."""
PRIOR_IMPRESSIONS: Final = 20.0
"""An item counts as if it had been shown so often before with the tenant's mean result."""
RATE: Final = 0.25
"""How much the rate of engagement says beside its amount."""
SPREAD: Final = 50.0
"""Of an item with this share of the top's engagement (1 / SPREAD), the logarithm begins to count it as little."""

MEASURES: Final = ("shown", "watched", "liked", "skipped")
COUNTS: Final = np.dtype([("item", "<u4"), ("sums", "<f4", (len(MEASURES),))])
"""20 bytes: item number, sum of each of MEASURES. Rows are ordered by item."""
HALF_LIVES_H: Final = (1, 24, 168, 4320)
"""What is rising (an hour), trending (a day), popular (a week), evergreen (half a year)."""
_POPULAR, _EVERGREEN = 2, 3  # columns of HALF_LIVES_H
WINDOWS: Final = np.dtype([("item", "<u4"), ("sums", "<f4", (len(HALF_LIVES_H), len(MEASURES)))])
"""68 bytes: item number, the faded sums for each of HALF_LIVES_H. Rows are ordered by item."""
LASTING: Final = np.dtype([("item", "<u4"), ("sums", "<f4", (len(HALF_LIVES_H) - 1, len(MEASURES)))])
"""52 bytes: the same without the first window, of which nothing is left when an hour has been kept for KEPT_H."""

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
    """Per item number, in [0, 1]; what was never counted is 0.

    `version` names the counts it was made from; "" is none at all.
    """

    table: npt.NDArray[np.float32]
    """float32[items + 1, 4]: rising, trending, popularity, evergreen. The last row, of zeros, is everybody else's."""
    version: str = ""

    @staticmethod
    def nothing() -> Popularity:
        return Popularity(np.zeros((1, len(HALF_LIVES_H)), np.float32))

    @staticmethod
    def alike(values: npt.NDArray[np.float32], version: str = "") -> Popularity:
        """The same float32[items] in every window."""
        table = np.repeat(np.append(values, np.float32(0))[:, None], len(HALF_LIVES_H), axis=1)
        return Popularity(table.astype(np.float32), version)

    def of(self, items: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """float32[4, n]: rising, trending, popularity and evergreen of the given items."""
        return self.table.take(items, 0, mode="clip").T


@dataclass(frozen=True)
class Before:
    """What was counted up to and including `hour`, faded to it."""

    hour: int
    sums: Windows


NOTHING_BEFORE: Final = Before(0, np.zeros(0, WINDOWS))
_HOUR: Final = np.dtype("<i8")
_LAYOUT: Final = xxhash.xxh32_digest(repr((HALF_LIVES_H, MEASURES)).encode())
"""In front of published windows, and in the name of their version: a program with other windows takes them for none
instead of for other numbers."""


class Counters:
    """The counters in Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._save: Any = redis.register_script(SAVE)

    async def windows(self, tenant: str) -> Windows:
        """What was counted of a tenant lately. Bytes that are no such windows are none. Raises StoreUnavailable."""
        content: Any = await _answered(self.redis.get(keys.windows(tenant)))
        if not content or not content.startswith(_LAYOUT):
            return _parsed(None, WINDOWS)
        return _parsed(content[len(_LAYOUT) :], WINDOWS)

    async def publish(self, tenant: str, windows: Windows) -> None:
        """Let the service read `windows` from now on. Raises StoreUnavailable."""
        await _answered(self.redis.set(keys.windows(tenant), _LAYOUT + windows.tobytes(), ex=EXPIRY_S))

    async def before(self, tenant: str) -> Before:
        """What was counted in hours that are not kept one by one. Raises StoreUnavailable."""
        content: Any = await _answered(self.redis.get(keys.before(tenant)))
        if not content or len(content) < _HOUR.itemsize:
            return NOTHING_BEFORE
        kept = _parsed(content[_HOUR.itemsize :], LASTING)
        sums = np.zeros(len(kept), WINDOWS)
        sums["item"], sums["sums"][:, 1:] = kept["item"], kept["sums"]
        return Before(int(np.frombuffer(content, _HOUR, 1)[0]), sums)

    async def keep_before(self, tenant: str, before: Before) -> None:
        """Put this in its place, at least KEPT_H after its last hour. Whoever does it twice does the same.

        Raises StoreUnavailable.
        """
        kept = np.zeros(len(before.sums), LASTING)
        kept["item"], kept["sums"] = before.sums["item"], before.sums["sums"][:, 1:]
        content = np.array([before.hour], _HOUR).tobytes() + kept.tobytes()
        await _answered(self.redis.set(keys.before(tenant), content, ex=BEFORE_EXPIRY_S))

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


def windows_of(hours: Mapping[int, Counts], *, now_hour: int, before: Before = NOTHING_BEFORE) -> Windows:
    """Everything counted up to now, faded to `now_hour`, the running hour whole.

    Hours that `before` covers are left out: they are in it already.
    """
    later = {hour: counts for hour, counts in hours.items() if hour > before.hour}
    items = np.unique(np.concatenate([before.sums["item"], *(counts["item"] for counts in later.values())]))
    windows = np.zeros(len(items), WINDOWS)
    windows["item"] = items
    windows["sums"][np.searchsorted(items, before.sums["item"])] = before.sums["sums"] * _left(now_hour - before.hour)
    for hour, counts in later.items():
        rows = np.searchsorted(items, counts["item"])
        windows["sums"][rows] += counts["sums"][:, None, :] * _left(now_hour - hour)
    return windows


def folded(before: Before, hours: Mapping[int, Counts], *, up_to: int) -> Before:
    """`before` with the hours up to and including `up_to` added, of at most MOST_BEFORE items."""
    old = {hour: counts for hour, counts in hours.items() if hour <= up_to}
    sums = windows_of(old, now_hour=up_to, before=before)
    if len(sums) > MOST_BEFORE:
        engaged = sums["sums"][:, -1] @ WORTH
        sums = sums[np.sort(np.argpartition(-engaged, MOST_BEFORE)[:MOST_BEFORE])]
    return Before(up_to, sums)


def popularity(windows: Windows) -> Popularity:
    """What is rising, trending, popular and evergreen.

    Popular borrows from evergreen where a week tells little. What rises and trends does not: a day's window is for
    what the day alone says, and where that is little, `indexer learn` gives it little weight.
    """
    items, sums = windows["item"], windows["sums"].astype(np.float64)
    week, half_year = sums[:, _POPULAR], sums[:, _EVERGREEN]
    week += borrowed(_engaged(week), _engaged(half_year)) * half_year
    table = np.zeros((int(items.max()) + 2 if len(items) else 1, len(HALF_LIVES_H)), np.float32)
    for column in range(len(HALF_LIVES_H)):
        table[items, column] = scaled(sums[:, column])
    return Popularity(table, version_of(windows))


def version_of(windows: Windows) -> str:
    """A name of these counts and no others: 16 hex digits, "" for none."""
    if not len(windows):
        return ""
    digest = xxhash.xxh3_64(_LAYOUT)
    digest.update(windows.view(np.uint8).data)  # megabytes, in the event loop: not copied
    return digest.hexdigest()


def scaled(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """float32[n] in [0, 1] of sums float64[n, MEASURES]: the logarithm of how many engaged beside the item with most,
    times how good it was when shown, to the power RATE. The best is 1; fading all sums alike changes next to
    nothing."""
    value, engaged = _value(sums), _engaged(sums)
    # An engagement without its impression event still was an impression.
    shown = np.maximum(sums[:, 0], np.minimum(value, 1.0))
    if not engaged.any():
        return np.zeros(len(sums), np.float32)
    mean = value.sum() / shown.sum()
    rate = (value + PRIOR_IMPRESSIONS * mean) / (shown + PRIOR_IMPRESSIONS) / mean
    score = rate**RATE * np.log1p(SPREAD * engaged / engaged.max())
    return np.asarray(score / score.max(), np.float32)


def _value(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[n]: WORTH of sums float64[n, MEASURES], at least 0."""
    value: npt.NDArray[np.float64] = np.maximum(sums @ WORTH, 0.0)
    return value


def _engaged(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64[n]: how many engaged, of sums float64[n, MEASURES]."""
    watched = np.maximum(sums[:, 1], sums[:, 2])  # who likes it has watched it
    return np.minimum(watched, _value(sums))  # skips take away


def _left(age_h: int) -> npt.NDArray[np.float32]:
    """float32[HALF_LIVES_H, 1]: what is left of a count after so many hours."""
    return np.array([[0.5 ** (max(age_h, 0) / half_life_h)] for half_life_h in HALF_LIVES_H], np.float32)


def _parsed(content: bytes | None, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    if not content or len(content) % dtype.itemsize:
        return np.zeros(0, dtype)
    return np.frombuffer(content, dtype)


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"counters: {type(error).__name__}") from error
