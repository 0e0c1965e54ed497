"""The serve log, read back: one page by its request id, and the pages of its chain, from the last 24 hours.

A page is in the stream first and, seconds later, in the archive; both are asked. deltalake is loaded when the first
page is asked for, so that a worker nobody asks does without. The archive is asked in a thread of its own, one question
at a time, and not waited for longer than `limit_s`: object storage that does not answer keeps nothing else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis

from retrieval import keys
from retrieval.errors import NotFound, StoreUnavailable
from retrieval.journal import DAY_S
from retrieval.serves import SERVE_FIELDS, Serve
from retrieval.tail import Tail

if TYPE_CHECKING:
    from retrieval.archive import Archive

KEPT_S: Final = DAY_S
"""What it takes to make a page again is kept for so long after the page was served, and longer only by accident."""
ID_CHARS: Final = 64
LIMIT_S: Final = 10.0


class ServeLog:
    """Reads the stream and the archive at a URL. Every method raises StoreUnavailable."""

    def __init__(self, redis: Redis, archive_url: str, *, limit_s: float = LIMIT_S) -> None:
        self._tail = Tail(redis)
        self._url = archive_url
        self._limit_s = limit_s
        self._archive: Archive | None = None
        self._thread = ThreadPoolExecutor(1, "archive")

    async def find(self, request_id: str, *, now_s: int, tenant: str | None = None) -> Serve:
        """The page of a request id, of this tenant if one is given.

        Raises NotFound when it is older than KEPT_S, was not logged (FEED_SERVE_LOG_SHARE), was never answered with
        items, belongs to another tenant or to a user who was erased.
        """
        if not (request_id.isalnum() and request_id.isascii() and len(request_id) <= ID_CHARS):
            raise NotFound("logged page of the last 24 hours", request_id[:ID_CHARS])

        def wanted(serve: Serve) -> bool:
            return serve.request_id == request_id and tenant in (None, serve.tenant) and serve.at_s > now_s - KEPT_S

        for _ in range(2):  # once more: a page is logged just after its answer, so perhaps since the first look began
            found = await self._logged(wanted, f"request_id = '{request_id}'", since_s=now_s - KEPT_S)
            if found:
                return found[0]
        raise NotFound("logged page of the last 24 hours", request_id)

    async def chain(self, last: Serve) -> list[Serve]:
        """The pages of a chain up to and including `last`, in the order they were answered."""

        def wanted(serve: Serve) -> bool:
            same = (serve.tenant, serve.user_key, serve.chain) == (last.tenant, last.user_key, last.chain)
            return same and (serve.at_s, _begins(serve)) < (last.at_s, _begins(last))

        sql = f"chain = '{last.chain}' AND tenant = '{last.tenant}' AND user_key = '{last.user_key or keys.ANONYMOUS}'"
        found = await self._logged(wanted, sql, since_s=last.at_s - KEPT_S)
        return [*sorted(found, key=lambda one: (one.at_s, _begins(one))), last]

    async def _logged(self, wanted: Callable[[Serve], bool], sql: str, *, since_s: int) -> list[Serve]:
        """Each page that is wanted, once: one that is archived between the two looks is in both."""
        waiting = [one for one in await self._waiting() if wanted(one)]
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._archived, sql, since_s)
        try:
            archived = [one for one in await asyncio.wait_for(asked, self._limit_s) if wanted(one)]
        except TimeoutError as error:
            raise StoreUnavailable(f"archive: no answer within {self._limit_s:g} s") from error
        return list({one.request_id: one for one in [*waiting, *archived]}.values())

    async def _waiting(self) -> list[Serve]:
        """The pages in the stream."""
        after: dict[int, int] = {}
        found: list[Serve] = []
        while entries := await self._tail.read(after):
            for entry in entries:
                after[entry.shard] = max(entry.position, after.get(entry.shard, 0))
            found += [Serve.of(entry.serve) for entry in entries if entry.serve is not None]
        return found

    def _archived(self, sql: str, since_s: int) -> Sequence[Serve]:
        day = datetime.fromtimestamp(since_s, UTC).date().isoformat()
        columns = ", ".join(SERVE_FIELDS)
        rows = self._opened().query(
            f"SELECT {columns} FROM serves WHERE date >= '{day}' AND at_s > {since_s} AND {sql}"  # noqa: S608 - checked
        )
        return [_serve(row) for row in rows if row["chain"] is not None]  # None: an older version of this program

    def _opened(self) -> Archive:
        if self._archive is None:
            try:
                from retrieval.archive import Archive
            except ModuleNotFoundError as error:
                raise StoreUnavailable("archive: deltalake is not installed here") from error
            # So that a thread that is waited for no longer ends, and can be asked again.
            limit = f"{self._limit_s:g}s"
            self._archive = Archive(self._url, {"timeout": limit, "retry_timeout": limit, "max_retries": "1"})
        return self._archive


def _begins(serve: Serve) -> int:
    return serve.items[0].position


def _serve(row: dict[str, Any]) -> Serve:
    items = [tuple(item.values()) for item in row["items"]]
    return Serve.of([*(row[name] for name in SERVE_FIELDS[:-1]), items])
