"""Host apps and the keys they call with. A key is shown once; what is kept is its hash."""

import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Literal, get_args

import xxhash
from sqlalchemy import Row, exc, select, update
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit
from retrieval.database import bump_config, reading, storable, writing
from retrieval.errors import AlreadyExists, InvalidInput, NotFound, Problem, VersionMismatch
from retrieval.flag_stores import bump_flags, insert_flag
from retrieval.flags import Flag
from retrieval.tables import API_KEYS, TENANTS

TenantStatus = Literal["active", "suspended"]
Scope = Literal["pk", "sk", "adm"]
"""pk: publishable, in apps. sk: secret, server to server. adm: the operator's, of no tenant."""

SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
EVERYWHERE: Final = "global"
"""What an operator calls the scope of all tenants; so no tenant may have this id."""
NAME_CHARS: Final = 200
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Tenant:
    """One host app. `pepper` is 32 secret random bytes; `version` moves with every change of its videos."""

    id: str
    name: str
    status: TenantStatus
    pepper: bytes = field(repr=False)
    version: int
    created_s: int

    @property
    def tag(self) -> int:
        """Names the state that an operator may change; the same number for the same state."""
        return _tag(self.name, self.status)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; `clear` exists here and nowhere else, so it stays out of logs."""

    id: str
    clear: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is kept. `tenant_id` is None for `adm`; `sha256` is `hash_key` of its clear text."""

    id: str
    sha256: bytes = field(repr=False)
    tenant_id: str | None
    scope: Scope
    label: str
    created_s: int
    expires_s: int | None
    revoked_s: int | None

    def valid_at(self, now_s: int) -> bool:
        """Whether the key may be used: not revoked, and not yet at its expiry."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)

    @property
    def tag(self) -> int:
        """Names the state that an operator may change; the same number for the same state."""
        return _tag(self.label, self.expires_s, self.revoked_s)


def _tag(*state: object) -> int:
    return xxhash.xxh32_intdigest(repr(state).encode())


def hash_key(clear: str) -> bytes:
    """What is kept of a key: SHA-256, 32 bytes. A slow hash would add nothing to 256 random bits. Never raises."""
    return sha256(clear.encode("utf-8", "surrogatepass")).digest()


class Tenants:
    """Tenants and API keys. Every write also moves the config version and is noted in the audit, in its transaction.

    `who` and `reason` are what the audit says about a write. `random_bytes` gives peppers and keys; only a test has a
    reason to replace it.
    """

    def __init__(self, engine: AsyncEngine, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._engine = engine
        self._random_bytes = random_bytes

    async def create(self, tenant_id: str, name: str, now_s: int, *, who: str = "", reason: str = "") -> Tenant:
        """A new active tenant with an empty catalogue and personalisation on. Raises InvalidInput, AlreadyExists.

        On by a flag of its own, so that an unknown flag can go on meaning "not personalised".
        """
        _check_new(tenant_id, name)
        tenant = Tenant(tenant_id, name, "active", self._random_bytes(SECRET_BYTES), 0, now_s)
        row = {field: getattr(tenant, field) for field in Tenant.__slots__}
        flag = Flag(now_s * 1000, author="tenants", reason="on from the start", changed_s=now_s)
        async with writing(self._engine) as connection:
            await bump_config(connection)
            try:
                await connection.execute(insert_into(TENANTS).values(**row, next_item=0))
            except exc.IntegrityError as error:
                raise AlreadyExists("tenant", tenant_id) from error
            await bump_flags(connection)
            await insert_flag(connection, tenant_id, flag)
            noted = {"name": name, "status": "active"}
            await audit.record(connection, "tenant.create", tenant_id, who=who, reason=reason, now_s=now_s, after=noted)
        return tenant

    async def list(self) -> list[Tenant]:
        """Every tenant, suspended ones too, by id."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(*_TENANT_COLUMNS).order_by(TENANTS.c.id))
            return [_tenant(row) for row in rows]

    async def get(self, tenant_id: str) -> Tenant:
        """One tenant. Raises NotFound."""
        async with reading(self._engine) as connection:
            return await _get(connection, tenant_id)

    async def suspend(
        self, tenant_id: str, now_s: int, *, who: str = "", reason: str = "", if_tag: int | None = None
    ) -> None:
        """Stop answering its keys; everything is kept. `if_tag`: only if that is still its tag.

        Raises NotFound, VersionMismatch.
        """
        await self._set_status(tenant_id, "suspended", now_s, who, reason, if_tag)

    async def resume(
        self, tenant_id: str, now_s: int, *, who: str = "", reason: str = "", if_tag: int | None = None
    ) -> None:
        """Undo `suspend`. `if_tag`: only if that is still its tag.

        Raises NotFound, VersionMismatch.
        """
        await self._set_status(tenant_id, "active", now_s, who, reason, if_tag)

    async def create_key(
        self,
        tenant_id: str | None,
        scope: Scope,
        label: str,
        now_s: int,
        expires_s: int | None = None,
        *,
        who: str = "",
        reason: str = "",
    ) -> NewKey:
        """A new key: `<scope>_` and 43 characters of 256 random bits. Raises InvalidInput, NotFound.

        Rotation is two calls: create the new key, then `expire_key` the old one after the overlap.
        """
        _check_new_key(tenant_id, scope, label, now_s, expires_s)
        secret = urlsafe_b64encode(self._random_bytes(SECRET_BYTES)).decode().rstrip("=")
        new = NewKey(f"key_{self._random_bytes(8).hex()}", f"{scope}_{secret}")
        key = Key(new.id, hash_key(new.clear), tenant_id, scope, label, now_s, expires_s, None)
        async with writing(self._engine) as connection:
            await bump_config(connection)
            if tenant_id is not None:
                await _get(connection, tenant_id)
            await connection.execute(
                insert_into(API_KEYS).values({field: getattr(key, field) for field in Key.__slots__})
            )
            noted = {"key": new.id, "scope": scope, "label": label, "expires_s": expires_s}
            await audit.record(connection, "key.create", tenant_id, who=who, reason=reason, now_s=now_s, after=noted)
        return new

    async def keys(self) -> Sequence[Key]:
        """Every key, expired and revoked ones too, oldest first."""
        async with reading(self._engine) as connection:
            rows = await connection.execute(select(*_KEY_COLUMNS).order_by(API_KEYS.c.created_s, API_KEYS.c.id))
            return [Key(*row) for row in rows]

    async def revoke(
        self, key_id: str, now_s: int, *, who: str = "", reason: str = "", if_tag: int | None = None
    ) -> None:
        """End a key now; revoking it again keeps the first time. `if_tag`: only if that is still its tag.

        Raises NotFound, VersionMismatch.
        """
        await self._end_key(key_id, "revoked_s", now_s, now_s, who, reason, if_tag)

    async def expire_key(
        self, key_id: str, expires_s: int, now_s: int, *, who: str = "", reason: str = "", if_tag: int | None = None
    ) -> None:
        """Let a key end at a moment, so that it and its successor overlap. Raises like `revoke`."""
        await self._end_key(key_id, "expires_s", expires_s, now_s, who, reason, if_tag)

    async def _end_key(
        self, key_id: str, column: str, at_s: int, now_s: int, who: str, reason: str, if_tag: int | None
    ) -> None:
        async with writing(self._engine) as connection:
            await bump_config(connection)
            where = API_KEYS.c.id == key_id
            row = (await connection.execute(select(*_KEY_COLUMNS).where(where))).one_or_none()
            if row is None:
                raise NotFound("key", key_id)
            key = Key(*row)
            _check_tag(if_tag, key.tag)
            if column == "revoked_s" and key.revoked_s is not None:
                return
            await connection.execute(update(API_KEYS).where(where).values({column: at_s}))
            action = "key.revoke" if column == "revoked_s" else "key.expire"
            before, after = {"key": key_id, column: getattr(key, column)}, {"key": key_id, column: at_s}
            note: dict[str, Any] = {"who": who, "reason": reason, "now_s": now_s, "before": before, "after": after}
            await audit.record(connection, action, key.tenant_id, **note)

    async def _set_status(
        self, tenant_id: str, status: TenantStatus, now_s: int, who: str, reason: str, if_tag: int | None
    ) -> None:
        async with writing(self._engine) as connection:
            await bump_config(connection)
            tenant = await _get(connection, tenant_id)
            _check_tag(if_tag, tenant.tag)
            before, after = {"status": tenant.status}, {"status": status}
            await connection.execute(update(TENANTS).where(TENANTS.c.id == tenant_id).values(status=status))
            action = "tenant.suspend" if status == "suspended" else "tenant.resume"
            note: dict[str, Any] = {"who": who, "reason": reason, "now_s": now_s, "before": before, "after": after}
            await audit.record(connection, action, tenant_id, **note)


_TENANT_COLUMNS = [TENANTS.c[field] for field in Tenant.__slots__]
_KEY_COLUMNS = [API_KEYS.c[field] for field in Key.__slots__]


def _check_tag(wanted: int | None, current: int) -> None:
    if wanted is not None and wanted != current:
        raise VersionMismatch(wanted, current)


async def _get(connection: AsyncConnection, tenant_id: str) -> Tenant:
    if storable(tenant_id):
        row = (await connection.execute(select(*_TENANT_COLUMNS).where(TENANTS.c.id == tenant_id))).one_or_none()
        if row is not None:
            return _tenant(row)
    raise NotFound("tenant", tenant_id)


def _tenant(row: Row[tuple[object, ...]]) -> Tenant:
    return Tenant(**row._mapping)


def _check_new(tenant_id: str, name: str) -> None:
    problems = []
    if not SLUG.fullmatch(tenant_id) or tenant_id == EVERYWHERE:
        problems.append(Problem("/id", f"1 to 63 of a-z, 0-9 and -, not beginning with -, and not {EVERYWHERE!r}"))
    if not _is_label(name):
        problems.append(Problem("/name", f"1 to {NAME_CHARS} printable characters"))
    if problems:
        raise InvalidInput(problems)


def _check_new_key(tenant_id: str | None, scope: Scope, label: str, now_s: int, expires_s: int | None) -> None:
    problems = []
    if scope not in get_args(Scope):
        problems.append(Problem("/scope", f"one of {', '.join(get_args(Scope))}"))
    elif (scope == "adm") != (tenant_id is None):
        problems.append(Problem("/tenant", "pk and sk keys belong to a tenant, adm keys to none"))
    if label and not _is_label(label):
        problems.append(Problem("/label", f"at most {NAME_CHARS} printable characters"))
    if expires_s is not None and expires_s <= now_s:
        problems.append(Problem("/expires_at", "must be in the future"))
    if problems:
        raise InvalidInput(problems)


def _is_label(value: str) -> bool:
    return 1 <= len(value) <= NAME_CHARS and value.isprintable()
