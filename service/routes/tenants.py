"""Host apps and their keys, for operators: /v1/admin/tenants and /v1/admin/keys."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import Problem
from retrieval.tenants import Key, Tenant
from service.admin import answer, body, instant, operator, seconds
from service.errors import InvalidRequest
from service.requests import if_match, object_of, text_of, versions_in


async def get_tenants(request: Request) -> Response:
    """Every tenant, suspended ones too."""
    who = operator(request)
    return answer({"tenants": [shape(one) for one in await who.resources.tenants.list()]})


async def post_tenant(request: Request) -> Response:
    """A new tenant: {"id", "name"}. Personalisation is on from the start; keys are made with /v1/admin/keys."""
    who = operator(request)
    tenant_id, name = text_of(object_of(await body(request), "id", "name"), "id", "name")
    return answer(shape(await who.resources.tenants.create(tenant_id, name, who.now_s, who=who.who)), 201)


async def patch_tenant(request: Request) -> Response:
    """Suspend a tenant or bring it back: {"status": "suspended" or "active", "reason"}. If-Match: its `tag`, or *."""
    who = operator(request)
    if_tag = _if_tag(request)
    value = object_of(await body(request), "status", "reason")
    status, reason = text_of(value, "status", "reason")
    if status not in ("active", "suspended"):
        raise InvalidRequest([Problem("/status", "must be active or suspended")])
    tenants, tenant_id = who.resources.tenants, request.path_params["id"]
    change = tenants.suspend if status == "suspended" else tenants.resume
    await change(tenant_id, who.now_s, who=who.who, reason=reason, if_tag=if_tag)
    changed = await tenants.get(tenant_id)
    return answer(shape(changed), tag=str(changed.tag))


async def get_keys(request: Request) -> Response:
    """Every key, without its secret; `tenant`: only of that one."""
    who = operator(request)
    wanted = request.query_params.get("tenant")
    keys = [key for key in await who.resources.tenants.keys() if wanted is None or key.tenant_id == wanted]
    return answer({"keys": [shape_key(key, who.now_s) for key in keys]})


async def post_key(request: Request) -> Response:
    """A new key: {"scope": pk, sk or adm, "tenant", "label"?, "expires_at"?}. Its clear text is shown this once."""
    who = operator(request)
    value = object_of(await body(request), "scope", "tenant", "label", "expires_at")
    (scope,) = text_of(value, "scope")
    tenant, label = value.get("tenant"), value.get("label", "")
    if not isinstance(label, str) or not (tenant is None or isinstance(tenant, str)):
        raise InvalidRequest([Problem("", "tenant and label must be text")])
    expires_s = seconds(value["expires_at"], "/expires_at") if "expires_at" in value else None
    new = await who.resources.tenants.create_key(
        tenant, scope, label, who.now_s, expires_s, who=who.who  # type: ignore[arg-type]  # the store checks the scope
    )  # fmt: skip
    return answer({"id": new.id, "key": new.clear}, 201)


async def patch_key(request: Request) -> Response:
    """End a key now, {"revoked": true}, or later, {"expires_at": ...}: rotation is a new key, then this for the old.

    If-Match: the key's `tag`, or *.
    """
    who = operator(request)
    if_tag = _if_tag(request)
    value = object_of(await body(request), "revoked", "expires_at", "reason")
    key_id, tenants = request.path_params["id"], who.resources.tenants
    note: dict[str, Any] = {"who": who.who, "reason": str(value.get("reason", ""))[:500], "if_tag": if_tag}
    if value.get("revoked") is True:
        await tenants.revoke(key_id, who.now_s, **note)
    elif "expires_at" in value:
        await tenants.expire_key(key_id, seconds(value["expires_at"], "/expires_at"), who.now_s, **note)
    else:
        raise InvalidRequest([Problem("", 'must be {"revoked": true} or {"expires_at": "..."}')])
    (changed,) = [key for key in await tenants.keys() if key.id == key_id]
    return answer(shape_key(changed, who.now_s), tag=str(changed.tag))


def shape(tenant: Tenant) -> dict[str, Any]:
    """A tenant as JSON, without its pepper."""
    said = {"id": tenant.id, "tag": str(tenant.tag), "name": tenant.name, "status": tenant.status}
    return said | {"catalogue_version": tenant.version, "created_at": instant(tenant.created_s)}


def shape_key(key: Key, now_s: int) -> dict[str, Any]:
    """A key as JSON, without its hash."""
    said = {"id": key.id, "tag": str(key.tag), "tenant": key.tenant_id, "scope": key.scope, "label": key.label}
    times = {"created_at": key.created_s, "expires_at": key.expires_s, "revoked_at": key.revoked_s}
    return said | {"valid": key.valid_at(now_s)} | {name: instant(at_s) for name, at_s in times.items()}


def _if_tag(request: Request) -> int | None:
    """The tag of the state that was looked at; * is any: a leaked key must not wait for a second look."""
    tag = if_match(request)
    return None if tag == "*" else versions_in(tag, 1)[0]
