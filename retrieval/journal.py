"""The journal: one capped, append-only log per (tenant, user). What a user liked, saw, was served and rejected.

The rolling embedding, the seen set and the served set are pure functions of it, computed when a feed is asked for; so
an event counts at the next request, and a new formula needs no migration. It is one Redis string of fixed-size
entries: APPEND is atomic and costs no read, one GET is the whole user, and `numpy.frombuffer` is the parser.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import StoreUnavailable

ENTRY = np.dtype([("item", "<u4"), ("at_s", "<u4"), ("signal", "u1"), ("strength", "u1"), ("reserved", "<u2")])
"""12 bytes: item number, unix seconds, Signal, strength 0-255 (watch fraction x 255; 255 where it has no degree)."""

Journal = npt.NDArray[np.void]
"""ENTRY[n], oldest first by arrival."""

EMPTY: Journal = np.zeros(0, ENTRY)

RETENTION_S = 90 * 86_400
DEDUPLICATION_S = 48 * 3_600


class Signal(IntEnum):
    """What an entry says. Stored numbers: never reuse one. SERVED is written by us, the others are the SDK's events."""

    SERVED = 0
    IMPRESSION = 1
    WATCH = 2
    COMPLETE = 3
    LIKE = 4
    UNLIKE = 5
    SHARE = 6
    BOOKMARK = 7
    FOLLOW = 8
    SKIP = 9
    NOT_INTERESTED = 10
    REPORT = 11


# KEYS: journal, then one key per event id (or none). ARGV: cap in bytes, expiry of the journal and of the ids in
# seconds, then the entries. With ids, an entry is taken only if its id is new; one answer per id: 1 taken, 0 known.
# Trims to the newest 3/4 when the cap is passed, so that the copy is paid once per many appends. A value that is no
# row of whole entries is not ours: started afresh.
APPEND = """
local taken, new = {}, {}
if #KEYS == 1 then new[1] = ARGV[4] end
for i = 2, #KEYS do
  taken[i - 1] = redis.call('SET', KEYS[i], '', 'NX', 'EX', ARGV[3]) and 1 or 0
  if taken[i - 1] == 1 then new[#new + 1] = string.sub(ARGV[4], 12 * (i - 2) + 1, 12 * (i - 1)) end
end
if #new == 0 then return taken end
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('STRLEN', KEYS[1]) % 12 ~= 0 then
  redis.call('DEL', KEYS[1])
end
local length = redis.call('APPEND', KEYS[1], table.concat(new))
if length > tonumber(ARGV[1]) then
  local keep = math.floor(ARGV[1] * 3 / 4 / 12) * 12
  redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], -keep, -1))
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return taken
"""


def entries(rows: Sequence[tuple[int, int, Signal, float]]) -> Journal:
    """Entries from (item number, unix seconds, signal, strength 0-1), in that order."""
    made = np.zeros(len(rows), ENTRY)
    for position, (item, at_s, signal, strength) in enumerate(rows):
        made[position] = (item, at_s, signal, round(255 * min(max(strength, 0.0), 1.0)), 0)
    return made


def parse(content: bytes | None) -> Journal:
    """The entries in a stored journal. What cannot be one (foreign bytes, unknown signals) is left out."""
    if not content:
        return EMPTY
    journal = np.frombuffer(content, ENTRY, count=len(content) // ENTRY.itemsize)
    known = journal["signal"] <= max(Signal)
    return journal if known.all() else journal[known]


class Journals:
    """Journals in Redis. Reads of requests that are in flight together share one round trip."""

    def __init__(self, redis: Redis, *, cap: int = 4096) -> None:
        self.redis = redis
        self.cap = cap
        self._append: Any = redis.register_script(APPEND)
        self._waiting: dict[str, asyncio.Future[bytes | None]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, tenant: str, user_key: str) -> Journal:
        """The user's journal, empty for an unknown user. Raises StoreUnavailable."""
        key = keys.journal(tenant, user_key)
        waiting = self._waiting.get(key)
        if waiting is None:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                # One turn of the loop later: every request that is ready now has asked by then.
                loop.call_soon(self._start_reading)
            waiting = self._waiting[key] = loop.create_future()
        return parse(await asyncio.shield(waiting))

    async def append(self, tenant: str, user_key: str, journal: Journal) -> None:
        """Add entries at the end, atomically. Raises StoreUnavailable."""
        await self._run(tenant, user_key, [], journal)

    async def record(self, tenant: str, user_key: str, event_ids: Sequence[str], journal: Journal) -> list[bool]:
        """Add entry i unless event id i was taken in the last 48 h; True for each that was new. One round trip.

        Raises StoreUnavailable: sending the same ids again is safe then.
        """
        taken = await self._run(tenant, user_key, event_ids, journal)
        return [one == 1 for one in taken]

    async def _run(self, tenant: str, user_key: str, event_ids: Sequence[str], journal: Journal) -> list[int]:
        names = [keys.journal(tenant, user_key), *(keys.event(tenant, user_key, one) for one in event_ids)]
        arguments = [self.cap * ENTRY.itemsize, RETENTION_S, DEDUPLICATION_S, journal.tobytes()]
        try:
            taken: list[int] = await self._append(keys=names, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"journal: {type(error).__name__}") from error
        return taken

    def _start_reading(self) -> None:
        asked, self._waiting = self._waiting, {}
        reading = asyncio.get_running_loop().create_task(self._answer(asked))
        self._reading.add(reading)  # the loop itself keeps only a weak reference
        reading.add_done_callback(self._reading.discard)

    async def _answer(self, asked: dict[str, asyncio.Future[bytes | None]]) -> None:
        try:
            found: list[Any] = await self.redis.mget(list(asked))
        except (RedisError, OSError, TimeoutError) as error:
            for future in asked.values():
                if not future.done():
                    future.set_exception(StoreUnavailable(f"journal: {type(error).__name__}"))
                    future.exception()
            return
        for future, content in zip(asked.values(), found, strict=True):
            if not future.done():
                future.set_result(content)
