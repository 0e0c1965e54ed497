"""/v1/admin/listing: where a tenant's CMS lists its videos. For operators, because the indexer goes where it says."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from retrieval.cms_listings import DEFAULT_EVERY_S, DEFAULT_GONE_PERCENT, CmsListing
from retrieval.errors import Problem
from service.admin import Caller, answer, body, caller, instant
from service.errors import InvalidRequest
from service.requests import object_of


async def get_listing(request: Request) -> Response:
    """The listing of ?scope= and how the last look at it ended."""
    who = _about_a_tenant(request)
    return answer(shape(await who.resources.listings.get(who.tenant or "")))


async def put_listing(request: Request) -> Response:
    """Look at this listing from now on: {"url", "every_s"?, "most_gone_percent"?, "reason"?}."""
    who = _about_a_tenant(request)
    value = object_of(await body(request), "url", "every_s", "most_gone_percent", "reason")
    numbers = {"every_s": DEFAULT_EVERY_S, "most_gone_percent": DEFAULT_GONE_PERCENT} | value
    wrong = [name for name in ("every_s", "most_gone_percent") if type(numbers[name]) is not int]
    problems = [Problem(f"/{name}", "must be a whole number") for name in wrong]
    problems += [Problem(f"/{name}", "must be text") for name in ("url", "reason") if _is_no_text(value.get(name, ""))]
    if problems:
        raise InvalidRequest(problems)
    wanted = CmsListing(who.tenant or "", value.get("url", ""), numbers["every_s"], numbers["most_gone_percent"])
    reason = value.get("reason", "")[:500]
    return answer(shape(await who.resources.listings.set(wanted, who.now_s, who=who.who, reason=reason)))


async def delete_listing(request: Request) -> Response:
    """Look no more. What was taken over stays."""
    who = _about_a_tenant(request)
    await who.resources.listings.remove(who.tenant or "", who.now_s, who=who.who)
    return Response(status_code=204)


def shape(listing: CmsListing) -> dict[str, Any]:
    """A listing as JSON."""
    return {
        "tenant": listing.tenant_id,
        "url": listing.url,
        "every_s": listing.every_s,
        "most_gone_percent": listing.most_gone_percent,
        "tried_at": instant(listing.tried_s or None),
        "done_at": instant(listing.done_s or None),
        "outcome": listing.outcome,
    }


def _about_a_tenant(request: Request) -> Caller:
    who = caller(request, "adm")
    if who.tenant is None:
        raise InvalidRequest([Problem("/query/scope", "must be a tenant")])
    return who


def _is_no_text(value: Any) -> bool:
    return not isinstance(value, str) or not value.isprintable()
