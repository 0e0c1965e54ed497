"""What a CMS delivers by webhook: the secrets it signs with, every delivery as it came, and how far each video is.

A delivery is stored first and applied later, at most once, whatever order deliveries arrive in: of each video the
change that the CMS dates last wins, and `cms_versions` remembers its date also after the delivery itself is gone.
"""

import base64
import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit
from retrieval.database import chunks, reading, storable, writing
from retrieval.database import insert as upsert
from retrieval.errors import NotFound
from retrieval.tables import CMS_VERSIONS, DELIVERIES, TENANTS, WEBHOOK_SECRETS

SECRET_BYTES: Final = 32
PREFIX: Final = "whsec_"
KEPT_S: Final = 7 * 86_400
"""Settled deliveries are kept so long: to be looked at, and to know a repeated one again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it came. `settled_s` None: still to be applied."""

    tenant_id: str
    id: str
    received_s: int
    body: bytes = field(repr=False)
    settled_s: int | None
    outcome: str


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A signing secret just made; `clear` is what the CMS is given, and is not shown again."""

    id: str
    clear: str = field(repr=False)


class Deliveries:
    """Webhook deliveries of all tenants. Every method raises StoreUnavailable."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def new_secret(self, tenant_id: str, now_s: int, *, overlap_s: int, who: str) -> NewSecret:
        """A new secret; the ones before it end after `overlap_s`. Raises NotFound."""
        secret = randomness.token_bytes(SECRET_BYTES)
        new = NewSecret(f"whs_{randomness.token_hex(8)}", PREFIX + base64.b64encode(secret).decode())
        row = {"id": new.id, "tenant_id": tenant_id, "secret": secret, "created_s": now_s, "expires_s": None}
        async with writing(self._engine) as connection:
            await _require(connection, tenant_id)
            older = and_(WEBHOOK_SECRETS.c.tenant_id == tenant_id, _good_at(now_s + overlap_s))
            await connection.execute(update(WEBHOOK_SECRETS).where(older).values(expires_s=now_s + overlap_s))
            await connection.execute(insert(WEBHOOK_SECRETS).values(**row))
            note: dict[str, Any] = {"who": who, "reason": "", "now_s": now_s, "after": {"secret": new.id}}
            await audit.record(connection, "webhook.secret", tenant_id, **note)
        return new

    async def secrets(self, tenant_id: str, now_s: int) -> list[bytes]:
        """The secrets a delivery of this tenant may be signed with now; none for an unknown tenant."""
        if not storable(tenant_id):
            return []
        statement = select(WEBHOOK_SECRETS.c.secret).where(WEBHOOK_SECRETS.c.tenant_id == tenant_id, _good_at(now_s))
        async with reading(self._engine) as connection:
            return list((await connection.execute(statement)).scalars())

    async def store(self, tenant_id: str, delivery_id: str, body: bytes, now_s: int) -> bool:
        """Keep a delivery; False if it was here before. When this returns it is durable."""
        row = {"tenant_id": tenant_id, "id": delivery_id, "received_s": now_s, "body": body, "outcome": ""}
        async with writing(self._engine) as connection:
            statement = upsert(connection, DELIVERIES).values(**row, settled_s=None).on_conflict_do_nothing()
            return (await connection.execute(statement)).rowcount == 1

    async def any_waiting(self) -> bool:
        """Whether there is something to apply; cheap enough to ask every second."""
        statement = select(DELIVERIES.c.id).where(DELIVERIES.c.settled_s.is_(None)).limit(1)
        async with reading(self._engine) as connection:
            return (await connection.execute(statement)).first() is not None

    async def waiting(self, limit: int) -> list[Delivery]:
        """At most `limit` deliveries to apply, in the order they came."""
        statement = select(*_COLUMNS).where(DELIVERIES.c.settled_s.is_(None))
        async with reading(self._engine) as connection:
            rows = await connection.execute(statement.order_by(DELIVERIES.c.received_s, DELIVERIES.c.id).limit(limit))
            return [Delivery(*row) for row in rows]

    async def recent(self, tenant_id: str, limit: int) -> list[Delivery]:
        """The last deliveries of a tenant, newest first."""
        statement = select(*_COLUMNS).where(DELIVERIES.c.tenant_id == tenant_id)
        newest = statement.order_by(DELIVERIES.c.received_s.desc(), DELIVERIES.c.id).limit(limit)
        async with reading(self._engine) as connection:
            return [Delivery(*row) for row in await connection.execute(newest)]

    async def counts(self) -> dict[str, int]:
        """How many deliveries of each tenant still wait."""
        statement = select(DELIVERIES.c.tenant_id, func.count()).where(DELIVERIES.c.settled_s.is_(None))
        async with reading(self._engine) as connection:
            return dict((await connection.execute(statement.group_by(DELIVERIES.c.tenant_id))).all())

    async def changed_us(self, tenant_id: str, video_ids: Sequence[str]) -> dict[str, int]:
        """When the CMS last changed each video, unix microseconds, as far as any delivery of it was applied."""
        found: dict[str, int] = {}
        columns = CMS_VERSIONS.c.video_id, CMS_VERSIONS.c.changed_us
        async with reading(self._engine) as connection:
            for some in chunks(list(video_ids)):
                where = CMS_VERSIONS.c.tenant_id == tenant_id, CMS_VERSIONS.c.video_id.in_(some)
                found |= dict((await connection.execute(select(*columns).where(*where))).all())
        return found

    async def settle(
        self, tenant_id: str, outcomes: Mapping[str, str], changed_us: Mapping[str, int], now_s: int
    ) -> None:
        """Note what became of deliveries (id -> outcome) and how far videos are now (id -> unix microseconds)."""
        where = and_(DELIVERIES.c.tenant_id == tenant_id, DELIVERIES.c.id == bindparam("of"))
        settled = update(DELIVERIES).where(where).values(settled_s=now_s, outcome=bindparam("said"))
        async with writing(self._engine) as connection:
            if outcomes:
                await connection.execute(settled, [{"of": one, "said": said} for one, said in outcomes.items()])
            if changed_us:
                statement = upsert(connection, CMS_VERSIONS)
                newer = {"changed_us": statement.excluded.changed_us}
                key = [CMS_VERSIONS.c.tenant_id, CMS_VERSIONS.c.video_id]
                rows = [{"tenant_id": tenant_id, "video_id": one, "changed_us": us} for one, us in changed_us.items()]
                await connection.execute(statement.on_conflict_do_update(index_elements=key, set_=newer), rows)

    async def forget(self, now_s: int) -> int:
        """Delete deliveries settled longer than KEPT_S ago; how many."""
        old = DELIVERIES.c.settled_s < now_s - KEPT_S
        async with writing(self._engine) as connection:
            return int((await connection.execute(delete(DELIVERIES).where(old))).rowcount)


_COLUMNS = [DELIVERIES.c[name] for name in Delivery.__slots__]


def _good_at(now_s: int) -> Any:
    return or_(WEBHOOK_SECRETS.c.expires_s.is_(None), WEBHOOK_SECRETS.c.expires_s > now_s)


async def _require(connection: AsyncConnection, tenant_id: str) -> None:
    here = select(TENANTS.c.id).where(TENANTS.c.id == tenant_id)
    if not storable(tenant_id) or (await connection.execute(here)).first() is None:
        raise NotFound("tenant", tenant_id)
