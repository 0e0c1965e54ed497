"""GET /v1/feed and the public default feed. The hot routes: plain routes that answer ready bytes."""

from __future__ import annotations

import secrets
import zlib
from dataclasses import replace
from typing import Final

import orjson
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from ranking.context import Context
from ranking.hints import AGE_BANDS, country_code, language_code
from retrieval.errors import NotFound, Problem
from retrieval.view import View
from service.auth import authenticate, user_key, view_of
from service.errors import InvalidRequest
from service.feed import Asked, Page, first_page, next_page, public_page, remember_served
from service.requests import whole_number
from service.resources import Resources
from service.telemetry import observe_feed

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 50
MAX_AGE_S: Final = 10
MAX_SURFACE_CHARS: Final = 64
STALE_IF_ERROR_S: Final = 86_400
VARY: Final = "Feed-User, Accept-Language, Authorization"


async def feed(request: Request) -> Response:
    """A page of videos for the user in `Feed-User`, or for nobody in particular without that header."""
    resources: Resources = request.app.state.resources
    now_s = resources.now_s
    principal = authenticate(request, resources.live, "pk", now_s=now_s)
    view = resources.live.view(principal.tenant or "")
    key = user_key(request, view.tenant.pepper)
    asked = replace(
        read(request, view, key, request.headers.get("accept-language", ""), now_s=now_s),
        key_id=principal.key_id,
        mode=resources.flags.decide(view.tenant.id, key),
    )
    cursor = request.query_params.get("cursor")
    if cursor is None:
        page = await first_page(asked, resources.feed_stores)
    else:
        frozen = resources.cursors.open(cursor, view.tenant.id, asked.user_key)
        page = await next_page(asked, frozen, resources.feed_stores)
    observe_feed(page)
    headers = {"Cache-Control": cache_control(page, view, now_s=now_s), "Vary": VARY}
    request.state.page = asked, page  # for whoever notes it to explain it later
    response = answer(page, asked, resources, headers)
    if not page.unchanged:
        request_id = response.headers["x-request-id"]
        response.background = BackgroundTask(remember_served, asked, page, request_id, resources.written)
    return response


async def default_feed(request: Request) -> Response:
    """The non-personalised feed of a tenant. All that selects it is in the URL, so that a CDN may keep it."""
    resources: Resources = request.app.state.resources
    now_s = resources.now_s
    view = view_of(request, resources.live, "pk", now_s=now_s)
    if view.tenant.id != request.path_params["tenant"]:
        raise NotFound("tenant", request.path_params["tenant"])
    asked = read(request, view, None, "", now_s=now_s)
    cursor = request.query_params.get("cursor")
    if cursor is None:
        page = public_page(asked)
    else:
        frozen = resources.cursors.open(cursor, view.tenant.id, None)
        page = await next_page(asked, frozen, resources.feed_stores)
    observe_feed(page)
    headers = {"Cache-Control": f"public, max-age={max_age_s(view, now_s=now_s)}, stale-if-error={STALE_IF_ERROR_S}"}
    return answer(page, asked, resources, headers)


def read(request: Request, view: View, key: str | None, accept_language: str, *, now_s: int) -> Asked:
    """What is asked. Raises InvalidRequest for limits; unknown hints are dropped, not stored."""
    query = request.query_params
    surface, age_band = query.get("surface", ""), query.get("age_band", "")
    if len(surface) > MAX_SURFACE_CHARS:
        raise InvalidRequest([Problem("/query/surface", f"has more than {MAX_SURFACE_CHARS} characters")])
    language = language_code(query.get("language", ""))
    country = country_code(query.get("country", ""))
    refresh = request.headers.get("feed-reason") == "refresh"
    return Asked(
        view=view,
        user_key=key,
        limit=whole_number(request, "limit", DEFAULT_LIMIT, most=MAX_LIMIT),
        context=Context(
            now_s=now_s,
            surface=surface,
            language=language if "language" in query else preferred_language(accept_language),
            country=country,
            age_band=age_band if age_band in AGE_BANDS else "",
            max_age=AGE_BANDS.get(age_band, 18),
            # Stable for a user within an hour, new on every pull-to-refresh.
            seed=secrets.randbits(32) if refresh else zlib.crc32(f"{key}:{now_s // 3600}".encode()),
        ),
        refresh=refresh,
        if_none_match=request.headers.get("if-none-match"),
        dropped=(language < 0 and bool(query.get("language")))
        or (country < 0 and bool(query.get("country")))
        or (bool(age_band) and age_band not in AGE_BANDS),
    )


def preferred_language(accept_language: str) -> int:
    """The first language of an Accept-Language header that is on our list, -1 if none is.

    Every app sends them best first, so the weights behind them are not looked at.
    """
    for given in accept_language[:200].split(","):
        code = language_code(given.partition(";")[0].partition("-")[0].strip())
        if code >= 0:
            return code
    return -1


def answer(page: Page, asked: Asked, resources: Resources, headers: dict[str, str]) -> Response:
    """200 with the page, or 304 when the client has it already."""
    request_id = secrets.token_hex(12)
    headers["X-Request-Id"] = request_id
    headers["Server-Timing"] = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in page.timings_ms.items())
    if page.tag:
        headers["ETag"] = page.tag
    if page.unchanged:
        return Response(status_code=304, headers=headers)
    return Response(body(request_id, page, asked, resources), 200, headers, "application/json")


def body(request_id: str, page: Page, asked: Asked, resources: Resources) -> bytes:
    """The JSON answer: cards as they lie in the snapshot, and what depends on this request written behind them."""
    view, cursor = asked.view, b""
    if page.frozen is not None:
        token = resources.cursors.seal(page.frozen, view.tenant.id, asked.user_key, now_s=asked.context.now_s)
        cursor = b',"next_cursor":"%s"' % token.encode()
    cards = view.snapshot.cards(view.snapshot.rows(page.items))
    items = b",".join(
        card + b',"position":%d,"reason":"%s"}' % (position, reason.encode())
        for position, (card, reason) in enumerate(zip(cards, page.reasons, strict=True), start=page.position)
    )
    return b'{"request_id":"%s","mode":"%s","degraded":%s,"items":[%s]%s}' % (
        request_id.encode(),
        page.mode.encode(),
        orjson.dumps(page.degraded),
        items,
        cursor,
    )


def cache_control(page: Page, view: View, *, now_s: int) -> str:
    """A page with a tag may be kept for moments; a fallback must never be kept as if it were personalised."""
    if page.tag is None:
        return "private, no-store"
    return f"private, max-age={max_age_s(view, now_s=now_s)}, stale-if-error={STALE_IF_ERROR_S}"


def max_age_s(view: View, *, now_s: int) -> int:
    """Ten seconds, or less if something opens or ends before."""
    return min(MAX_AGE_S, view.next_boundary_s(now_s) - now_s)
