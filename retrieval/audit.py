"""Who changed what, from what, to what, and why. Append-only: the database itself refuses to change a row.

An entry is written in the transaction of the change it is about, so there is neither a change without its entry nor
an entry without its change.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval.database import reading
from retrieval.tables import AUDIT, GLOBAL

MAX_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `tenant_id` is GLOBAL for what is no tenant's; `before` and `after` hold what differs."""

    id: int
    at_s: int
    who: str
    action: str
    tenant_id: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str


async def record(
    connection: AsyncConnection,
    action: str,
    tenant_id: str | None,
    *,
    who: str,
    reason: str,
    now_s: int,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry to the running transaction. `tenant_id` None = no tenant's."""
    entry = {"at_s": now_s, "who": who, "action": action, "tenant_id": tenant_id or GLOBAL, "reason": reason}
    await connection.execute(insert(AUDIT).values(**entry, before=before, after=after))


class Audit:
    """Reads the entries."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(
        self, tenant_id: str | None = None, *, before_id: int | None = None, limit: int = 100
    ) -> list[Entry]:
        """At most `limit` (<= MAX_PAGE) entries, newest first, older than entry `before_id`; None = of everybody.

        Raises StoreUnavailable.
        """
        statement = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(min(limit, MAX_PAGE))
        if tenant_id is not None:
            statement = statement.where(AUDIT.c.tenant_id == tenant_id)
        if before_id is not None:
            statement = statement.where(AUDIT.c.id < before_id)
        async with reading(self._engine) as connection:
            return [Entry(*row) for row in await connection.execute(statement)]
