"""Erasing a user: what can go at once goes with the request, the archive follows, and a receipt says what was found.

    service   note the request, tombstone, delete journal and known ids                  202
    indexer   archive what waits in the stream, delete the archive's rows and old versions,
              rewrite the server's append-only log, then say "done" and forget whom it was about

The tombstone refuses events and serves from before the erasure that arrive after it. Its name is a hash, and a receipt
holds counts only, so when the receipt says "done", nothing names the user any more.

An erasure of keys.EVERYBODY is that of all users of a tenant, and of what was counted: part of `retrieval.purge`.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from retrieval import keys
from retrieval.errors import NotFound, StoreUnavailable
from retrieval.journal import DAY_S, ENTRY, RETENTION_S
from retrieval.stream import REMEMBERED_DAYS

T = TypeVar("T")
State = Literal["pending", "done"]
REWRITE_LIMIT_S: Final = 300.0
SCANNED: Final = 1000
"""Keys that are looked at in one go."""

# KEYS: tombstone, journal, sets of known ids. ARGV: moment, expiry of the tombstone in seconds. A later tombstone
# stays. Answers (bytes of the journal, known ids).
FORGET: Final = """
local at_s = math.max(tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0'))
redis.call('SET', KEYS[1], string.format('%d', at_s), 'EX', ARGV[2])
local bytes, ids = 0, 0
if redis.call('TYPE', KEYS[2]).ok == 'string' then bytes = redis.call('STRLEN', KEYS[2]) end
for k = 3, #KEYS do ids = ids + redis.call('SCARD', KEYS[k]) end
redis.call('DEL', unpack(KEYS, 2))
return {bytes, ids}
"""


@dataclass(frozen=True)
class Erasure:
    """One erasure that is not done yet. `user_key` is empty when only the server's log still has to be written anew:
    what is noted to be done must not itself name the user in there."""

    id: str
    tenant: str
    user_key: str
    asked_s: int


@dataclass(frozen=True)
class Receipt:
    """What is known of an erasure. `counts` per store: journal_entries, known_ids, archived_events, archived_serves;
    of everybody: redis_keys instead of the first two."""

    tenant: str
    state: State
    asked_s: int
    done_s: int | None
    counts: Mapping[str, int]


def rekeyed(user_id: str, pepper: bytes) -> str:
    """The only form of a user id that is kept: 32 hex digits of its HMAC-SHA256 under the tenant's own pepper.

    Two tenants' users cannot be linked, and who holds our stores cannot guess e-mail addresses against them.
    """
    return hmac.digest(pepper, user_id.encode(), "sha256").hex()[:32]


class Erasures:
    """Erasures in Redis. Every method may raise StoreUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._forget: Any = redis.register_script(FORGET)

    async def ask(self, tenant: str, user_key: str, *, now_s: int) -> str:
        """Note that a user is to be erased, and clear what Redis holds of them. Returns the id of the receipt."""
        erasure = Erasure(secrets.token_hex(12), tenant, user_key, now_s)
        # First: should this process end here, nobody was told that the erasure is under way.
        counts = await self.forget(erasure, now_s=now_s)
        receipt = Receipt(tenant, "pending", now_s, None, counts)
        whom = orjson.dumps([tenant, user_key, now_s])
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.hset(keys.ERASURES, erasure.id, whom)
        pipeline.expire(keys.ERASURES, RETENTION_S)
        pipeline.set(keys.receipt(erasure.id), orjson.dumps(receipt), ex=RETENTION_S)
        await _answered(pipeline.execute())
        return erasure.id

    async def forget(self, erasure: Erasure, *, now_s: int) -> dict[str, int]:
        """Tombstone the user, delete journal and known ids. Once more is harmless, and counts what came meanwhile."""
        tenant, user_key = erasure.tenant, erasure.user_key
        if user_key == keys.EVERYBODY:
            return {"redis_keys": await self._forget_everybody(tenant)}
        day = now_s // DAY_S
        ids = [keys.taken(tenant, user_key, day - back) for back in range(-1, REMEMBERED_DAYS + 1)]
        names = [keys.tombstone(tenant, user_key), keys.journal(tenant, user_key), *ids]
        journal_bytes, known = await _answered(self._forget(keys=names, args=[erasure.asked_s, RETENTION_S]))
        return {"journal_entries": journal_bytes // ENTRY.itemsize, "known_ids": known}

    async def _forget_everybody(self, tenant: str) -> int:
        """Delete every key that names the tenant; how many. No tombstone: nobody can send anything for it any more."""
        cursor, gone = 0, 0
        while True:
            found: Any = await _answered(self.redis.scan(cursor, match=f"*:{tenant}*", count=SCANNED))
            cursor, names = found
            if mine := [name for name in names if keys.tenant_of(name) == tenant]:
                gone += int(await _answered(self.redis.delete(*mine)))
            if not cursor:
                return gone

    async def receipt(self, tenant: str, erasure_id: str) -> Receipt:
        """The receipt of a tenant's erasure. Raises NotFound, also for another tenant's."""
        content: Any = await _answered(self.redis.get(keys.receipt(erasure_id)))
        receipt = Receipt(**orjson.loads(content)) if content else None
        if receipt is None or receipt.tenant != tenant:
            raise NotFound("erasure", erasure_id)
        return receipt

    async def pending(self) -> list[Erasure]:
        """What is still to be done, oldest first."""
        found: Any = await _answered(self.redis.hgetall(keys.ERASURES))
        erasures = [Erasure(erasure_id.decode(), *orjson.loads(whom)) for erasure_id, whom in found.items()]
        return sorted(erasures, key=lambda one: (one.asked_s, one.id))

    async def note(self, erasure: Erasure, counts: Mapping[str, int], *, done_s: int | None) -> None:
        """Add `counts` to the receipt; with `done_s` it is done."""
        before = (await self.receipt(erasure.tenant, erasure.id)).counts
        total = {name: before.get(name, 0) + counts.get(name, 0) for name in (*before, *counts)}
        state: State = "pending" if done_s is None else "done"
        await self._write(erasure.id, Receipt(erasure.tenant, state, erasure.asked_s, done_s, total))
        if done_s is not None:
            await _answered(self.redis.hdel(keys.ERASURES, erasure.id))

    async def unname(self, erasure: Erasure) -> None:
        """Forget whom an erasure is about; it stays to be done."""
        nobody = orjson.dumps([erasure.tenant, "", erasure.asked_s])
        await _answered(self.redis.hset(keys.ERASURES, erasure.id, nobody))

    async def rewrite_log(self) -> bool:
        """Make the server write its append-only log anew: the old one still holds deleted values. False where it has
        none, or does not let us."""
        try:
            before: Any = await self.redis.info("persistence")
            if not before.get("aof_enabled"):
                return False
            await self.redis.bgrewriteaof()
            deadline = time.monotonic() + REWRITE_LIMIT_S
            while time.monotonic() < deadline:
                now: Any = await self.redis.info("persistence")
                if not now["aof_rewrite_in_progress"] and not now["aof_rewrite_scheduled"]:
                    return bool(now["aof_last_bgrewrite_status"] == "ok")
                await asyncio.sleep(0.05)
        except ResponseError:
            return False
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"erasure: {type(error).__name__}") from error
        return False

    async def _write(self, erasure_id: str, receipt: Receipt) -> None:
        await _answered(self.redis.set(keys.receipt(erasure_id), orjson.dumps(receipt), ex=RETENTION_S))


async def _answered(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"erasure: {type(error).__name__}") from error
