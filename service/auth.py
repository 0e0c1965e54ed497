"""From a key to a tenant, and from a user id to the only form of it we keep."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from retrieval import erasure
from retrieval.errors import Problem
from retrieval.live import Live
from retrieval.tenants import Scope, hash_key
from retrieval.view import View
from service.errors import ForbiddenScope, InvalidRequest, TenantSuspended, Unauthenticated
from service.requests import header

USER_ID = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)
"""Looks like a hash: hex or base64url, at least 128 bits. An e-mail address or a phone number does not match."""


@dataclass(frozen=True)
class Principal:
    """Who calls: the scope of the key, its tenant (None for an admin key), and the id of the key itself."""

    scope: Scope
    tenant: str | None
    key_id: str


def authenticate(request: Request, live: Live, *scopes: Scope, now_s: int) -> Principal:
    """The caller, if its key has one of `scopes`.

    Raises Unauthenticated, ForbiddenScope, TenantSuspended.
    """
    kind, _, clear = header(request, b"authorization").partition(" ")
    if kind.lower() != "bearer" or not clear:
        raise Unauthenticated("send the header Authorization: Bearer KEY")
    key = live.config.keys.get(hash_key(clear.strip()))
    if key is None or not key.valid_at(now_s):
        raise Unauthenticated("the key is unknown, expired or revoked")
    if key.scope not in scopes:
        raise ForbiddenScope(f"a key of scope {key.scope} may not do this; needed: {' or '.join(scopes)}")
    if key.tenant_id is not None and live.config.tenants[key.tenant_id].status != "active":
        raise TenantSuspended("the tenant of this key is suspended")
    return Principal(key.scope, key.tenant_id, key.id)


def view_of(request: Request, live: Live, *scopes: Scope, now_s: int) -> View:
    """The tenant of a tenant's key, as it is served now. Raises like `authenticate`."""
    principal = authenticate(request, live, *scopes, now_s=now_s)
    return live.view(principal.tenant or "")


def user_key(request: Request, pepper: bytes) -> str | None:
    """The re-keyed user id (see `retrieval.erasure.rekeyed`), None for an anonymous request.

    Raises InvalidRequest, without repeating the value.
    """
    given = header(request, b"feed-user")
    return rekeyed(given, pepper, "/headers/Feed-User") if given else None


def rekeyed(user_id: str, pepper: bytes, pointer: str) -> str:
    """What is kept of a user id. Raises InvalidRequest, naming `pointer` and not the value."""
    if not USER_ID.fullmatch(user_id):
        allowed = "32 to 128 characters of hex or base64url: a hash, never an address or a number"
        raise InvalidRequest([Problem(pointer, f"must be {allowed}")])
    return erasure.rekeyed(user_id, pepper)
