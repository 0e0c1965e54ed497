"""Who administers what: a secret key its own tenant, an admin key any tenant, or all of them together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import NotFound, Problem
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE, Scope
from service.auth import authenticate
from service.errors import InvalidRequest
from service.requests import body_of, json_of
from service.resources import Resources

MAX_BODY_BYTES = 1 << 20
"""Of every administrative request but those with videos: a policy at all its limits is a tenth of that."""
YEARS = range(1971, 2106)


@dataclass(frozen=True)
class Caller:
    """Who calls, and about what: `tenant` None is all tenants together. `who` is what the audit will say."""

    resources: Resources
    scope: Scope
    tenant: str | None
    who: str

    @property
    def now_s(self) -> int:
        return self.resources.now_s

    @property
    def table_scope(self) -> str:
        """The scope as the stores call it."""
        return GLOBAL if self.tenant is None else self.tenant


def caller(request: Request, *scopes: Scope) -> Caller:
    """The caller of an administrative route. Raises like `authenticate`; InvalidRequest when an admin key does not say
    with ?scope= whom it is about, NotFound when there is no such tenant."""
    resources: Resources = request.app.state.resources
    principal = authenticate(request, resources.live, *scopes, now_s=resources.now_s)
    tenant = principal.tenant
    if principal.scope == "adm":
        scope = request.query_params.get("scope")
        if not scope:
            raise InvalidRequest([Problem("/query/scope", f"is required with an admin key: {EVERYWHERE}, or a tenant")])
        tenant = None if scope == EVERYWHERE else scope
        if tenant is not None and tenant not in resources.live.config.tenants:
            raise NotFound("tenant", tenant)
    return Caller(resources, principal.scope, tenant, principal.key_id)


def operator(request: Request) -> Caller:
    """The caller of a route that only an admin key may use and that is about no tenant in particular."""
    resources: Resources = request.app.state.resources
    principal = authenticate(request, resources.live, "adm", now_s=resources.now_s)
    return Caller(resources, principal.scope, None, principal.key_id)


async def body(request: Request) -> Any:
    """The JSON value of an administrative request. Raises PayloadTooLarge, UnsupportedMediaType, InvalidRequest."""
    return json_of(await body_of(request, MAX_BODY_BYTES))


def answer(value: object, status: int = 200, *, tag: str | None = None) -> Response:
    """A JSON answer, with an ETag if it is of something that can be changed."""
    headers = {"Cache-Control": "no-store"}
    if tag is not None:
        headers["ETag"] = f'"{tag}"'
    return Response(orjson.dumps(value), status, headers, "application/json")


def instant(at_s: int | None) -> str | None:
    """Unix seconds as RFC 3339, None as null."""
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def seconds(value: Any, pointer: str) -> int:
    """RFC 3339 with an offset as unix seconds, within what a journal's uint32 can hold. Raises InvalidRequest."""
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None and moment.year in YEARS:
            return int(moment.timestamp())
    except (TypeError, ValueError):
        pass
    allowed = f"a time with an offset, like 2026-11-22T12:00:00Z, in the years {YEARS[0]} to {YEARS[-1]}"
    raise InvalidRequest([Problem(pointer, f"must be {allowed}")])
