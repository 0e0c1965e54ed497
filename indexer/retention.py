"""Nothing about a user is older than 90 days: journals are trimmed, and every key about users must have an expiry."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval.errors import StoreUnavailable
from retrieval.journal import DAY_S, LATE_S, RETENTION_S, Journals
from retrieval.keys import PERSONAL

SCAN_COUNT = 1000


@final
@dataclass(frozen=True)
class Report:
    """How the signals are. What must be: age <= 90 days, no key without expiry, nothing damaged, little waiting.

    joined_share: of the last hour's events, how many find their page in the serve log; None without events.
    """

    oldest_event_age_seconds: int
    keys_without_expiry: int
    joined_share: float | None
    days_deleted: int
    days_compacted: int
    journals_trimmed: int
    waiting: int
    damaged: int

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


async def trim_journals(journals: Journals, *, now_s: float) -> int:
    """Cut what is nearly 90 days old out of every journal; how many were cut. Raises StoreUnavailable.

    A day early, because this runs again only after a while. A journal nobody writes to expires by itself, but only 90
    days after its last entry. Entries are in order of arrival and at most LATE_S older than that, so the first entry
    tells of most journals that nothing in them is old.
    """
    cutoff_s = int(now_s) - RETENTION_S + DAY_S
    trimmed = 0
    async for users in journals.all_users():
        for user, journal in zip(users, await journals.read_many(users), strict=True):
            if not len(journal) or journal["at_s"][0] >= cutoff_s + LATE_S:
                continue
            young = journal[journal["at_s"] >= cutoff_s]
            if len(young) < len(journal):
                # False: it was changed at its beginning just now; the next pass sees it again.
                trimmed += await journals.replace(*user, journal, young)
    return trimmed


async def keys_without_expiry(redis: Redis) -> int:
    """How many keys about users would stay for ever; must be 0. Raises StoreUnavailable."""
    found: int = 0
    cursor: int = 0
    prefixes = tuple(prefix.encode() for prefix in PERSONAL)
    while True:
        try:
            answer: Any = await redis.scan(cursor, count=SCAN_COUNT)
            cursor, names = int(answer[0]), answer[1]
            pipeline = redis.pipeline(transaction=False)
            for name in names:
                if name.startswith(prefixes):
                    pipeline.ttl(name)
            ttls: list[int] = await pipeline.execute()
            found += sum(ttl == -1 for ttl in ttls)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"retention: {type(error).__name__}") from error
        if cursor == 0:
            return found
