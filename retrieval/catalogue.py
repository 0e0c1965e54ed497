"""The videos of every tenant, and the version by which others notice that one has changed.

A writer locks its tenant's row before it reads, and moves the tenant's version in the same transaction as the rows it
changes: versions are committed in order. A reader asks for the version first and for the rows after it; whatever is
committed in between is then read again next time, and nothing is ever missed.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Row, and_, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval.database import chunks, reading, storable, writing
from retrieval.errors import InvalidInput, NotFound, Problem
from retrieval.tables import TENANTS, VIDEOS
from retrieval.videos import (
    OPEN_END_S,
    OPEN_START_S,
    Rating,
    Video,
    VideoIn,
    embedded_text,
    text_hash,
    unit_vector,
    vector_hash,
)

Outcome = Literal["created", "updated", "unchanged"]
Removal = Literal["removed", "unchanged", "not_found"]
Listing = Literal["published", "draft", "removed", "quarantined"]

READ_ROWS: Final = 500
"""Videos read at once: with transcripts at their limit that is 60 MB."""
REASON_CHARS: Final = 500
STORED: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Upserted:
    """What a batch did, one outcome per video in its order; `version` is the tenant's version that holds it."""

    version: int
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class Removed:
    """What a removal did, one outcome per id in its order; `version` is the tenant's version that holds it."""

    version: int
    outcomes: list[Removal]


@dataclass(frozen=True, slots=True)
class Poison:
    """A text that cannot be embedded: the row's `item` and `text_hash`, and why (None: it can again)."""

    item: int
    text_hash: bytes
    reason: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from an earlier version, removed and quarantined videos too. Carry on from `version` next time.

    `items` (int64[n], sorted) is known at once; the rows are read chunk by chunk, as they are when their turn comes,
    so they may already be newer than `version`.
    """

    version: int
    items: NDArray[np.int64]
    _engine: AsyncEngine
    _tenant_id: str

    async def chunks(self) -> AsyncIterator[list[Video]]:
        """The videos of `items` in order, at most READ_ROWS at once. Raises StoreUnavailable."""
        statement = _select_videos(self._tenant_id).order_by(VIDEOS.c.item)
        for items in chunks(self.items.tolist(), READ_ROWS):
            async with reading(self._engine) as connection:
                rows = await connection.execute(statement.where(VIDEOS.c.item.in_(items)))
                videos = [_video(row) for row in rows]
            yield videos


class Catalogue:
    """The videos of all tenants. Every method raises StoreUnavailable; `tenant_id` unknown raises NotFound."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def upsert(self, tenant_id: str, videos: Sequence[VideoIn], now_s: int) -> Upserted:
        """Store a batch in one transaction: all of it or, on an error, nothing.

        A new id gets the tenant's next item number; a removed one comes back with its own. When nothing differs the
        version stays. A quarantine ends when the text differs. Ids must be distinct (InvalidInput).
        """
        contents = [_content(video) for video in videos]
        if len({content["id"] for content in contents}) < len(contents):
            raise InvalidInput([Problem("", "an id comes twice in one batch")])
        async with writing(self._engine) as connection:
            version, next_item = await _lock_tenant(connection, tenant_id)
            known = await _known(connection, tenant_id, [content["id"] for content in contents])
            batch = _sort_out(contents, known, tenant_id, next_item, version + 1, now_s)
            if batch.created or batch.updated:
                version += 1
                await _move_version(connection, tenant_id, version, next_item + len(batch.created))
            if batch.created:
                await connection.execute(insert(VIDEOS), batch.created)
            if batch.updated:
                await connection.execute(_UPDATE, batch.updated)
        return Upserted(version, batch.outcomes)

    async def remove(self, tenant_id: str, ids: Sequence[str], now_s: int) -> Removed:
        """Take videos down. Their rows stay, because users' journals refer to their item numbers."""
        async with writing(self._engine) as connection:
            version, next_item = await _lock_tenant(connection, tenant_id)
            known = await _known(connection, tenant_id, ids)
            outcomes: list[Removal] = [_removal(known.get(video_id)) for video_id in ids]
            gone = {row.item for row in known.values() if row.status != "removed"}
            if gone:
                version += 1
                await _move_version(connection, tenant_id, version, next_item)
                changes = {"status": "removed", "quarantine": None, "version": version, "updated_s": now_s}
                for items in chunks(sorted(gone)):
                    where = and_(VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.item.in_(items))
                    await connection.execute(update(VIDEOS).where(where).values(changes))
        return Removed(version, outcomes)

    async def get(self, tenant_id: str, video_id: str) -> Video:
        """One video, a removed one too. Raises NotFound."""
        if storable(video_id) and storable(tenant_id):
            async with reading(self._engine) as connection:
                found = await connection.execute(_select_videos(tenant_id).where(VIDEOS.c.id == video_id))
                row = found.one_or_none()
            if row is not None:
                return _video(row)
        raise NotFound("video", video_id)

    async def page(
        self, tenant_id: str, after_id: str = "", limit: int = 100, status: Listing | None = None
    ) -> list[Video]:
        """At most `limit` videos with ids after `after_id`, by id; `status` None lists all, removed ones too.

        Raises InvalidInput when `after_id` cannot be an id.
        """
        if not storable(after_id):
            raise InvalidInput([Problem("/after", "must be the id of a video")])
        statement = _select_videos(tenant_id).where(VIDEOS.c.id > after_id).order_by(VIDEOS.c.id).limit(limit)
        if status == "quarantined":
            statement = statement.where(VIDEOS.c.quarantine.is_not(None))
        elif status is not None:
            statement = statement.where(VIDEOS.c.status == status)
        async with reading(self._engine) as connection:
            return [_video(row) for row in await connection.execute(statement)]

    async def changes(self, tenant_id: str, since_version: int) -> Changes:
        """Everything changed after `since_version` (0: everything)."""
        current = select(TENANTS.c.version).where(TENANTS.c.id == tenant_id)
        async with reading(self._engine) as connection:
            version = (await connection.execute(current)).scalar_one_or_none() if storable(tenant_id) else None
        if version is None:
            raise NotFound("tenant", tenant_id)
        # A transaction of its own: inside the first one SQLite would still see the first one's moment.
        changed = select(VIDEOS.c.item).where(VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.version > since_version)
        async with reading(self._engine) as connection:
            items = (await connection.execute(changed)).scalars().all()
        return Changes(version, np.sort(np.array(items, np.int64)), self._engine, tenant_id)

    async def versions(self) -> dict[str, int]:
        """The version of every active tenant's catalogue; cheap enough to ask every second."""
        statement = select(TENANTS.c.id, TENANTS.c.version).where(TENANTS.c.status == "active")
        async with reading(self._engine) as connection:
            return dict((await connection.execute(statement)).all())

    async def counts(self, tenant_id: str) -> dict[Listing, int]:
        """How many videos each listing has; a quarantined one counts for its status too."""
        counts: dict[Listing, int] = dict.fromkeys(("published", "draft", "removed", "quarantined"), 0)
        of_tenant = VIDEOS.c.tenant_id == tenant_id
        by_status = select(VIDEOS.c.status, func.count()).where(of_tenant).group_by(VIDEOS.c.status)
        quarantined = select(func.count()).where(of_tenant, VIDEOS.c.quarantine.is_not(None))
        async with reading(self._engine) as connection:
            counts |= dict((await connection.execute(by_status)).all())
            counts["quarantined"] = (await connection.execute(quarantined)).scalar_one()
        return counts

    async def down_since(self, tenant_id: str, version: int) -> NDArray[np.uint32]:
        """Items that were removed or unpublished after `version`, sorted."""
        newer = (VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.version > version, VIDEOS.c.status != "published")
        async with reading(self._engine) as connection:
            items = (await connection.execute(select(VIDEOS.c.item).where(*newer))).scalars().all()
        return np.sort(np.array(items, np.uint32))

    async def waiting_since_s(self, tenant_id: str, version: int) -> int | None:
        """When the oldest change after `version` was stored, unix seconds; None when there is none."""
        newer = (VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.version > version)
        async with reading(self._engine) as connection:
            oldest: int | None = (await connection.execute(select(func.min(VIDEOS.c.updated_s)).where(*newer))).scalar()
        return oldest

    async def quarantine(self, tenant_id: str, poison: Iterable[Poison]) -> None:
        """Note which texts cannot be embedded.

        No version moves: the indexer's own note must not wake the indexer. A text that has been replaced since the
        indexer read it is not blamed for the old one.
        """
        rows = [
            {"at_tenant": tenant_id, "at_item": one.item, "at_hash": one.text_hash, "quarantine": _shorten(one.reason)}
            for one in poison
        ]
        if not rows:
            return
        where = and_(_AT_ITEM, VIDEOS.c.text_hash == bindparam("at_hash"))
        async with writing(self._engine) as connection:
            await connection.execute(update(VIDEOS).where(where).values(quarantine=bindparam("quarantine")), rows)


@dataclass(frozen=True, slots=True)
class _Batch:
    outcomes: list[Outcome]
    created: list[dict[str, Any]]
    updated: list[dict[str, Any]]


# What an update may change: everything but the row's identity.
_UPDATABLE = [column.name for column in VIDEOS.c if column.name not in ("tenant_id", "item", "id", "created_s")]
_AT_ITEM = and_(VIDEOS.c.tenant_id == bindparam("at_tenant"), VIDEOS.c.item == bindparam("at_item"))
_UPDATE = update(VIDEOS).where(_AT_ITEM).values({name: bindparam(name) for name in _UPDATABLE})
_KNOWN = [VIDEOS.c[name] for name in ("id", "item", "status", "fingerprint", "text_hash", "quarantine", "published_s")]
_VIDEO = [VIDEOS.c[name] for name in Video.__slots__]


def _select_videos(tenant_id: str) -> Any:
    return select(*_VIDEO).where(VIDEOS.c.tenant_id == tenant_id)


async def _lock_tenant(connection: AsyncConnection, tenant_id: str) -> tuple[int, int]:
    """The tenant's version and next item number, which nobody else can change until this transaction ends."""
    statement = select(TENANTS.c.version, TENANTS.c.next_item).where(TENANTS.c.id == tenant_id).with_for_update()
    row = (await connection.execute(statement)).one_or_none() if storable(tenant_id) else None
    if row is None:
        raise NotFound("tenant", tenant_id)
    return row.version, row.next_item


async def _move_version(connection: AsyncConnection, tenant_id: str, version: int, next_item: int) -> None:
    statement = update(TENANTS).where(TENANTS.c.id == tenant_id).values(version=version, next_item=next_item)
    await connection.execute(statement)


async def _known(connection: AsyncConnection, tenant_id: str, ids: Sequence[str]) -> dict[str, Row[Any]]:
    known: dict[str, Row[Any]] = {}
    for chunk in chunks([video_id for video_id in ids if storable(video_id)]):
        statement = select(*_KNOWN).where(VIDEOS.c.tenant_id == tenant_id, VIDEOS.c.id.in_(chunk))
        known |= {row.id: row for row in await connection.execute(statement)}
    return known


def _sort_out(
    contents: list[dict[str, Any]], known: dict[str, Row[Any]], tenant_id: str, next_item: int, version: int, now_s: int
) -> _Batch:
    """Which rows to insert, which to update, which to leave, with everything the statements need."""
    batch = _Batch([], [], [])
    for content in contents:
        row = known.get(content["id"])
        if row is None:
            content |= {"tenant_id": tenant_id, "item": next_item + len(batch.created), "quarantine": None}
            content |= {"version": version, "created_s": now_s, "updated_s": now_s}
            content["published_s"] = now_s if content["published_s"] is None else content["published_s"]
            batch.created.append(content)
            batch.outcomes.append("created")
        elif row.fingerprint == content["fingerprint"] and row.status != "removed":
            batch.outcomes.append("unchanged")
        else:
            content |= {"at_tenant": tenant_id, "at_item": row.item, "version": version, "updated_s": now_s}
            content["quarantine"] = row.quarantine if row.text_hash == content["text_hash"] else None
            content["published_s"] = row.published_s if content["published_s"] is None else content["published_s"]
            batch.updated.append(content)
            batch.outcomes.append("updated")
    return batch


def _removal(row: Row[Any] | None) -> Removal:
    if row is None:
        return "not_found"
    return "unchanged" if row.status == "removed" else "removed"


def _content(video: VideoIn) -> dict[str, Any]:
    """The columns that the CMS decides about. `published_s` is still None when the CMS left it out."""
    content = video.model_dump(exclude={"vector"})
    vector = None if video.vector is None else unit_vector(video.vector)
    content["vector"] = None if vector is None else vector.astype(STORED).tobytes()
    content["text_hash"] = text_hash(embedded_text(video)) if vector is None else vector_hash(vector)
    content["available_from_s"] = OPEN_START_S if video.available_from_s is None else video.available_from_s
    content["available_until_s"] = OPEN_END_S if video.available_until_s is None else video.available_until_s
    known_form = orjson.dumps(content, option=orjson.OPT_SORT_KEYS, default=bytes.hex)
    content["fingerprint"] = blake2b(known_form, digest_size=16).digest()
    return content


def _video(row: Row[Any]) -> Video:
    fields: dict[str, Any] = dict(row._mapping)
    for name in ("tags", "categories", "playlists", "countries"):
        fields[name] = tuple(fields[name])
    fields["ratings"] = tuple(Rating.model_construct(**rating) for rating in fields["ratings"])
    fields["vector"] = None if row.vector is None else np.frombuffer(row.vector, STORED)
    return Video(**fields)


def _shorten(reason: str | None) -> str | None:
    if reason is None:
        return None
    return "".join(char if char.isprintable() else " " for char in reason[:REASON_CHARS])
