"""GET /v1/feed. The hot route: a plain route that answers ready bytes."""

from __future__ import annotations

import secrets
import zlib
from typing import Final

import orjson
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from ranking.context import Context
from ranking.hints import AGE_BANDS, country_code, language_code
from retrieval.view import View
from service.auth import user_key, view_of
from service.feed import Asked, Page, first_page, remember_served
from service.requests import whole_number
from service.resources import Resources
from service.telemetry import observe_feed

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 50


async def feed(request: Request) -> Response:
    """A page of videos for the user in `Feed-User`, or for nobody in particular without that header."""
    resources: Resources = request.app.state.resources
    view = view_of(request, resources.live, "pk", now_s=resources.now_s)
    asked = read(request, view, now_s=resources.now_s)
    page = await first_page(asked, resources.journals)
    observe_feed(page)
    request_id = secrets.token_hex(12)
    headers = {
        "Cache-Control": "private, no-store",
        "Server-Timing": ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in page.timings_ms.items()),
        "X-Request-Id": request_id,
    }
    served = BackgroundTask(remember_served, asked, page, resources.written)
    return Response(body(request_id, page, view), 200, headers, "application/json", background=served)


def read(request: Request, view: View, *, now_s: int) -> Asked:
    """What is asked. Raises InvalidRequest for limits and user ids; unknown hints are dropped, not stored."""
    query = request.query_params
    key = user_key(request, view.tenant.pepper)
    age_band = query.get("age_band", "")
    age_band = age_band if age_band in AGE_BANDS else ""
    return Asked(
        view=view,
        user_key=key,
        limit=whole_number(request, "limit", DEFAULT_LIMIT, most=MAX_LIMIT),
        context=Context(
            now_s=now_s,
            surface=query.get("surface", "")[:64],
            language=language_code(query.get("language", "")[:2]),
            country=country_code(query.get("country", "")[:3]),
            age_band=age_band,
            max_age=AGE_BANDS.get(age_band, 18),
            seed=_seed(request, key, now_s),
        ),
    )


def body(request_id: str, page: Page, view: View) -> bytes:
    """The JSON answer: cards as they lie in the snapshot, and what depends on this request written behind them."""
    cards = view.snapshot.cards(page.rows)
    items = b",".join(
        card + b',"position":%d,"reason":"%s"}' % (position, reason.encode())
        for position, (card, reason) in enumerate(zip(cards, page.reasons, strict=True))
    )
    return b'{"request_id":"%s","mode":"%s","degraded":%s,"items":[%s]}' % (
        request_id.encode(),
        page.mode.encode(),
        orjson.dumps(page.degraded),
        items,
    )


def _seed(request: Request, key: str | None, now_s: int) -> int:
    """Stable for a user within an hour, new on every pull-to-refresh."""
    if request.headers.get("feed-reason") == "refresh":
        return secrets.randbits(32)
    return zlib.crc32(f"{key}:{now_s // 3600}".encode())
