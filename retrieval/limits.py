"""Rates per user and per key, checked in the round trip that reads the journal: being limited costs no second one.

Each user and each key has a bucket, kept as one number: the moment at which everything asked for so far would have been
due at the allowed rate ("generic cell rate algorithm", ITU-T I.371). A request that would be due too far in the future
is refused and takes nothing. With Redis away nobody is limited: there is then no journal to protect either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from retrieval import keys
from retrieval.errors import RateLimited, StoreUnavailable
from retrieval.journal import EMPTY, Journal, parse
from retrieval.roundtrip import RoundTrips

MAX_WAIT_S: Final = 5
"""Nobody is told to wait longer: buckets fill no further than that beyond their burst."""

# KEYS: bucket. ARGV: microseconds between two requests, microseconds of burst. Answers microseconds to wait, 0 = go.
# %.0f, because Lua writes a number of sixteen digits as 1.7e15 otherwise.
CHARGE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local due = math.max(tonumber(redis.call('GET', KEYS[1])) or 0, now) + ARGV[1]
local wait = due - now - ARGV[2]
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
return 0
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` requests a second for ever, `burst` of them at once; per_s 0 is no limit."""

    per_s: float
    burst: int

    def arguments(self) -> tuple[int, int]:
        """What the script wants to know."""
        interval_us = round(1_000_000 / self.per_s)
        return interval_us, interval_us * max(self.burst, 1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request that waits for the next round trip."""

    journal: str | None
    buckets: tuple[tuple[str, Rate], ...]
    future: asyncio.Future[tuple[bytes | None, list[int]]]


class LimitedJournals:
    """Journals, for whoever is within their rates. Requests that are in flight together share one round trip."""

    def __init__(self, redis: Redis, *, per_user: Rate, per_key: Rate) -> None:
        self.redis = redis
        self.round_trips = RoundTrips(redis)
        self.per_user = per_user
        self.per_key = per_key
        self._sha = ""
        self._waiting: list[_Asked] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, tenant: str, user_key: str | None, key_id: str) -> Journal:
        """The user's journal, empty for an anonymous or unknown one.

        Raises RateLimited, StoreUnavailable.
        """
        buckets = [(keys.rate(tenant, f"key:{key_id}"), self.per_key)]
        if user_key is not None:
            buckets.append((keys.rate(tenant, user_key), self.per_user))
        limited = tuple((bucket, rate) for bucket, rate in buckets if rate.per_s)
        journal = None if user_key is None else keys.journal(tenant, user_key)
        if journal is None and not limited:
            return EMPTY
        content, waits_us = await self._ask(journal, limited)
        if wait_us := max(waits_us, default=0):
            raise RateLimited(min(-(-wait_us // 1_000_000), MAX_WAIT_S))
        return parse(content)

    async def _ask(self, journal: str | None, buckets: tuple[tuple[str, Rate], ...]) -> tuple[bytes | None, list[int]]:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            # One turn of the loop later: every request that is ready now has asked by then.
            loop.call_soon(self._start)
        asked = _Asked(journal, buckets, loop.create_future())
        self._waiting.append(asked)
        return await asked.future

    def _start(self) -> None:
        asked, self._waiting = self._waiting, []
        reading = asyncio.get_running_loop().create_task(self._answer(asked))
        self._reading.add(reading)  # the loop itself keeps only a weak reference
        reading.add_done_callback(self._reading.discard)

    async def _answer(self, asked: Sequence[_Asked]) -> None:
        try:
            journals, waits = await self._round_trip(asked)
        except (RedisError, OSError, TimeoutError) as error:
            for one in asked:
                if not one.future.done():
                    one.future.set_exception(StoreUnavailable(f"journal: {type(error).__name__}"))
                    one.future.exception()  # looked at, also when nobody waits any more
            return
        for one in asked:
            mine = [waits.pop(0) for _ in one.buckets]
            if not one.future.done():
                one.future.set_result((journals.get(one.journal or ""), mine))

    async def _round_trip(self, asked: Sequence[_Asked]) -> tuple[dict[str, bytes | None], list[int]]:
        """(journals by name, microseconds to wait of every bucket in the order asked)."""
        wanted = list({one.journal for one in asked if one.journal is not None})
        buckets = [bucket for one in asked for bucket in one.buckets]
        if not self._sha:
            self._sha = await self.redis.script_load(CHARGE)
        commands: list[tuple[Any, ...]] = [("MGET", *wanted)] if wanted else []
        commands += [("EVALSHA", self._sha, 1, bucket, *rate.arguments()) for bucket, rate in buckets]
        answers = await self.round_trips.send(commands)
        found: Any = answers.pop(0) if wanted else []
        if isinstance(found, Exception):
            raise found
        return dict(zip(wanted, found, strict=True)), [self._wait_us(answer) for answer in answers]

    def _wait_us(self, answer: Any) -> int:
        """An error of the limiter limits nobody; after a restart of Redis it has forgotten the script."""
        if isinstance(answer, NoScriptError):
            self._sha = ""
        return answer if isinstance(answer, int) else 0
