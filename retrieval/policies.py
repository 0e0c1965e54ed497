"""Immutable, numbered policy versions, per tenant and one global; the highest number is live."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import bump_config, reading, writing
from retrieval.errors import InvalidInput, NotFound, Problem, VersionMismatch
from retrieval.tables import GLOBAL, POLICIES, TENANTS

TEXT_CHARS = 500


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One published version. `tenant_id` is GLOBAL ("") for the policy every tenant inherits."""

    tenant_id: str
    version: int
    body: dict[str, Any]
    author: str
    reason: str
    published_s: int


class Policies:
    """Publish, and read what is live. Nothing is ever changed or deleted: rolling back publishes an old body anew."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def publish(
        self, tenant_id: str | None, body: Mapping[str, Any], author: str, reason: str, if_version: int, now_s: int
    ) -> int:
        """Make `body` the live policy and return its version; moves the config version too.

        `tenant_id` None is the global policy. `if_version` is the version the author started from, 0 for none.
        The caller has validated the body (`ranking.policy`): here it only has to be JSON.
        Raises VersionMismatch when somebody else published first, NotFound, InvalidInput.
        """
        _check(author, reason)
        async with writing(self._engine) as connection:
            await bump_config(connection)  # also the lock under which versions are given out
            if tenant_id is not None:
                known = await connection.execute(select(TENANTS.c.id).where(TENANTS.c.id == tenant_id))
                if known.one_or_none() is None:
                    raise NotFound("tenant", tenant_id)
            row: dict[str, Any] = {"tenant_id": GLOBAL if tenant_id is None else tenant_id}
            newest = select(func.max(POLICIES.c.version)).where(POLICIES.c.tenant_id == row["tenant_id"])
            current = (await connection.execute(newest)).scalar() or 0
            if current != if_version:
                raise VersionMismatch(if_version, current)
            row |= {"version": current + 1, "body": dict(body), "author": author, "reason": reason}
            await connection.execute(insert_into(POLICIES).values(**row, published_s=now_s))
        return current + 1

    async def live(self) -> dict[str, PolicyVersion]:
        """The live version of every tenant that has one, and of GLOBAL."""
        newest = select(POLICIES.c.tenant_id, func.max(POLICIES.c.version)).group_by(POLICIES.c.tenant_id)
        statement = select(POLICIES).where(tuple_(POLICIES.c.tenant_id, POLICIES.c.version).in_(newest))
        async with reading(self._engine) as connection:
            return {row.tenant_id: PolicyVersion(*row) for row in await connection.execute(statement)}

    async def history(self, tenant_id: str | None, limit: int = 100) -> list[PolicyVersion]:
        """The last `limit` versions of a tenant (None: global), newest first; empty when it has none."""
        statement = select(POLICIES).where(POLICIES.c.tenant_id == (GLOBAL if tenant_id is None else tenant_id))
        async with reading(self._engine) as connection:
            rows = await connection.execute(statement.order_by(POLICIES.c.version.desc()).limit(limit))
            return [PolicyVersion(*row) for row in rows]


def _check(author: str, reason: str) -> None:
    problems = [
        Problem(pointer, f"1 to {TEXT_CHARS} printable characters")
        for pointer, value in (("/author", author), ("/reason", reason))
        if not (1 <= len(value) <= TEXT_CHARS and value.isprintable())
    ]
    if problems:
        raise InvalidInput(problems)
