"""GET /v1/feed and the public default feed. The hot routes: plain routes that answer ready bytes."""

from __future__ import annotations

import secrets
import time
import zlib
from functools import lru_cache
from typing import Final, TypedDict, Unpack

import orjson
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from ranking.context import Context
from ranking.hints import AGE_BANDS, age_ceiling, country_code, language_code
from retrieval.arms import in_arm
from retrieval.errors import NotFound, Problem
from retrieval.flags import Mode, cohort
from retrieval.view import View
from service.auth import authenticate, user_key
from service.errors import InvalidRequest
from service.feed import first_page, next_page, public_page, remember_served
from service.governor import FIRST, LATER, Effort
from service.page import Asked, Page
from service.requests import header, query_of, whole_number
from service.resources import Resources
from service.scopes import request_id
from service.telemetry import observe_feed

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 50
MAX_AGE_S: Final = 10
MAX_SURFACE_CHARS: Final = 64
STALE_IF_ERROR_S: Final = 86_400
KEPT_ENDINGS: Final = 1024
"""Of items, see `_ending`: a page has one of five or so reasons at each of its positions, most users' first hundred."""
VARY: Final = "Feed-User, Accept-Language, Authorization, Feed-Reason"


class Decided(TypedDict, total=False):
    """Fields of `Asked` that are not read off the request."""

    key_id: str
    mode: Mode
    effort: Effort


async def feed(request: Request) -> Response:
    """A page of videos for the user in `Feed-User`, or for nobody in particular without that header."""
    resources: Resources = request.app.state.resources
    kind = LATER if "cursor" in query_of(request) else FIRST
    with resources.governor.admitted(kind, prefetch=header(request, b"feed-reason") == "prefetch") as work:
        began_s = time.perf_counter()
        asked, page = await _asked_page(request, resources, effort=work.effort)
        response = _personal(request, asked, page, resources)
        waited_ms = page.timings_ms.get("state", 0.0) + page.timings_ms.get("wait", 0.0)
        work.took_s = time.perf_counter() - began_s - waited_ms / 1000
        if "wait" in page.timings_ms:  # it made a list, so it had to wait for a turn
            work.waited_s = waited_ms / 1000
    return response


async def _asked_page(request: Request, resources: Resources, *, effort: Effort) -> tuple[Asked, Page]:
    now_s = resources.now_s
    principal = authenticate(request, resources.live, "pk", now_s=now_s)
    view = resources.live.view(principal.tenant or "")
    key = user_key(request, view.tenant.pepper)
    mode = resources.flags.decide(view.tenant.id, key)
    asked = read(
        request,
        in_arm(view, key) if mode == "personalised" else view,
        key,
        header(request, b"accept-language"),
        now_s=now_s,
        key_id=principal.key_id,
        mode=mode,
        effort=effort,
    )
    cursor = query_of(request).get("cursor")
    if cursor is not None or asked.mode != "personalised":
        resources.pages.charge(view.tenant.id, key, principal.key_id)
    if cursor is None:
        return asked, await first_page(asked, resources.feed_stores)
    frozen = resources.cursors.open(cursor, view.tenant.id, asked.user_key)
    return asked, await next_page(asked, frozen, resources.feed_stores)


def _personal(request: Request, asked: Asked, page: Page, resources: Resources) -> Response:
    observe_feed(request.scope, asked, page)
    headers = {"Cache-Control": cache_control(page, asked.view, now_s=asked.context.now_s), "Vary": VARY}
    named = request_id(request.scope)
    response = answer(named, page, asked, resources, headers)
    if not page.unchanged:
        response.background = BackgroundTask(remember_served, asked, page, named, resources.written)
    return response


async def default_feed(request: Request) -> Response:
    """The non-personalised feed of a tenant. All that selects it is in the URL, so that a CDN may keep it."""
    resources: Resources = request.app.state.resources
    now_s = resources.now_s
    principal = authenticate(request, resources.live, "pk", now_s=now_s)
    view = resources.live.view(principal.tenant or "")
    if view.tenant.id != request.path_params["tenant"]:
        raise NotFound("tenant", request.path_params["tenant"])
    resources.pages.charge(view.tenant.id, None, principal.key_id)
    asked = read(request, view, None, "", now_s=now_s)
    cursor = query_of(request).get("cursor")
    if cursor is None:
        page = public_page(asked)
    else:
        frozen = resources.cursors.open(cursor, view.tenant.id, None)
        page = await next_page(asked, frozen, resources.feed_stores)
    observe_feed(request.scope, asked, page)
    headers = {"Cache-Control": f"public, max-age={max_age_s(view, now_s=now_s)}, stale-if-error={STALE_IF_ERROR_S}"}
    return answer(request_id(request.scope), page, asked, resources, headers)


def read(
    request: Request, view: View, key: str | None, accept_language: str, *, now_s: int, **decided: Unpack[Decided]
) -> Asked:
    """What is asked, and what was decided about it before. Raises InvalidRequest for limits; unknown hints are
    dropped, not stored.

    An unknown age band is no hint, but it is not nothing either: see `age_ceiling`.
    """
    query = query_of(request)
    surface, age_band = query.get("surface", ""), query.get("age_band", "")
    if len(surface) > MAX_SURFACE_CHARS:
        raise InvalidRequest([Problem("/query/surface", f"has more than {MAX_SURFACE_CHARS} characters")])
    language = language_code(query.get("language", ""))
    country = country_code(query.get("country", ""))
    refresh = header(request, b"feed-reason") == "refresh"
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
            max_age=age_ceiling(age_band),
            cohort=cohort(view.tenant.id, key),
            # Stable for a user within an hour, new on every pull-to-refresh.
            seed=secrets.randbits(32) if refresh else zlib.crc32(f"{key}:{now_s // 3600}".encode()),
        ),
        refresh=refresh,
        if_none_match=header(request, b"if-none-match") or None,
        dropped=(language < 0 and bool(query.get("language")))
        or (country < 0 and bool(query.get("country")))
        or (bool(age_band) and age_band not in AGE_BANDS),
        **decided,
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


def answer(named: str, page: Page, asked: Asked, resources: Resources, headers: dict[str, str]) -> Response:
    """200 with the page, or 304 when the client has it already. `named`: the id of the request."""
    headers["X-Request-Id"] = named
    headers["Server-Timing"] = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in page.timings_ms.items())
    if page.tag:
        headers["ETag"] = page.tag
    if page.unchanged:
        return Response(status_code=304, headers=headers)
    return Response(body(named, page, asked, resources), 200, headers, "application/json")


def body(named: str, page: Page, asked: Asked, resources: Resources) -> bytes:
    """The JSON answer: cards as they lie in the snapshot, and what depends on this request written behind them."""
    view, cursor = asked.view, b""
    if page.frozen is not None:
        token = resources.cursors.seal(page.frozen, view.tenant.id, asked.user_key, now_s=asked.context.now_s)
        cursor = b',"next_cursor":"%b"' % token.encode()
    cards = view.snapshot.cards(view.snapshot.rows(page.items))
    items = [
        card + _ending(position, reason)
        for position, (card, reason) in enumerate(zip(cards, page.reasons, strict=True), start=page.position)
    ]
    return b'{"request_id":"%b","mode":"%b","degraded":%b,"items":[%b]%b}' % (
        named.encode(),
        page.mode.encode(),
        orjson.dumps(page.degraded),
        b",".join(items),
        cursor,
    )


@lru_cache(KEPT_ENDINGS)
def _ending(position: int, reason: str) -> bytes:
    """What depends on the request, behind the card of an item."""
    return b',"position":%d,"reason":"%b"}' % (position, reason.encode())


def cache_control(page: Page, view: View, *, now_s: int) -> str:
    """A page with a tag may be kept for moments; a fallback must never be kept as if it were personalised."""
    if page.tag is None:
        return "private, no-store"
    return f"private, max-age={max_age_s(view, now_s=now_s)}, stale-if-error={STALE_IF_ERROR_S}"


def max_age_s(view: View, *, now_s: int) -> int:
    """Ten seconds, or less if something opens or ends before."""
    return min(MAX_AGE_S, view.next_boundary_s(now_s) - now_s)
