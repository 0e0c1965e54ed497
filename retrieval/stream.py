"""The stream: what was accepted (events) and answered (serves), until the indexer has archived it.

An event is acknowledged when one script has done three things in one step: noted its id, appended it to the user's
journal and added it to the stream. All keys of the script are in one slot, so there is no moment at which one is done
and another is not, whatever is killed. Two entries, both JSON, one per script:

    e   [tenant, user, received_s, [[id, signal, item, at_s, value, request_id, position], ...]]
    s   the fields of `retrieval.serves.Serve`, items as [[item, position, reason, score, propensity], ...]

What "durable" means is the server's: with `appendfsync always` an acknowledged event outlives a power cut, with
`everysec` a power cut, or a kill in the middle of a flush, may cost up to two seconds. `fsync` and `replicas` make each
batch wait until that many copies are safe (WAITAOF).
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from retrieval import keys
from retrieval.journal import DAY_S, ENTRY, RETENTION_S, Signal, alike, entries
from retrieval.roundtrip import RoundTrips, failure
from retrieval.serves import Serve

REMEMBERED_DAYS: Final = 3
"""An id is known on the day it was taken and the two days after it: for 48 h at least."""
EVENTS: Final = b"e"
SERVES: Final = b"s"

# Trims to the newest 7/8 when the cap is passed, so that the copy is paid once per many appends. A value that is no
# row of whole entries is not ours: started afresh. A cap of 0 is nobody's journal.
_APPEND: Final = """
local function append(key, entries, cap, retention)
  if cap == 0 or entries == '' then return end
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and (kind ~= 'string' or redis.call('STRLEN', key) % 12 ~= 0) then redis.call('DEL', key) end
  if redis.call('APPEND', key, entries) > cap then
    redis.call('SET', key, redis.call('GETRANGE', key, -math.floor(cap * 7 / 8 / 12) * 12, -1))
  end
  redis.call('EXPIRE', key, retention)
end
"""

# KEYS: journal, stream, tombstone, ids taken today, yesterday, the day before. ARGV: cap of the journal in bytes,
# retention and life of the ids in seconds, opening of the stream's entry, journal entries, then of each event: number
# of its id, when it claims to have happened, record for the stream. One answer per event, see Answer.
# The last EXPIRE is written for a batch of duplicates too: WAITAOF waits for what its own connection wrote.
RECORD: Final = (
    _APPEND
    + """
local erased_s = tonumber(redis.call('GET', KEYS[3]) or '-1')
local older = {}
for k = 5, 6 do if redis.call('EXISTS', KEYS[k]) == 1 then older[#older + 1] = KEYS[k] end end
local answers, new, records = {}, {}, {}
for i = 6, #ARGV, 3 do
  local n, answer = #answers + 1, 1
  if tonumber(ARGV[i + 1]) <= erased_s then
    answer = 2
  else
    if redis.call('SADD', KEYS[4], ARGV[i]) == 0 then answer = 0 end
    for _, key in ipairs(older) do if redis.call('SISMEMBER', key, ARGV[i]) == 1 then answer = 0 end end
  end
  if answer == 1 then
    new[#new + 1] = string.sub(ARGV[5], 12 * n - 11, 12 * n)
    records[#records + 1] = ARGV[i + 2]
  end
  answers[n] = answer
end
if #new > 0 then
  append(KEYS[1], table.concat(new), tonumber(ARGV[1]), ARGV[2])
  redis.call('XADD', KEYS[2], '*', 'e', ARGV[4] .. table.concat(records, ',') .. ']]')
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
redis.call('EXPIRE', KEYS[4], ARGV[3])
return answers
"""
)

# Any number of pages. KEYS: of each its journal, stream and tombstone. ARGV: retention in seconds, then of each cap of
# the journal in bytes, now, journal entries, stream entry or ''.
SERVED: Final = (
    _APPEND
    + """
for page = 0, #KEYS / 3 - 1 do
  local journal, stream, tombstone = unpack(KEYS, 3 * page + 1, 3 * page + 3)
  local cap, now, entries, entry = unpack(ARGV, 4 * page + 2, 4 * page + 5)
  if tonumber(now) > tonumber(redis.call('GET', tombstone) or '-1') then
    append(journal, entries, tonumber(cap), ARGV[1])
    if entry ~= '' then
      redis.call('XADD', stream, '*', 's', entry)
      redis.call('EXPIRE', stream, ARGV[1])
    end
  end
end
"""
)


class Answer(IntEnum):
    """What became of one event. ERASED: it happened before its user was erased, so nothing of it is kept."""

    DUPLICATE = 0
    ACCEPTED = 1
    ERASED = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One valid event. `at_s` is when it happened by our clock, no more than LATE_S ago; `claimed_s` the same without
    that limit. `value` is the fraction watched."""

    id: UUID
    signal: Signal
    item: int
    at_s: int
    claimed_s: int
    value: float | None = None
    request_id: str = ""
    position: int | None = None

    @property
    def strength(self) -> float:
        return 1.0 if self.value is None else self.value


SERVES_EVERY_S: Final = 0.01
"""Pause between two round trips for pages while there are more to come."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What RECORD or SERVED is to do for somebody who waits: with which KEYS, and which ARGV of its own.

    `durable`: only an answer that is safe counts.
    """

    script: str
    names: Sequence[str]
    arguments: Sequence[Any]
    durable: bool
    future: asyncio.Future[Any]


class Stream:
    """Writes journals and the stream. What is asked in one turn of the loop goes out in one round trip.

    cap: entries kept per journal. serve_share: share of pages, 0 to 1, whose serves are logged; every page counts in
    the journal. fsync, replicas: what a batch of events waits for, beside the server's own rule. busy: whether more
    pages are about to be made; if so, those that are made wait for them up to SERVES_EVERY_S.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        cap: int = 4096,
        serve_share: float = 1.0,
        fsync: bool = False,
        replicas: int = 0,
        wait_ms: int = 2000,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.redis = redis
        self.round_trips = RoundTrips(redis)
        self.cap_bytes = cap * ENTRY.itemsize
        self.serve_share = serve_share
        self.safe = (int(fsync), replicas)
        self.wait_ms = wait_ms
        self.busy = busy
        self._sent_s = 0.0
        self._pending: list[_Call] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def record(self, tenant: str, user_key: str | None, events: Sequence[Event], *, now_s: int) -> list[Answer]:
        """Take events of one user, each at most once; one answer per event, in order.

        Raises StoreUnavailable: whether they were taken is unknown, and sending the same ids again is right.
        """
        user = user_key or keys.ANONYMOUS
        rows = [(event.item, event.at_s, event.signal, event.strength) for event in events]
        arguments: list[Any] = [
            self.cap_bytes if user_key else 0,
            RETENTION_S,
            REMEMBERED_DAYS * DAY_S,
            orjson.dumps([tenant, user, now_s])[:-1] + b",[",
            entries(rows).tobytes(),
        ]
        for event in events:
            arguments += (_number(event.id), event.claimed_s, _record(event))
        day = now_s // DAY_S
        taken = [keys.taken(tenant, user, day - back) for back in range(REMEMBERED_DAYS)]
        found = await self._run(RECORD, [*_places(tenant, user), *taken], arguments, durable=True)
        return [Answer(one) for one in found]

    async def served(self, serve: Serve) -> None:
        """Note a page that was answered: in the user's journal, and in the serve log. Raises StoreUnavailable."""
        user = serve.user_key or keys.ANONYMOUS
        logged = zlib.crc32(serve.request_id.encode()) < self.serve_share * 2**32
        if not logged and serve.user_key is None:
            return
        arguments = [
            self.cap_bytes if serve.user_key else 0,
            serve.at_s,
            alike([one.item for one in serve.items], serve.at_s, Signal.SERVED).tobytes(),
            serve.encoded() if logged else b"",
        ]
        await self._run(SERVED, _places(serve.tenant, user), arguments, durable=False)

    async def _run(self, script: str, names: Sequence[str], arguments: Sequence[Any], *, durable: bool) -> Any:
        loop = asyncio.get_running_loop()
        call = _Call(script, names, arguments, durable, loop.create_future())
        self._pending.append(call)
        waits = self.busy() and not durable
        wait_s = max(self._sent_s + SERVES_EVERY_S - loop.time(), 0.0) if waits else 0.0
        if not wait_s or len(self._pending) == 1:
            loop.call_later(wait_s, self._start_sending)
        return await call.future

    def _start_sending(self) -> None:
        if not self._pending:
            return  # they went with others
        calls, self._pending = self._pending, []
        loop = asyncio.get_running_loop()
        self._sent_s = loop.time()
        sending = loop.create_task(self._send(calls))
        self._sending.add(sending)  # the loop itself keeps only a weak reference
        sending.add_done_callback(self._sending.discard)

    async def _send(self, calls: Sequence[_Call]) -> None:
        try:
            answers = await self._execute(calls)
        except Exception as error:
            answers = [error] * len(calls)
        for call, answer in zip(calls, answers, strict=True):
            if call.future.done():
                continue
            if isinstance(answer, Exception):
                call.future.set_exception(failure("stream", answer))
                call.future.exception()  # whoever asked may have gone away
            else:
                call.future.set_result(answer)

    async def _execute(self, calls: Sequence[_Call]) -> list[Any]:
        """One answer or exception per call. Scripts a restarted server has forgotten are sent again."""
        answers = await self._round_trip(calls)
        forgotten = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            for script in SCRIPTS:
                await self.redis.script_load(script)
            for i, answer in zip(forgotten, await self._round_trip([calls[i] for i in forgotten]), strict=True):
                answers[i] = answer
        return answers

    async def _round_trip(self, calls: Sequence[_Call]) -> list[Any]:
        waits = any(self.safe) and any(call.durable for call in calls)
        commands, answered_by = _commands(calls)
        if waits:
            commands.append(("WAITAOF", *self.safe, self.wait_ms))
        found = await self.round_trips.send(commands)
        answers = [found[number] for number in answered_by]
        if not waits:
            return answers
        safe = found[-1]
        if isinstance(safe, Exception) or any(got < wanted for got, wanted in zip(safe, self.safe, strict=True)):
            failure = safe if isinstance(safe, Exception) else TimeoutError("not enough copies in time")
            return [
                failure if call.durable and not isinstance(answer, Exception) else answer
                for call, answer in zip(calls, answers, strict=True)
            ]
        return answers


def _commands(calls: Sequence[_Call]) -> tuple[list[tuple[Any, ...]], list[int]]:
    """(commands, the number of the one that answers each call): one for each RECORD, one for all SERVED together."""
    commands: list[tuple[Any, ...]] = []
    pages, answered_by = [call for call in calls if call.script == SERVED], []
    if pages:
        names = [name for page in pages for name in page.names]
        arguments = [argument for page in pages for argument in page.arguments]
        commands.append(("EVALSHA", SCRIPTS[SERVED], len(names), *names, RETENTION_S, *arguments))
    for call in calls:
        answered_by.append(len(commands) if call.script == RECORD else 0)
        if call.script == RECORD:
            commands.append(("EVALSHA", SCRIPTS[RECORD], len(call.names), *call.names, *call.arguments))
    return commands, answered_by


SCRIPTS: Final[Mapping[str, str]] = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (RECORD, SERVED)
}
"""Each script and the name the server knows it by."""


def _places(tenant: str, user: str) -> list[str]:
    stream = keys.stream(keys.shard(tenant, user))
    return [keys.journal(tenant, user), stream, keys.tombstone(tenant, user)]


def _number(event_id: UUID) -> int:
    """64 bits of an id, as the signed integer that Redis stores in 8 bytes. Within one user two ids never meet."""
    return int.from_bytes(hashlib.blake2b(event_id.bytes, digest_size=8).digest(), "big", signed=True)


def _record(event: Event) -> bytes:
    return orjson.dumps(
        [event.id.hex, event.signal, event.item, event.at_s, event.value, event.request_id, event.position]
    )
