"""POST /v1/webhooks/cms, and for the tenant's own people its secrets and what became of each delivery."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import Problem
from service.admin import answer, body, caller, instant
from service.errors import InvalidRequest, TenantSuspended
from service.requests import body_of, object_of, whole_number
from service.resources import Resources
from service.webhooks import read_change, verify

DEFAULT_OVERLAP_S = 86_400


async def receive(request: Request) -> Response:
    """Take a delivery: 202 once it is stored. `?tenant=` says whose secret to check it with, and proves nothing."""
    resources: Resources = request.app.state.resources
    tenant = request.query_params.get("tenant", "")
    content = await body_of(request, resources.settings.admin_body_bytes)
    keys = await resources.deliveries.secrets(tenant, resources.now_s)
    delivery_id = verify(dict(request.headers), content, keys, now_s=resources.clock())
    known = resources.live.config.tenants.get(tenant)
    if known is not None and known.status != "active":
        raise TenantSuspended("the tenant is suspended")
    read_change(content)
    is_new = await resources.deliveries.store(tenant, delivery_id, content, resources.now_s)
    resources.sweep.wake.set()
    return answer({"id": delivery_id, "status": "stored" if is_new else "known"}, 202)


async def post_secret(request: Request) -> Response:
    """A new signing secret, shown this once: {"overlap_s"?: how long the ones before it stay good}."""
    who = caller(request, "sk")
    value: dict[str, Any] = object_of(await body(request), "overlap_s")
    overlap_s = value.get("overlap_s", DEFAULT_OVERLAP_S)
    if type(overlap_s) is not int or not 0 <= overlap_s <= 90 * 86_400:
        raise InvalidRequest([Problem("/overlap_s", "must be a whole number from 0 to 7776000")])
    deliveries, tenant = who.resources.deliveries, who.tenant or ""
    new = await deliveries.new_secret(tenant, who.now_s, overlap_s=overlap_s, who=who.who)
    return answer({"id": new.id, "secret": new.clear}, 201)


async def get_deliveries(request: Request) -> Response:
    """The last deliveries and what became of them."""
    who = caller(request, "sk")
    limit = whole_number(request, "limit", 50, most=500)
    shown = [
        {
            "id": one.id,
            "received_at": instant(one.received_s),
            "settled_at": instant(one.settled_s),
            "outcome": one.outcome or "waiting",
        }
        for one in await who.resources.deliveries.recent(who.tenant or "", limit)
    ]
    return answer({"deliveries": shown})
