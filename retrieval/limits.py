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
from redis.exceptions import NoScriptError

from retrieval import keys
from retrieval.errors import RateLimited
from retrieval.journal import EMPTY, Journal, parse
from retrieval.roundtrip import RoundTrips, failure

MAX_WAIT_S: Final = 5
"""Nobody is told to wait longer: buckets fill no further than that beyond their burst."""

# KEYS: buckets. ARGV: of each, microseconds between two requests and microseconds of burst. Answers of each the
# microseconds to wait, 0 = go. %.0f, because Lua writes a number of sixteen digits as 1.7e15 otherwise.
CHARGE: Final = """
local time = redis.call('TIME')
local now, waits = time[1] * 1000000 + time[2], {}
for i, bucket in ipairs(KEYS) do
  local due = math.max(tonumber(redis.call('GET', bucket)) or 0, now) + ARGV[2 * i - 1]
  waits[i] = math.max(math.ceil(due - now - ARGV[2 * i]), 0)
  if waits[i] == 0 then
    redis.call('SET', bucket, string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
  end
end
return waits
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
            found = [(journals.get(one.journal or ""), [waits.pop(0) for _ in one.buckets]) for one in asked]
        except Exception as error:
            for one in asked:
                if not one.future.done():
                    one.future.set_exception(failure("journal", error))
                    one.future.exception()  # looked at, also when nobody waits any more
            return
        for one, mine in zip(asked, found, strict=True):
            if not one.future.done():
                one.future.set_result(mine)

    async def _round_trip(self, asked: Sequence[_Asked]) -> tuple[dict[str, bytes | None], list[int]]:
        """(journals by name, microseconds to wait of every bucket in the order asked)."""
        wanted = list({one.journal for one in asked if one.journal is not None})
        buckets = [bucket for one in asked for bucket in one.buckets]
        commands: list[tuple[Any, ...]] = [("MGET", *wanted)] if wanted else []
        if buckets:
            if not self._sha:
                self._sha = await self.redis.script_load(CHARGE)
            rates = [number for _, rate in buckets for number in rate.arguments()]
            commands.append(("EVALSHA", self._sha, len(buckets), *(bucket for bucket, _ in buckets), *rates))
        answers = await self.round_trips.send(commands)
        found: Any = answers.pop(0) if wanted else []
        if isinstance(found, Exception):
            raise found
        return dict(zip(wanted, found, strict=True)), self._waits_us(answers, len(buckets))

    def _waits_us(self, answers: list[Any], n: int) -> list[int]:
        """Of n buckets. An error of the limiter limits nobody; after a restart of Redis it has forgotten the script."""
        if answers and isinstance(answers[0], NoScriptError):
            self._sha = ""
        return list(answers[0]) if answers and isinstance(answers[0], list) else [0] * n
