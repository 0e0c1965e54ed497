"""The journal: one capped, append-only log per (tenant, user). What a user liked, saw, was served and rejected.

The rolling embedding, the seen set and the served set are pure functions of it, computed when a feed is asked for; so
an event counts at the next request, and a new formula needs no migration. It is one Redis string of fixed-size
entries: appending (`retrieval/stream.py`) is atomic and costs no read, one GET is the whole user, and
`numpy.frombuffer` is the parser.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import StoreUnavailable
from retrieval.roundtrip import failure

ENTRY = np.dtype([("item", "<u4"), ("at_s", "<u4"), ("signal", "u1"), ("strength", "u1"), ("reserved", "<u2")])
"""12 bytes: item number, unix seconds, Signal, strength 0-255 (watch fraction x 255; 255 where it has no degree)."""

Journal = npt.NDArray[np.void]
"""ENTRY[n], oldest first by arrival."""

EMPTY: Journal = np.zeros(0, ENTRY)

DAY_S: Final = 86_400
RETENTION_S: Final = 90 * DAY_S
LATE_S: Final = 7 * DAY_S
"""An event that claims to be older than this when it arrives is dated back no further."""
SCAN_COUNT: Final = 1000


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


_LAST: Final = int(max(Signal))  # numpy takes longer to compare with an IntEnum than to find the maximum


# KEYS: journal. ARGV: SHA-1 and length in bytes of what its reader saw, what to put there instead, expiry in seconds.
# Entries that were appended since then stay behind the new ones. Answers 1, or 0 when the beginning is another by now.
REPLACE: Final = """
local seen = tonumber(ARGV[2])
local beginning = seen > 0 and redis.call('GETRANGE', KEYS[1], 0, seen - 1) or ''
if #beginning ~= seen or redis.sha1hex(beginning) ~= ARGV[1] then return 0 end
local value = ARGV[3] .. redis.call('GETRANGE', KEYS[1], seen, -1)
if value == '' then redis.call('DEL', KEYS[1]) return 1 end
local left_ms = redis.call('PTTL', KEYS[1])
redis.call('SET', KEYS[1], value)
redis.call('PEXPIRE', KEYS[1], left_ms > 0 and left_ms or 1000 * ARGV[4])
return 1
"""


def entries(rows: Sequence[tuple[int, int, Signal, float]]) -> Journal:
    """Entries from (item number, unix seconds, signal, strength 0-1), in that order."""
    made = [(item, at_s, signal, round(255 * min(max(strength, 0.0), 1.0)), 0) for item, at_s, signal, strength in rows]
    return np.array(made, ENTRY)


def alike(items: Sequence[int], at_s: int, signal: Signal) -> Journal:
    """An entry of full strength for each item number: the same said of all, at the same moment."""
    made = np.zeros(len(items), ENTRY)
    made["item"], made["at_s"], made["signal"], made["strength"] = items, at_s, signal, 255
    return made


def parse(content: bytes | None) -> Journal:
    """The entries in a stored journal. What cannot be one (foreign bytes, unknown signals) is left out."""
    if not content:
        return EMPTY
    journal = np.frombuffer(content, ENTRY, count=len(content) // ENTRY.itemsize)
    signal = journal["signal"]
    return journal if signal.max(initial=0) <= _LAST else journal[signal <= _LAST]


def newest(journal: Journal, wanted: npt.NDArray[np.bool_], most: int) -> Journal:
    """The last `most` entries with one of the signals that `wanted` (bool[len(Signal)]) names, oldest first."""
    # They are nearly always among the last few of a journal, which may have tens of thousands.
    tail = journal[-8 * most :]
    found = np.flatnonzero(wanted.take(tail["signal"]))
    if len(found) < most:
        tail, found = journal, np.flatnonzero(wanted.take(journal["signal"]))
    return tail.take(found[-most:])


def position(journal: Journal) -> int:
    """Which state of a journal this is, for the serve log: time of the newest entry << 16 | entries; 0 when empty."""
    return int(journal["at_s"].max()) << 16 | min(len(journal), 0xFFFF) if len(journal) else 0


class Journals:
    """Journals in Redis. Reads of requests that are in flight together share one round trip."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._replace: Any = redis.register_script(REPLACE)
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

    async def read_many(self, users: Sequence[tuple[str, str]]) -> list[Journal]:
        """The journals of (tenant, user key) pairs, in order. Raises StoreUnavailable."""
        if not users:
            return []
        try:
            found: list[Any] = await self.redis.mget([keys.journal(*user) for user in users])
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"journal: {type(error).__name__}") from error
        return [parse(content) for content in found]

    async def all_users(self) -> AsyncIterator[list[tuple[str, str]]]:
        """Every (tenant, user key) with a journal, in lots; one that comes or goes meanwhile may be missed or repeated.

        Raises StoreUnavailable.
        """
        cursor: int = 0
        found: Any
        while True:
            try:
                cursor, found = await self.redis.scan(cursor, match="j:*", count=SCAN_COUNT)
            except (RedisError, OSError, TimeoutError) as error:
                raise StoreUnavailable(f"journal: {type(error).__name__}") from error
            yield [keys.user_of_journal(key) for key in found]
            if cursor == 0:
                return

    async def replace(self, tenant: str, user_key: str, seen: Journal, journal: Journal) -> bool:
        """Put `journal` in place of the entries that were `seen`; what was appended since then stays behind it.

        False, and nothing done, when the journal no longer begins with `seen`. An empty one is deleted. Raises
        StoreUnavailable.
        """
        before = seen.tobytes()
        digest = hashlib.sha1(before, usedforsecurity=False).hexdigest()
        try:
            done = await self._replace(
                keys=[keys.journal(tenant, user_key)], args=[digest, len(before), journal.tobytes(), RETENTION_S]
            )
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"journal: {type(error).__name__}") from error
        return bool(done)

    def _start_reading(self) -> None:
        asked, self._waiting = self._waiting, {}
        reading = asyncio.get_running_loop().create_task(self._answer(asked))
        self._reading.add(reading)  # the loop itself keeps only a weak reference
        reading.add_done_callback(self._reading.discard)

    async def _answer(self, asked: dict[str, asyncio.Future[bytes | None]]) -> None:
        try:
            found: list[Any] = await self.redis.mget(list(asked))
        except Exception as error:
            for future in asked.values():
                if not future.done():
                    future.set_exception(failure("journal", error))
                    future.exception()
            return
        for future, content in zip(asked.values(), found, strict=True):
            if not future.done():
                future.set_result(content)
