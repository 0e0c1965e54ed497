"""The reading end of the stream: entries after a place, decoded into rows of the archive, and dropped when archived.

A position is a stream id as one integer, milliseconds << 22 | sequence number: what a Delta table can keep as the
version of an application transaction. Nothing is acknowledged to Redis entry by entry: the place that counts is the
one in the archive, and Redis only learns what may be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.errors import LeaseLost, StoreUnavailable
from retrieval.serves import SERVE_FIELDS
from retrieval.stream import EVENTS, SERVES

SEQUENCE_BITS: Final = 22
ENTRIES_A_SHARD: Final = 128
"""Read in one go, so that a backlog of days does not have to fit into memory."""

CLAIM_S: Final = 60
"""After so long without a sign of its indexer, another archive may take over."""

Row = tuple[Any, ...]
"""Values in the order of `retrieval.archive_tables.COLUMNS`, without `date`."""


@dataclass(frozen=True, slots=True)
class Event:
    """The columns of one archived event that counting looks at. `row` is all of them."""

    tenant: str
    user_key: str
    signal: int
    item: int
    received_s: int
    strength: float
    request_id: str
    row: Row


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a shard's stream: the events of one batch, or one serve."""

    shard: int
    position: int
    events: Sequence[Event] = ()
    serve: Row | None = None


@dataclass
class Tail:
    """Reads the streams. `damaged` counts entries that could not be read and were passed over."""

    redis: Redis
    damaged: int = field(default=0)

    async def read(self, after: Mapping[int, int]) -> list[Entry]:
        """The next entries of every shard behind `after` (shard -> position), oldest first within a shard.

        Raises StoreUnavailable.
        """
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(keys.SHARDS):
            pipeline.xrange(keys.stream(shard), min=f"({stream_id(after.get(shard, 0))}", count=ENTRIES_A_SHARD)
        found = await _answered(pipeline)
        return [
            self._entry(shard, position(entry_id), fields)
            for shard, entries in enumerate(found)
            for entry_id, fields in entries
        ]

    async def drop(self, upto: Mapping[int, int]) -> None:
        """Forget the entries up to and including these positions. Raises StoreUnavailable."""
        pipeline = self.redis.pipeline(transaction=False)
        for shard, archived in upto.items():
            pipeline.xtrim(keys.stream(shard), minid=stream_id(archived + 1), approximate=False)
        await _answered(pipeline)

    async def claim(self, archive: str) -> None:
        """For CLAIM_S from now on these streams are drained into this archive, and into no other.

        Raises LeaseLost while they belong to another: of two deployments on one database of Redis each would drop what
        the other has not archived. Raises StoreUnavailable.
        """
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.set(keys.DRAINED_BY, archive, nx=True, ex=CLAIM_S)
        pipeline.get(keys.DRAINED_BY)
        _, holder = await _answered(pipeline)
        if holder not in (archive.encode(), None):
            raise LeaseLost("the signals in this Redis belong to another archive; is it another deployment's Redis?")
        await _answered(self.redis.pipeline(transaction=False).expire(keys.DRAINED_BY, CLAIM_S))

    async def backlog(self) -> int:
        """Entries that wait. Raises StoreUnavailable."""
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(keys.SHARDS):
            pipeline.xlen(keys.stream(shard))
        return sum(await _answered(pipeline))

    async def oldest_ms(self) -> int | None:
        """When the oldest entry that waits was written, unix milliseconds; None when none waits.

        Raises StoreUnavailable.
        """
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(keys.SHARDS):
            pipeline.xrange(keys.stream(shard), count=1)
        found = await _answered(pipeline)
        return min((position(entries[0][0]) >> SEQUENCE_BITS for entries in found if entries), default=None)

    def _entry(self, shard: int, at: int, fields: Mapping[bytes, bytes]) -> Entry:
        try:
            if EVENTS in fields:
                return Entry(shard, at, events=_events(orjson.loads(fields[EVENTS])))
            return Entry(shard, at, serve=_serve(orjson.loads(fields[SERVES])))
        except (ValueError, KeyError, TypeError, IndexError):
            self.damaged += 1
            return Entry(shard, at)


def position(entry_id: bytes) -> int:
    """The position of a stream id like b"1795000000000-3"."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds) << SEQUENCE_BITS | int(sequence)


def stream_id(position: int) -> str:
    """The stream id at a position."""
    return f"{position >> SEQUENCE_BITS}-{position & (1 << SEQUENCE_BITS) - 1}"


def _events(content: Any) -> list[Event]:
    tenant, user_key, received_s, records = content
    return [
        Event(
            tenant,
            user_key,
            signal,
            item,
            received_s,
            1.0 if value is None else value,
            request_id,
            (tenant, user_key, event_id, signal, item, at_s, received_s, value, request_id, place),
        )
        for event_id, signal, item, at_s, value, request_id, place in records
    ]


def _serve(content: Any) -> Row:
    if len(content) != len(SERVE_FIELDS):
        raise ValueError(f"a serve has {len(SERVE_FIELDS)} fields")
    return (*content[:-1], [(*item,) for item in content[-1]])


async def _answered(pipeline: Any) -> list[Any]:
    try:
        answers: list[Any] = await pipeline.execute()
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"stream: {type(error).__name__}") from error
    return answers
