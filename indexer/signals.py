"""Signals: the stream drained into the archive and the counters, erasures done, what is 90 days old removed.

One process does this at a time, under a lease; the lease saves double work and no more. What makes it exact is that
each destination keeps its own place in the stream, written in one step with the rows (the archive's two tables) or the
sums (the counters). A pass begins at the earliest of the places and skips what a destination has already; so a crash
at any line repeats work and never a row. Redis is told to forget entries only when all three have them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import structlog
from redis.asyncio import Redis

from indexer.counting import Counting, served_items, users_of
from indexer.retention import Report, keys_without_expiry, trim_journals
from indexer.settings import IndexerSettings
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS, SERVES
from retrieval.counters import EXPIRY_S, HOUR_S, KEPT_H, Before, Counters, Counts, Windows, added, folded, windows_of
from retrieval.erasure import Erasure, Erasures
from retrieval.errors import LeaseLost
from retrieval.journal import Journals
from retrieval.keys import EVERYBODY
from retrieval.popularity_log import PopularityLog
from retrieval.recent import Recent, recent
from retrieval.tail import ENTRIES_A_SHARD, Entry, Event, Row, Tail

log = structlog.get_logger("indexer")

COUNTED: Final = "counters"
JOURNALS_AT_ONCE: Final = 500
RECENT_S: Final = 900


@final
@dataclass(frozen=True)
class Backlog:
    """What is still to be done: entries of the stream, age of the oldest of them, erasures, age of the oldest of
    those. Ages in seconds, 0 when nothing waits."""

    entries: int
    oldest_entry_s: float
    erasures: int
    oldest_erasure_s: float


@dataclass
class Signals:
    """The work on signals. `clock` gives unix seconds. Call `start` first, and again after an error.

    `archived` rows, `counting` and `published_s` (when popularity was last worked out) are for whoever watches.
    """

    redis: Redis
    archive: Archive
    settings: IndexerSettings
    clock: Callable[[], float] = time.time
    archived: int = 0
    counting: Counting = field(default_factory=Counting)
    published_s: float = 0.0
    _places: dict[str, dict[int, int]] = field(default_factory=dict)
    _read_to: dict[int, int] = field(default_factory=dict)
    _waiting: list[Entry] = field(default_factory=list)
    _hours: dict[str, dict[int, Counts]] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    _before: dict[str, Before] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tail = Tail(self.redis)
        self.counters = Counters(self.redis)
        self.journals = Journals(self.redis)
        self.erasures = Erasures(self.redis)
        self.versions = PopularityLog(self.settings.snapshot_dir)

    async def start(self) -> None:
        """Find out how far everything is. Raises StoreUnavailable."""
        self._places = {
            EVENTS: await asyncio.to_thread(self.archive.positions, EVENTS),
            SERVES: await asyncio.to_thread(self.archive.positions, SERVES),
            COUNTED: await self.counters.counted(),
        }
        shards = {shard for places in self._places.values() for shard in places}
        self._read_to = {shard: min(places.get(shard, 0) for places in self._places.values()) for shard in shards}
        self._waiting.clear()
        self._hours.clear()
        self._before.clear()
        self._stale = await self.counters.tenants()

    async def read(self) -> int:
        """Take the next entries in; how many events and serves wait now. Raises StoreUnavailable."""
        entries = await self.tail.read(self._read_to)
        for entry in entries:
            self._read_to[entry.shard] = max(entry.position, self._read_to.get(entry.shard, 0))
        self._waiting += entries
        return sum(len(entry.events) + (entry.serve is not None) for entry in self._waiting)

    async def flush(self) -> None:
        """Archive and count what waits, then let Redis forget it.

        Raises StoreUnavailable, and LeaseLost when another process does the same, or for another archive: `start`
        again after either.
        """
        await self.tail.claim(self.archive.identity)
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        await self._archive(EVENTS, entries, lambda entry: [event.row for event in entry.events])
        await self._archive(SERVES, entries, lambda entry: [entry.serve] if entry.serve else [])
        await self._count([entry for entry in entries if entry.position > self._place(COUNTED, entry.shard)])
        await self.tail.drop(_last(entries))

    async def drain(self) -> None:
        """Archive everything that was in the stream when this was called. Raises like `flush`."""
        while True:
            before = len(self._waiting)
            waiting = await self.read()
            more = len(self._waiting) - before >= ENTRIES_A_SHARD
            if not more or waiting >= self.settings.signals_rows:
                await self.flush()
            if not more:
                return

    async def publish(self) -> None:
        """Add up the windows of every tenant for which something changed or an hour has passed."""
        now_hour = int(self.clock()) // HOUR_S
        for tenant in sorted(self._stale):
            hours = await self._hours_of(tenant, now_hour)
            before = await self._folded(tenant, hours, up_to=now_hour - KEPT_H)
            windows = await asyncio.to_thread(windows_of, hours, now_hour=now_hour, before=before)
            await asyncio.to_thread(self._keep, tenant, windows)
            await self.counters.publish(tenant, windows)
        self._stale.clear()
        self.published_s = self.clock()

    def _keep(self, tenant: str, windows: Windows) -> None:
        """Without it some pages cannot be replayed, which is no reason to rank by what was popular yesterday."""
        try:
            self.versions.keep(tenant, windows, now_s=self.clock())
        except OSError as error:
            log.warning("popularity_not_kept", tenant=tenant, error=str(error))

    async def backlog(self) -> Backlog:
        """What is still to be done. Raises StoreUnavailable."""
        now_s, oldest_ms, erasures = self.clock(), await self.tail.oldest_ms(), await self.erasures.pending()
        return Backlog(
            entries=await self.tail.backlog(),
            oldest_entry_s=0.0 if oldest_ms is None else max(now_s - oldest_ms / 1000, 0.0),
            erasures=len(erasures),
            oldest_erasure_s=max(now_s - erasures[0].asked_s, 0.0) if erasures else 0.0,
        )

    async def recent(self) -> Sequence[Recent]:
        """What became of the pages of the last minutes. Raises StoreUnavailable."""
        return await asyncio.to_thread(recent, self.archive, since_s=int(self.clock()) - RECENT_S)

    async def erase(self) -> int:
        """Do the erasures that were asked for; how many are done. Raises StoreUnavailable, LeaseLost."""
        pending = await self.erasures.pending()
        if not pending:
            return 0
        began = time.monotonic()
        left = await self._clear([one for one in pending if one.user_key])
        if left:
            log.warning("erasures_wait", unknown_files=left)  # they may hold rows of these users
            return 0
        rewritten = await self.erasures.rewrite_log()
        for one in pending:
            await self.erasures.note(one, {}, done_s=int(self.clock()))
        log.info("erased", users=len(pending), log_rewritten=rewritten, seconds=round(time.monotonic() - began, 2))
        return len(pending)

    async def _clear(self, erasures: list[Erasure]) -> int:
        """Clear every store of these users; how many files stay of which nobody knows what is in them."""
        found = {one.id: await self.erasures.forget(one, now_s=int(self.clock())) for one in erasures}
        await self.drain()
        for one in erasures:
            if one.user_key == EVERYBODY:
                found[one.id] = await self._uncounted(one, found[one.id])
        users = list({(one.tenant, one.user_key) for one in erasures})
        rows = await asyncio.to_thread(self.archive.erase, users)
        left = await asyncio.to_thread(self.archive.sweep)
        for one in erasures:
            archived = rows.pop((one.tenant, one.user_key), {EVENTS: 0, SERVES: 0})
            counts = {"archived_events": archived[EVENTS], "archived_serves": archived[SERVES], **found[one.id]}
            await self.erasures.note(one, counts, done_s=None)
            if not left:
                await self.erasures.unname(one)
        return left

    async def _uncounted(self, everybody: Erasure, found: Mapping[str, int]) -> dict[str, int]:
        """Forget what was counted of a tenant, and delete what draining the stream has counted meanwhile; how many keys
        that were, with those `found` before."""
        self._hours.pop(everybody.tenant, None)
        self._before.pop(everybody.tenant, None)
        self._stale.discard(everybody.tenant)
        self.versions.forget(everybody.tenant)
        again = await self.erasures.forget(everybody, now_s=int(self.clock()))
        return {name: found[name] + again[name] for name in again}

    async def retain(self) -> Report:
        """Remove what is 90 days old, compact what is small, and say how things are. Raises StoreUnavailable."""
        now_s = self.clock()
        days = await asyncio.to_thread(self.archive.retain, now_s=now_s)
        compacted = await asyncio.to_thread(self.archive.compact)
        trimmed = await trim_journals(self.journals, now_s=now_s)
        oldest_s = await asyncio.to_thread(self.archive.oldest_s)
        joined = await asyncio.to_thread(self.archive.joined_share, since_s=int(now_s) - HOUR_S)
        self._stale |= set(self._hours)
        return Report(
            oldest_event_age_seconds=0 if oldest_s is None else int(now_s - oldest_s),
            keys_without_expiry=await keys_without_expiry(self.redis),
            joined_share=joined,
            days_deleted=days,
            days_compacted=compacted,
            journals_trimmed=trimmed,
            waiting=await self.tail.backlog(),
            damaged=self.tail.damaged,
        )

    async def _archive(self, table: str, entries: list[Entry], rows_of: Callable[[Entry], list[Row]]) -> None:
        places = self._places[table]
        new = [entry for entry in entries if entry.position > places.get(entry.shard, 0) and rows_of(entry)]
        if not new:
            return
        rows = [row for entry in new for row in rows_of(entry)]
        to = _last(new)
        await asyncio.to_thread(self.archive.append, table, rows, after=places, positions=to)
        places.update(to)
        self.archived += len(rows)

    async def _count(self, entries: list[Entry]) -> None:
        if not entries:
            return
        events = [event for entry in entries for event in entry.events]
        self.counting.note(entry.serve for entry in entries if entry.serve is not None)
        sums = self.counting.counted(events, await self._served(events))
        now_hour = int(self.clock()) // HOUR_S
        changed = {}
        for (tenant, hour), (items, values) in sums.items():
            hours = await self._hours_of(tenant, now_hour)
            before = hours.get(hour)
            if before is None:
                before = (await self.counters.hours(tenant, [hour]))[hour]
            changed[tenant, hour] = added(before, items, values)
        to = _last(entries)
        if not await self.counters.save(changed, counted_from=self._places[COUNTED], counted_to=to):
            raise LeaseLost("another process has counted")
        for (tenant, hour), counts in changed.items():
            self._hours[tenant][hour] = counts
            self._stale.add(tenant)
        self._places[COUNTED].update(to)

    async def _served(self, events: list[Event]) -> Mapping[tuple[str, str], frozenset[int]]:
        users = users_of(events)
        served = {}
        for first in range(0, len(users), JOURNALS_AT_ONCE):
            lot = users[first : first + JOURNALS_AT_ONCE]
            for user, journal in zip(lot, await self.journals.read_many(lot), strict=True):
                served[user] = served_items(journal)
        return served

    async def _hours_of(self, tenant: str, now_hour: int) -> dict[int, Counts]:
        if tenant not in self._hours:
            wanted = range(now_hour - EXPIRY_S // HOUR_S + 1, now_hour + 1)
            found = await self.counters.hours(tenant, list(wanted))
            self._hours[tenant] = {hour: counts for hour, counts in found.items() if len(counts)}
        return self._hours[tenant]

    async def _folded(self, tenant: str, hours: dict[int, Counts], *, up_to: int) -> Before:
        """What was counted before the hours that are kept; hours up to then are added to it and leave `hours`."""
        before = self._before.get(tenant) or await self.counters.before(tenant)
        if old := [hour for hour in hours if hour <= up_to]:
            before = await asyncio.to_thread(folded, before, hours, up_to=up_to)
            await self.counters.keep_before(tenant, before)
            for hour in old:
                del hours[hour]
        self._before[tenant] = before
        return before

    def _place(self, destination: str, shard: int) -> int:
        return self._places[destination].get(shard, 0)


def _last(entries: list[Entry]) -> dict[int, int]:
    """The last position of each shard."""
    last: dict[int, int] = {}
    for entry in entries:
        last[entry.shard] = max(entry.position, last.get(entry.shard, 0))
    return last
