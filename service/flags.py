"""The flags of one worker: three small loops that never wait for each other, and a decision from memory.

SQL, Redis and the kill files are looked at several times a second, each in a loop of its own: whichever is slow or
away, a flip comes through the others. What was learnt is kept on local disk, so that a start with everything away
begins from the last good state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from retrieval.errors import StoreUnavailable
from retrieval.flag_stores import FlagStores, KillFiles, restore, save
from retrieval.flags import Flag, Flags, Mode, decide, merged
from retrieval.loops import uncancelled

log = structlog.get_logger("service")

FILES_EVERY_S: Final = 0.25
REDIS_EVERY_S: Final = 0.25
SQL_EVERY_S: Final = 0.5


class LiveFlags:
    """What is known about flags now. `copy` is where the last good state is kept."""

    def __init__(self, stores: FlagStores, files: KillFiles, *, copy: Path) -> None:
        self.stores = stores
        self.files = files
        self.copy = copy
        self.flags = Flags()
        self._in_sql: tuple[int, Mapping[str, Flag]] = (-1, {})
        self._loops: list[asyncio.Task[None]] = []
        self._saving = asyncio.Lock()

    def decide(self, tenant_id: str, user_key: str | None) -> Mode:
        """What a user gets, from memory. Never waits, never raises."""
        return decide(self.flags, tenant_id, user_key)

    async def start(self) -> None:
        """Take over the last good copy, look everywhere once as far as it answers, then keep looking."""
        self._learn(await asyncio.to_thread(restore, self.copy))
        steps = (
            (self.look_at_files, FILES_EVERY_S),
            (self.look_at_redis, REDIS_EVERY_S),
            (self.look_at_sql, SQL_EVERY_S),
        )
        await asyncio.gather(*(self._attempt(step) for step, _ in steps))
        self._loops = [asyncio.create_task(self._repeat(step, every_s)) for step, every_s in steps]

    async def stop(self) -> None:
        """End the loops."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def set(
        self, scope: str, change: Mapping[str, Any], *, author: str, if_version: int | None
    ) -> tuple[Flag, tuple[str, ...]]:
        """Change a flag in every store that answers, and here at once: (the flag, the stores that have it).

        Raises like `FlagStores.set`.
        """
        flag, stored_in = await self.stores.set(
            scope,
            change,
            author=author,
            if_version=if_version,
            now_ms=int(time.time() * 1000),
            known=self.flags.by_scope.get(scope),
        )
        await self._learned({scope: flag})
        return flag, stored_in

    async def look_at_files(self) -> None:
        """Kill files of this machine. Raises OSError: what was there stays."""
        found = await asyncio.to_thread(self.files.read)
        if found != self.flags.killed_here:
            log.warning("kill_files", scopes=sorted(scope or "(all)" for scope in found))
            self.flags = Flags(self.flags.by_scope, found)

    async def look_at_redis(self) -> None:
        """The mirror; what it lacks is written to it. Raises StoreUnavailable."""
        found = await self.stores.mirror.all()
        await self._learned(found)
        for scope in self._newer_than(found):
            await self.stores.mirror.put(scope, self.flags.by_scope[scope])

    async def look_at_sql(self) -> None:
        """The record, if it or what is known here has moved; what it missed is written to it.

        Raises StoreUnavailable.
        """
        version = await self.stores.table.version()  # before the rows: what comes in between is read next time
        if (version, self.flags.by_scope) == self._in_sql:
            return
        found = await self.stores.table.all()
        await self._learned(found)
        known = self.flags.by_scope
        for scope in self._newer_than(found):
            await self.stores.table.adopt(scope, known[scope], now_s=int(time.time()))
        self._in_sql = version, known

    def _newer_than(self, found: Mapping[str, Flag]) -> list[str]:
        return [scope for scope, flag in self.flags.by_scope.items() if flag != found.get(scope)]

    def _learn(self, found: Mapping[str, Flag]) -> bool:
        """Take over what is newer; whether anything was."""
        known = merged(self.flags.by_scope, found)
        if known == self.flags.by_scope:
            return False
        self.flags = Flags(known, self.flags.killed_here)
        return True

    async def _learned(self, found: Mapping[str, Flag]) -> None:
        if self._learn(found):
            log.info("flags_changed", version=self.flags.version)
            async with self._saving:
                await asyncio.to_thread(self._save)

    def _save(self) -> None:
        try:
            save(self.flags.by_scope, self.copy)
        except OSError as error:
            log.warning("last_good_flags_not_written", error=str(error))

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except (StoreUnavailable, OSError) as error:
            log.debug("flags_not_read", error=str(error))
        except Exception as error:  # a loop that ended would leave this worker deaf to a kill
            log.error("flags_not_read", exc_info=error)

    async def _repeat(self, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while uncancelled():
            await asyncio.sleep(every_s)
            await self._attempt(step)
