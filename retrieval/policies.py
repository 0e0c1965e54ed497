"""Immutable, numbered policy versions, per tenant and one global; the highest number is live. Beside them one draft."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit
from retrieval.database import bump_config, insert, reading, storable, writing
from retrieval.errors import InvalidInput, NotFound, Problem, VersionMismatch
from retrieval.tables import CONFIG, DRAFTS, GLOBAL, POLICIES, TENANTS

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


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy that is being edited. `version` is the unix millisecond of the last save, or later."""

    tenant_id: str
    version: int
    body: dict[str, Any]
    author: str
    updated_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What an author starts from: the live version (None: never published) and the draft (None: nothing begun)."""

    live: PolicyVersion | None
    draft: Draft | None

    @property
    def versions(self) -> tuple[int, int]:
        """(live, draft), 0 for none: together they change with every save, publish and rollback, and never recur."""
        return self.live.version if self.live else 0, self.draft.version if self.draft else 0


class Policies:
    """Publish, and read what is live. Nothing is ever changed or deleted: rolling back publishes an old body anew."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def publish(
        self,
        tenant_id: str | None,
        body: Mapping[str, Any],
        author: str,
        reason: str,
        if_version: int,
        now_s: int,
        *,
        if_draft: int | None = None,
        action: str = "policy.publish",
    ) -> int:
        """Make `body` the live policy, drop the draft and return the version; moves the config version too.

        `tenant_id` None is the global policy. `if_version` is the version the author started from, 0 for none;
        `if_draft` the draft's (None: whatever it is). The caller has validated the body (`ranking.policy`): here it
        only has to be JSON. Raises VersionMismatch when somebody else was first, NotFound, InvalidInput.
        """
        _check(author, reason)
        scope = GLOBAL if tenant_id is None else tenant_id
        async with writing(self._engine) as connection:
            await bump_config(connection)  # also the lock under which versions are given out
            standing = await _standing(connection, scope)
            _compare(standing, if_version, if_draft)
            version = standing.versions[0] + 1
            row = {"tenant_id": scope, "version": version, "body": dict(body), "author": author, "reason": reason}
            await connection.execute(insert_into(POLICIES).values(**row, published_s=now_s))
            await connection.execute(delete(DRAFTS).where(DRAFTS.c.tenant_id == scope))
            before = {"version": standing.live.version, "body": standing.live.body} if standing.live else None
            after = {"version": version, "body": dict(body)}
            note: dict[str, Any] = {"who": author, "reason": reason, "now_s": now_s, "before": before, "after": after}
            await audit.record(connection, action, tenant_id, **note)
        return version

    async def roll_back(
        self, tenant_id: str | None, to_version: int, author: str, reason: str, if_version: int, now_s: int
    ) -> int:
        """Publish an old version as a new one, and return its number. Raises like `publish`."""
        old = await self.get(tenant_id, to_version)
        return await self.publish(
            tenant_id, old.body, author, reason, if_version, now_s, action=f"policy.rollback.{to_version}"
        )

    async def save_draft(
        self, tenant_id: str | None, body: Mapping[str, Any], author: str, *, if_version: int, if_draft: int, now_s: int
    ) -> Draft:
        """Keep what is being edited, instead of what was kept before. Moves no config version: nobody serves it.

        Raises VersionMismatch when somebody else saved or published meanwhile, NotFound, InvalidInput.
        """
        _check(author, "draft")
        scope = GLOBAL if tenant_id is None else tenant_id
        async with writing(self._engine) as connection:
            await connection.execute(select(CONFIG.c.version).with_for_update())  # the lock of `publish`
            _compare(await _standing(connection, scope), if_version, if_draft)
            draft = Draft(scope, max(now_s * 1000, if_draft + 1), dict(body), author, now_s)
            row = {name: getattr(draft, name) for name in Draft.__slots__}
            statement = insert(connection, DRAFTS).values(**row)
            newer = {name: statement.excluded[name] for name in ("version", "body", "author", "updated_s")}
            await connection.execute(statement.on_conflict_do_update(index_elements=[DRAFTS.c.tenant_id], set_=newer))
        return draft

    async def standing(self, tenant_id: str | None) -> Standing:
        """The live version and the draft of a tenant (None: global). Raises NotFound."""
        async with reading(self._engine) as connection:
            return await _standing(connection, GLOBAL if tenant_id is None else tenant_id)

    async def get(self, tenant_id: str | None, version: int) -> PolicyVersion:
        """One published version. Raises NotFound."""
        where = POLICIES.c.tenant_id == (GLOBAL if tenant_id is None else tenant_id), POLICIES.c.version == version
        async with reading(self._engine) as connection:
            row = (await connection.execute(select(POLICIES).where(*where))).one_or_none()
        if row is None:
            raise NotFound("policy version", str(version))
        return PolicyVersion(*row)

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


async def _standing(connection: AsyncConnection, scope: str) -> Standing:
    if scope != GLOBAL:
        here = select(TENANTS.c.id).where(TENANTS.c.id == scope)
        if not storable(scope) or (await connection.execute(here)).first() is None:
            raise NotFound("tenant", scope)
    newest = select(POLICIES).where(POLICIES.c.tenant_id == scope).order_by(POLICIES.c.version.desc()).limit(1)
    live = (await connection.execute(newest)).one_or_none()
    draft = (await connection.execute(select(DRAFTS).where(DRAFTS.c.tenant_id == scope))).one_or_none()
    return Standing(PolicyVersion(*live) if live else None, Draft(*draft) if draft else None)


def _compare(standing: Standing, if_version: int, if_draft: int | None) -> None:
    live, draft = standing.versions
    if live != if_version:
        raise VersionMismatch(if_version, live)
    if if_draft is not None and draft != if_draft:
        raise VersionMismatch(if_draft, draft)


def _check(author: str, reason: str) -> None:
    problems = [
        Problem(pointer, f"1 to {TEXT_CHARS} printable characters")
        for pointer, value in (("/author", author), ("/reason", reason))
        if not (1 <= len(value) <= TEXT_CHARS and value.isprintable())
    ]
    if problems:
        raise InvalidInput(problems)
