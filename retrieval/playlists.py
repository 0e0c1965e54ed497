"""Playlists: named sets of a tenant's videos, as targets of rules.

Which videos are in one stands with the videos themselves (`Video.playlists`), because the CMS may say it there too;
whoever says it last is right. What is kept here is that a playlist exists, and its title.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson
from sqlalchemy import Row, Select, Text, bindparam, cast, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit
from retrieval.database import chunks, insert, reading, storable, writing
from retrieval.errors import InvalidInput, NotFound, Problem, VersionMismatch
from retrieval.tables import PLAYLISTS, TENANTS, VIDEOS

MAX_VIDEOS: Final = 10_000
MAX_PER_VIDEO: Final = 50
TEXT_CHARS: Final = 200
MAX_PROBLEMS: Final = 50


@dataclass(frozen=True, slots=True)
class Playlist:
    """One playlist. `version` moves with every change made here, 0 = only videos name it. `videos`: ids, sorted."""

    id: str
    title: str
    version: int
    updated_s: int
    videos: tuple[str, ...]


class Playlists:
    """The playlists of all tenants. Every method raises StoreUnavailable; a `tenant_id` unknown raises NotFound."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def ids(self, tenant_id: str) -> frozenset[str]:
        """The playlists that were made here; videos may name others."""
        async with reading(self._engine) as connection:
            made = await connection.execute(select(PLAYLISTS.c.id).where(PLAYLISTS.c.tenant_id == tenant_id))
            return frozenset(made.scalars())

    async def list(self, tenant_id: str) -> list[dict[str, Any]]:
        """Every playlist with its title and how many videos are in it, by id."""
        async with reading(self._engine) as connection:
            rows = (await connection.execute(select(PLAYLISTS).where(PLAYLISTS.c.tenant_id == tenant_id))).all()
            named = (await connection.execute(_in_any(tenant_id))).all()
        counts: dict[str, int] = dict.fromkeys((row.id for row in rows), 0)
        for row in named:
            for name in row.playlists:
                counts[name] = counts.get(name, 0) + 1
        made = {row.id: {"title": row.title, "version": row.version} for row in rows}
        return [
            {"id": name, "title": name, "version": 0, "videos": count} | made.get(name, {})
            for name, count in sorted(counts.items())
        ]

    async def get(self, tenant_id: str, playlist_id: str) -> Playlist:
        """One playlist with its videos. Raises NotFound."""
        if not storable(playlist_id):
            raise NotFound("playlist", playlist_id)
        async with reading(self._engine) as connection:
            return await _get(connection, tenant_id, playlist_id)

    async def put(
        self,
        tenant_id: str,
        playlist_id: str,
        title: str,
        videos: Sequence[str],
        *,
        if_version: int,
        who: str,
        now_s: int,
    ) -> Playlist:
        """Make a playlist or replace it: its title, and exactly these videos. One transaction.

        Raises VersionMismatch (`if_version` 0 = it is new), InvalidInput naming every id that is no video here.
        """
        _check(playlist_id, title, videos)
        async with writing(self._engine) as connection:
            version = await _lock_tenant(connection, tenant_id)
            before = await _find(connection, tenant_id, playlist_id)
            if (before.version if before else 0) != if_version:
                raise VersionMismatch(if_version, before.version if before else 0)
            await _move(connection, tenant_id, playlist_id, set(videos), version + 1, now_s)
            row = {"title": title, "version": if_version + 1, "updated_s": now_s}
            statement = insert(connection, PLAYLISTS).values(tenant_id=tenant_id, id=playlist_id, **row)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=[PLAYLISTS.c.tenant_id, PLAYLISTS.c.id], set_=row)
            )
            old = {"playlist": playlist_id, "title": before.title} if before else None
            new = {"playlist": playlist_id, "title": title, "videos": len(set(videos))}
            note: dict[str, Any] = {"who": who, "reason": "", "now_s": now_s, "before": old, "after": new}
            await audit.record(connection, "playlist.put", tenant_id, **note)
            return await _get(connection, tenant_id, playlist_id)

    async def remove(self, tenant_id: str, playlist_id: str, *, if_version: int, who: str, now_s: int) -> None:
        """Take a playlist away, from its videos too. Raises NotFound, VersionMismatch."""
        async with writing(self._engine) as connection:
            version = await _lock_tenant(connection, tenant_id)
            before = await _get(connection, tenant_id, playlist_id)
            if before.version != if_version:
                raise VersionMismatch(if_version, before.version)
            await _move(connection, tenant_id, playlist_id, set(), version + 1, now_s)
            where = PLAYLISTS.c.tenant_id == tenant_id, PLAYLISTS.c.id == playlist_id
            await connection.execute(delete(PLAYLISTS).where(*where))
            old = {"playlist": playlist_id, "title": before.title, "videos": len(before.videos)}
            note: dict[str, Any] = {"who": who, "reason": "", "now_s": now_s, "before": old}
            await audit.record(connection, "playlist.remove", tenant_id, **note)


_MEMBERS = [VIDEOS.c[name] for name in ("id", "item", "playlists", "fingerprint")]


def _in_any(tenant_id: str) -> Select[Any]:
    """The videos that are in any playlist. The databases share no way to ask a JSON list for one."""
    in_any = cast(VIDEOS.c.playlists, Text) != "[]"
    return select(*_MEMBERS).where(VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.status != "removed", in_any)


async def _find(connection: AsyncConnection, tenant_id: str, playlist_id: str) -> Row[Any] | None:
    where = PLAYLISTS.c.tenant_id == tenant_id, PLAYLISTS.c.id == playlist_id
    return (await connection.execute(select(PLAYLISTS).where(*where))).one_or_none()


async def _get(connection: AsyncConnection, tenant_id: str, playlist_id: str) -> Playlist:
    row = await _find(connection, tenant_id, playlist_id)
    rows = await connection.execute(_in_any(tenant_id))
    videos = tuple(sorted(video.id for video in rows if playlist_id in video.playlists))
    if row is None and not videos:
        raise NotFound("playlist", playlist_id)
    if row is None:
        return Playlist(playlist_id, playlist_id, 0, 0, videos)
    return Playlist(row.id, row.title, row.version, row.updated_s, videos)


async def _lock_tenant(connection: AsyncConnection, tenant_id: str) -> int:
    """The catalogue's version, which nobody else can move until this transaction ends."""
    statement = select(TENANTS.c.version).where(TENANTS.c.id == tenant_id).with_for_update()
    version = (await connection.execute(statement)).scalar_one_or_none()
    if version is None:
        raise NotFound("tenant", tenant_id)
    return int(version)


async def _move(
    connection: AsyncConnection, tenant_id: str, playlist_id: str, wanted: set[str], version: int, now_s: int
) -> None:
    """Put exactly the wanted videos into the playlist; what changes gets the catalogue's new `version`."""
    videos = {row.id: row for row in await connection.execute(_in_any(tenant_id))}
    for some in chunks(sorted(wanted - set(videos))):
        found = select(*_MEMBERS).where(VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.id.in_(some))
        videos |= {row.id: row for row in await connection.execute(found.where(VIDEOS.c.status != "removed"))}
    problems = [Problem("/videos", f"{one[:80]!r} is no video here") for one in sorted(wanted - set(videos))]
    moved = [row for row in videos.values() if (row.id in wanted) != (playlist_id in row.playlists)]
    full = [row.id for row in moved if row.id in wanted and len(row.playlists) >= MAX_PER_VIDEO]
    problems += [Problem("/videos", f"{one[:80]!r} is in {MAX_PER_VIDEO} playlists already") for one in full]
    if problems:
        raise InvalidInput(problems[:MAX_PROBLEMS])
    if moved:
        await connection.execute(update(TENANTS).where(TENANTS.c.id == tenant_id).values(version=version))
        where = VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.item == bindparam("at_item")
        changes: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("playlists", "fingerprint")}
        statement = update(VIDEOS).where(*where).values(**changes, version=version, updated_s=now_s)
        await connection.execute(statement, [_moved(row, playlist_id) for row in moved])


def _moved(row: Row[Any], playlist_id: str) -> dict[str, Any]:
    there = playlist_id in row.playlists
    playlists = [one for one in row.playlists if one != playlist_id] + ([] if there else [playlist_id])
    # Not what the CMS sent any more: the same video sent again must count as a change.
    fingerprint = blake2b(row.fingerprint + orjson.dumps(playlists), digest_size=16).digest()
    return {"at_item": row.item, "new_playlists": playlists, "new_fingerprint": fingerprint}


def _check(playlist_id: str, title: str, videos: Sequence[str]) -> None:
    problems = [
        Problem(pointer, f"1 to {TEXT_CHARS} printable characters")
        for pointer, text in (("/id", playlist_id), ("/title", title))
        if not (1 <= len(text) <= TEXT_CHARS and text.isprintable() and text == text.strip())
    ]
    if len(videos) > MAX_VIDEOS:
        problems.append(Problem("/videos", f"has {len(videos)} entries; {MAX_VIDEOS} are allowed"))
    if not all(map(storable, videos)):
        problems.append(Problem("/videos", "must be the ids of videos"))
    if problems:
        raise InvalidInput(problems)
