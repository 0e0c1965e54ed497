"""Where each tenant's CMS lists all its videos, and how the last look at that listing ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import audit
from retrieval.database import insert, reading, storable, writing
from retrieval.errors import InvalidInput, NotFound, Problem
from retrieval.tables import CMS_LISTINGS, TENANTS

URL_CHARS: Final = 2000
EVERY_S: Final = (10, 86_400)
DEFAULT_EVERY_S: Final = 300
DEFAULT_GONE_PERCENT: Final = 20
OUTCOME_CHARS: Final = 1000


@dataclass(frozen=True, slots=True)
class CmsListing:
    """A listing: JSON Lines, a video a line. `every_s` is how often it is looked at; a listing that would take down
    more than `most_gone_percent` of the videos takes down none.

    etag: of what was taken over last, "" for nothing. tried_s, done_s: the last look, and the last one that ended
    well; 0 for never. outcome: how the last look ended.
    """

    tenant_id: str
    url: str
    every_s: int = DEFAULT_EVERY_S
    most_gone_percent: int = DEFAULT_GONE_PERCENT
    etag: str = ""
    tried_s: int = 0
    done_s: int = 0
    outcome: str = ""


class CmsListings:
    """The listings of all tenants. Every method raises StoreUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def all(self) -> list[CmsListing]:
        """Those of active tenants, by tenant."""
        statement = select(*_COLUMNS).join(TENANTS, TENANTS.c.id == CMS_LISTINGS.c.tenant_id)
        active = statement.where(TENANTS.c.status == "active").order_by(CMS_LISTINGS.c.tenant_id)
        async with reading(self._engine) as connection:
            return [CmsListing(*row) for row in await connection.execute(active)]

    async def get(self, tenant_id: str) -> CmsListing:
        """One tenant's. Raises NotFound."""
        if storable(tenant_id):
            statement = select(*_COLUMNS).where(CMS_LISTINGS.c.tenant_id == tenant_id)
            async with reading(self._engine) as connection:
                row = (await connection.execute(statement)).one_or_none()
            if row is not None:
                return CmsListing(*row)
        raise NotFound("listing", tenant_id)

    async def set(self, listing: CmsListing, now_s: int, *, who: str, reason: str = "") -> CmsListing:
        """Look at this address from now on, beginning at once. Raises InvalidInput, NotFound (no such tenant)."""
        _check(listing)
        new = CmsListing(listing.tenant_id, listing.url, listing.every_s, listing.most_gone_percent)
        row = {name: getattr(new, name) for name in CmsListing.__slots__}
        async with writing(self._engine) as connection:
            here = select(TENANTS.c.id).where(TENANTS.c.id == listing.tenant_id)
            if not storable(listing.tenant_id) or (await connection.execute(here)).first() is None:
                raise NotFound("tenant", listing.tenant_id)
            statement = insert(connection, CMS_LISTINGS).values(row)
            key = [CMS_LISTINGS.c.tenant_id]
            await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=row))
            # Without what comes after the path: that may be a secret, and the audit is for ever.
            after = {"url": shown(new.url), "every_s": new.every_s, "most_gone_percent": new.most_gone_percent}
            note: dict[str, Any] = {"who": who, "reason": reason, "now_s": now_s, "after": after}
            await audit.record(connection, "listing.set", new.tenant_id, **note)
        return new

    async def remove(self, tenant_id: str, now_s: int, *, who: str, reason: str = "") -> None:
        """Look no more; what was taken over stays. Raises NotFound."""
        async with writing(self._engine) as connection:
            gone = delete(CMS_LISTINGS).where(CMS_LISTINGS.c.tenant_id == tenant_id)
            if not storable(tenant_id) or (await connection.execute(gone)).rowcount == 0:
                raise NotFound("listing", tenant_id)
            note: dict[str, Any] = {"who": who, "reason": reason, "now_s": now_s}
            await audit.record(connection, "listing.remove", tenant_id, **note)

    async def note(self, listing: CmsListing, outcome: str, now_s: int, *, etag: str | None = None) -> None:
        """How a look ended; `etag` None: not well. Nothing when the address is another one by now."""
        values: dict[str, Any] = {"tried_s": now_s, "outcome": outcome[:OUTCOME_CHARS]}
        if etag is not None:
            values |= {"done_s": now_s, "etag": etag}
        where = CMS_LISTINGS.c.tenant_id == listing.tenant_id, CMS_LISTINGS.c.url == listing.url
        async with writing(self._engine) as connection:
            await connection.execute(update(CMS_LISTINGS).where(*where).values(**values))


_COLUMNS = [CMS_LISTINGS.c[name] for name in CmsListing.__slots__]


def shown(url: str) -> str:
    """An address as it may be written into a log: without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}" + ("?…" if parts.query else "")


def _check(listing: CmsListing) -> None:
    problems = []
    try:
        parts = urlsplit(listing.url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or len(listing.url) > URL_CHARS or not listing.url.isascii() or not listing.url.isprintable():
        problems.append(
            Problem("/url", f"must be an address like https://cms.example/videos.jsonl, {URL_CHARS} characters")
        )
    least, most = EVERY_S
    if not least <= listing.every_s <= most:
        problems.append(Problem("/every_s", f"must be from {least} to {most}"))
    if not 0 <= listing.most_gone_percent <= 100:
        problems.append(Problem("/most_gone_percent", "must be from 0 to 100"))
    if problems:
        raise InvalidInput(problems)
