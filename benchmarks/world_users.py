"""Who uses the apps of a world, and what is known of them: users, their journals, and how videos were taken.

All of it is made from the user's number and the present time, and written into Redis as the product would have: a
journal is one string of entries, popularity comes from the counts of an hour. Nobody here is in a hold-out, so that
every page that is measured is a personalised one; one user in twenty is new and has an empty journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis

from benchmarks.world import World
from benchmarks.world_content import SEED, Built
from retrieval import keys
from retrieval.counters import COUNTS, MEASURES, Counters, windows_of
from retrieval.erasure import rekeyed
from retrieval.flags import HOLDOUT, MAX_HOLDOUT_PERCENT, PARTS, bucket
from retrieval.journal import DAY_S, EMPTY, ENTRY, RETENTION_S, Journal, Signal

MOST_ENTRIES: Final = 500
NEW_SHARE: Final = 0.05
DAYS: Final = 30
"""How far back journals go."""
SIGNALS: Final = {
    Signal.SERVED: 0.46,
    Signal.IMPRESSION: 0.25,
    Signal.WATCH: 0.18,
    Signal.SKIP: 0.05,
    Signal.LIKE: 0.04,
    Signal.BOOKMARK: 0.02,
}
"""Shares of a journal's entries."""
KINDS: Final = np.array(list(SIGNALS), np.uint8)
UP_TO: Final = np.cumsum(list(SIGNALS.values())).clip(max=1.0)
PLACES: Final = np.array([0.4, 0.3, 0.3])
"""Shares of what somebody takes notice of: of one interest, of another, of anything."""
STRIDES: Final = np.array([1, 1, 7919])
"""An interest is a run of neighbours, anything is not."""
POOL: Final = 4
"""A journal names at most one video in so many of its tenant's: a feed has always something left to show."""
COUNTRIES: Final = ("CH", "DE", "AT", "FR", "US")
COUNTRY_SHARES: Final = (0.3, 0.3, 0.15, 0.15, 0.1)
COUNTED_SHARE: Final = 0.3
"""Videos of a tenant with any counts; what the tail of a catalogue gets is nothing."""


@dataclass(frozen=True)
class User:
    """One user of one app: `id` is what their SDK sends, `key` what is kept of it. `entries` in their journal."""

    number: int
    tenant: Built
    id: str
    key: str
    country: str
    entries: int

    @property
    def is_known(self) -> bool:
        """Whether there is anything to personalise by."""
        return self.entries > 0


def users(world: World) -> list[User]:
    """The users of a world in random order, each tenant's share of them being its share of the videos."""
    rng = np.random.default_rng([SEED, 3])
    n, weights = world.scale.users, np.array([tenant.items for tenant in world.tenants], float)
    tenants = rng.choice(len(weights), n, p=weights / weights.sum()).tolist()
    entries = np.ceil(MOST_ENTRIES * rng.random(n) ** 2).astype(int) * (rng.random(n) >= NEW_SHARE)
    countries = rng.choice(COUNTRIES, n, p=COUNTRY_SHARES).tolist()
    made = []
    for number, (tenant, country, length) in enumerate(zip(tenants, countries, entries.tolist(), strict=True)):
        of = world.tenants[tenant]
        given, key = _not_held_out(of, number)
        made.append(User(number, of, given, key, country, length))
    return made


def journals(world: World, of: Sequence[User], now_s: int) -> list[Journal]:
    """The journal of each user in their order, oldest entry first. Made tenant by tenant: 50,000 in two seconds."""
    made: list[Journal] = [EMPTY] * len(of)
    for number, tenant in enumerate(world.tenants):
        places = [place for place, user in enumerate(of) if user.tenant is tenant]
        lengths = np.array([of[place].entries for place in places], np.int64)
        by_parent = np.argsort(world.parents[tenant.id], kind="stable").astype(np.uint32)
        journals_ = _journals(lengths, by_parent, now_s, np.random.default_rng([SEED, 4, number]))
        for place, journal in zip(places, np.split(journals_, np.cumsum(lengths)), strict=False):
            made[place] = journal
    return made


async def load(world: World, of: Sequence[User], redis_url: str, now_s: int) -> None:
    """Write journals and counters into an empty Redis."""
    redis = Redis.from_url(redis_url, protocol=2)
    try:
        pipeline = redis.pipeline(transaction=False)
        for user, journal in zip(of, journals(world, of, now_s), strict=True):
            if len(journal):
                pipeline.set(keys.journal(user.tenant.id, user.key), journal.tobytes(), ex=RETENTION_S)
            if len(pipeline) >= 1000:
                await pipeline.execute()
        await pipeline.execute()
        counters, hour = Counters(redis), now_s // 3600
        for number, tenant in enumerate(world.tenants):
            counted = counts_of(tenant.items, number)
            await counters.save({(tenant.id, hour - 2): counted}, counted_from={}, counted_to={})
            await counters.publish(tenant.id, windows_of({hour - 2: counted}, now_hour=hour))
    finally:
        await redis.aclose()


def _journals(
    lengths: npt.NDArray[np.int64], by_parent: npt.NDArray[np.uint32], now_s: int, rng: np.random.Generator
) -> Journal:
    """ENTRY[lengths.sum()]: journals of users of one tenant, one after the other; `lengths` int64[users].

    A user's interests are two runs of videos in the order `by_parent` (uint32[items]): they grew out of the same talk,
    or out of talks that are listed next to each other. What is no interest comes from anywhere. The last entry is a
    like, so that whoever has a journal has a taste.
    """
    n, items, user = int(lengths.sum()), len(by_parent), np.repeat(np.arange(len(lengths)), lengths)
    pool = np.clip(lengths, 1, max(items // POOL, 1))
    what = np.searchsorted(np.cumsum(PLACES), rng.random(n) * 0.999)
    start = rng.integers(0, items, (len(lengths), len(PLACES)))[user, what]
    within = (rng.random(n) * pool[user] * PLACES[what]).astype(np.int64)
    since_s = rng.integers(60, DAYS * DAY_S, n)
    journal = np.zeros(n, ENTRY)
    journal["item"] = by_parent[(start + STRIDES[what] * within) % items]
    journal["at_s"] = now_s - since_s[np.lexsort((-since_s, user))]
    journal["signal"] = KINDS[np.searchsorted(UP_TO, rng.random(n))]
    journal["signal"][np.cumsum(lengths)[lengths > 0] - 1] = Signal.LIKE
    journal["strength"] = np.where(journal["signal"] == Signal.WATCH, rng.integers(0, 256, n), 255)
    return journal


def counts_of(items: int, number: int) -> npt.NDArray[np.void]:
    """COUNTS[m]: how a part of a tenant's videos was taken, a few of them far more often than most."""
    rng = np.random.default_rng([SEED, 5, number])
    counts = np.zeros(max(1, int(items * COUNTED_SHARE)), COUNTS)
    counts["item"] = np.sort(rng.choice(items, len(counts), replace=False))
    shown = np.ceil(rng.lognormal(2.0, 1.5, len(counts)))
    counts["sums"] = shown[:, None] * np.array([1.0, *rng.uniform(0.02, 0.5, len(MEASURES) - 1)])
    counts["sums"][:, 1:] *= rng.random((len(counts), len(MEASURES) - 1))
    return counts


def _not_held_out(tenant: Built, number: int) -> tuple[str, str]:
    """(user id, user key) of a user's first name that is in nobody's hold-out."""
    pepper = bytes.fromhex(tenant.pepper)
    for attempt in count():
        given = sha256(f"user {number}.{attempt}".encode()).hexdigest()
        key = rekeyed(given, pepper)
        if bucket(tenant.id, HOLDOUT, key) >= MAX_HOLDOUT_PERCENT * PARTS / 100:
            return given, key
    raise AssertionError("unreachable: one of the attempts is not held out")
