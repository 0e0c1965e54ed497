"""Where flags are kept: SQL (the record), Redis (a mirror), files on each machine (the way when both are away).

A change is written to every store that answers; one is enough. Whoever reads them later brings the others up to date
(`FlagTable.adopt`, `FlagMirror.put`), so that no store has to be repaired by hand.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit, keys
from retrieval.database import insert, reading, storable, writing
from retrieval.errors import InvalidInput, NotFound, StoreUnavailable, VersionMismatch
from retrieval.files import write_atomically
from retrieval.flags import Flag, as_document, changed, from_document, merged
from retrieval.tables import CONFIG, FLAGS, GLOBAL, TENANTS

log = structlog.get_logger("retrieval")

SQL: Final = "sql"
REDIS: Final = "redis"
FILE: Final = "file"
SQL_PATIENCE_S: Final = 2.0
"""A flip waits no longer for SQL before it goes on to the mirror: a black-holed server would cost many seconds."""


class FlagTable:
    """Flags in SQL. Every write moves `config.flags`, which a worker may ask for as often as it likes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def version(self) -> int:
        """A counter that has grown whenever a flag differs. Raises StoreUnavailable."""
        async with reading(self._engine) as connection:
            return int((await connection.execute(select(CONFIG.c.flags))).scalar_one())

    async def all(self) -> dict[str, Flag]:
        """Every readable flag by scope. Raises StoreUnavailable."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(FLAGS))).all()
        return _readable({row.tenant_id: (row.version, row.body) for row in rows}, SQL)

    async def set(
        self, scope: str, change: Mapping[str, Any], *, author: str, if_version: int | None, now_ms: int
    ) -> Flag:
        """Change a scope's flag as `retrieval.flags.changed` says, and note it in the audit.

        `if_version` is the version the author has seen, 0 for none; None = whatever it is.
        Raises VersionMismatch, NotFound (no such tenant), InvalidInput, StoreUnavailable.
        """
        async with writing(self._engine) as connection:
            await bump_flags(connection)  # also the lock under which versions are given out
            if not await _exists(connection, scope):
                raise NotFound("tenant", scope)
            before = await _read(connection, scope)
            _check_version(before, if_version)
            flag = changed(before, change, author=author, now_ms=now_ms)
            await _write(connection, scope, before, flag, "flag.set", now_ms // 1000)
        return flag

    async def adopt(self, scope: str, flag: Flag, *, now_s: int) -> bool:
        """Take over a flag that was set while SQL was away, if it is newer than what is here. True if it was.

        A tenant that SQL does not know has no flag to take over: False. Raises StoreUnavailable.
        """
        async with writing(self._engine) as connection:
            # Lock, but move nothing yet: a counter that moved without a change would keep all workers reading.
            await connection.execute(select(CONFIG.c.flags).with_for_update())
            if not await _exists(connection, scope):
                return False
            before = await _read(connection, scope)
            if before is not None and merged({scope: before}, {scope: flag})[scope] == before:
                return False
            await bump_flags(connection)
            await _write(connection, scope, before, flag, "flag.adopt", now_s)
        return True


class FlagMirror:
    """Flags in Redis: one hash, scope -> flag. `redis` should give up quickly: a kill must not wait for it."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._content: dict[Any, Any] = {}
        self._flags: Mapping[str, Flag] = {}

    async def all(self) -> Mapping[str, Flag]:
        """Every readable flag by scope; what is unreadable is logged when it is new. Raises StoreUnavailable."""
        try:
            content: dict[Any, Any] = await self._redis.hgetall(keys.FLAGS)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"flags: {type(error).__name__}") from error
        if content != self._content:  # workers ask four times a second, and flags hardly ever change
            self._content, self._flags = content, _in_redis(content)
        return self._flags

    async def put(self, scope: str, flag: Flag) -> None:
        """Write a flag. Raises StoreUnavailable.

        Two writers at once may leave the older one here; the next worker that looks writes the newer one again.
        """
        try:
            await self._redis.hset(keys.FLAGS, scope, orjson.dumps([flag.version, as_document(flag)]))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"flags: {type(error).__name__}") from error


class KillFiles:
    """Kill switches as files of one machine: `kill` for all tenants, `kill-TENANT` for one; the content is the reason.

    They work with every store away, and made by hand: `echo why > var/state/kill`.
    """

    _NAME: Final = re.compile(r"kill(?:-(?P<tenant>[a-z0-9][a-z0-9-]{0,62}))?")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, str]:
        """Scope -> reason of every file there is. A file that cannot be read kills as well. Raises OSError when the
        folder itself cannot be listed."""
        try:
            found = list(self._folder.iterdir())
        except FileNotFoundError:
            return {}
        matches = [(path, match) for path in found if (match := self._NAME.fullmatch(path.name))]
        return {match["tenant"] or GLOBAL: _reason_in(path) for path, match in matches}

    def kill(self, scope: str, reason: str) -> Path:
        """Make the file. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(scope)
        write_atomically(path, reason.encode() + b"\n")
        return path

    def lift(self, scope: str) -> bool:
        """Remove the file; False if there is none. Raises OSError."""
        path = self._path(scope)
        there = path.exists()
        path.unlink(missing_ok=True)
        return there

    def _path(self, scope: str) -> Path:
        return self._folder / (f"kill-{scope}" if scope else "kill")


class FlagStores:
    """SQL and its mirror together: what an operator's change goes through."""

    def __init__(self, table: FlagTable, mirror: FlagMirror) -> None:
        self.table = table
        self.mirror = mirror

    async def set(
        self,
        scope: str,
        change: Mapping[str, Any],
        *,
        author: str,
        if_version: int | None,
        now_ms: int,
        known: Flag | None = None,
    ) -> tuple[Flag, tuple[str, ...]]:
        """Change a flag wherever that is possible now: (the flag, the stores that have it).

        `known` is the flag to start from when SQL is away; None = the mirror's. SQL is asked first and alone, so that a
        Redis that does not answer delays no flip. Raises VersionMismatch, NotFound, InvalidInput, and
        StoreUnavailable when no store could be written.
        """
        reached = [SQL]
        try:
            async with asyncio.timeout(SQL_PATIENCE_S):
                flag = await self.table.set(scope, change, author=author, if_version=if_version, now_ms=now_ms)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("flag_not_in_sql", scope=scope, error=str(error) or type(error).__name__)
            known = known or (await self.mirror.all()).get(scope)
            _check_version(known, if_version)
            flag = changed(known, change, author=author, now_ms=now_ms)
            reached = []
        try:
            await self.mirror.put(scope, flag)
            reached.append(REDIS)
        except StoreUnavailable:
            if not reached:
                raise
        return flag, tuple(reached)


async def bump_flags(connection: AsyncConnection) -> None:
    """Move the counter of flags. Must be the first statement about flags in a transaction: its row lock orders them."""
    await connection.execute(update(CONFIG).values(flags=CONFIG.c.flags + 1))


async def insert_flag(connection: AsyncConnection, scope: str, flag: Flag) -> None:
    """Write a flag in a running transaction that has called `bump_flags`; no audit entry."""
    statement = insert(connection, FLAGS).values(tenant_id=scope, version=flag.version, body=as_document(flag))
    newer = {"version": statement.excluded.version, "body": statement.excluded.body}
    await connection.execute(statement.on_conflict_do_update(index_elements=[FLAGS.c.tenant_id], set_=newer))


def save(flags: Mapping[str, Flag], path: Path) -> None:
    """Keep flags for a start with every store away. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {scope: [flag.version, as_document(flag)] for scope, flag in flags.items()}
    write_atomically(path, orjson.dumps(facts), mode=0o600)


def restore(path: Path) -> dict[str, Flag]:
    """What `save` kept; empty when there is nothing, or nothing readable: then nothing is known."""
    try:
        facts = orjson.loads(path.read_bytes())
        return _readable({scope: tuple(one) for scope, one in facts.items()}, FILE)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.error("last_good_flags_unreadable", error=type(error).__name__)
        return {}


async def _exists(connection: AsyncConnection, scope: str) -> bool:
    if scope == GLOBAL or not storable(scope):
        return scope == GLOBAL
    return (await connection.execute(select(TENANTS.c.id).where(TENANTS.c.id == scope))).first() is not None


async def _read(connection: AsyncConnection, scope: str) -> Flag | None:
    row = (await connection.execute(select(FLAGS).where(FLAGS.c.tenant_id == scope))).one_or_none()
    return _readable({scope: (row.version, row.body)}, SQL).get(scope) if row else None


async def _write(
    connection: AsyncConnection, scope: str, before: Flag | None, flag: Flag, action: str, now_s: int
) -> None:
    await insert_flag(connection, scope, flag)
    old = _noted(before) if before else None
    who, why = flag.author, flag.reason
    await audit.record(connection, action, scope, who=who, reason=why, now_s=now_s, before=old, after=_noted(flag))


def _noted(flag: Flag) -> dict[str, Any]:
    """What the audit keeps of a flag: no user keys, because the audit is never erased."""
    noted = {name: value for name, value in as_document(flag).items() if name not in ("author", "reason", "changed_s")}
    return noted | {"allow": len(flag.allow), "version": flag.version}


def _check_version(before: Flag | None, if_version: int | None) -> None:
    current = before.version if before else 0
    if if_version is not None and if_version != current:
        raise VersionMismatch(if_version, current)


def _in_redis(content: Mapping[Any, Any]) -> Mapping[str, Flag]:
    raw: dict[str, Any] = {}
    for scope, flag in content.items():
        try:
            raw[scope.decode()] = tuple(orjson.loads(flag))
        except (ValueError, TypeError):
            log.error("flag_unreadable", store=REDIS, scope=scope[:80].decode(errors="replace"))
    return MappingProxyType(_readable(raw, REDIS))


def _readable(raw: Mapping[str, Any], store: str) -> dict[str, Flag]:
    """The flags among what a store holds. What is damaged is unknown, not a reason to fail."""
    flags = {}
    for scope, content in raw.items():
        try:
            version, document = content
            flags[scope] = from_document(version, document)
        except (InvalidInput, TypeError, ValueError):
            log.error("flag_unreadable", store=store, scope=scope)
    return flags


def _reason_in(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()[:500] or "(no reason given)"
    except OSError:
        return "(the file cannot be read)"
