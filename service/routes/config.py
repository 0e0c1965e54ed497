"""GET /v1/config: what an SDK should know before it is told by errors."""

from __future__ import annotations

from typing import Any, Final

import orjson
import xxhash
from starlette.requests import Request
from starlette.responses import Response

from retrieval.flags import Flags, is_killed
from retrieval.tables import GLOBAL
from service import cursor
from service.auth import view_of
from service.events import MAX_BYTES, MAX_EVENTS
from service.requests import header
from service.resources import Resources
from service.routes.feed import DEFAULT_LIMIT, MAX_LIMIT

POLL_S: Final = 300
"""How often an SDK may ask again."""


async def config(request: Request) -> Response:
    """The flag's state, limits, and the oldest SDK versions that are served well. Nothing in it is about a user."""
    resources: Resources = request.app.state.resources
    view = view_of(request, resources.live, "pk", now_s=resources.now_s)
    body = orjson.dumps(content(resources.flags.flags, view.tenant.id, resources.settings.minimum_versions))
    tag = f'"{xxhash.xxh3_64_hexdigest(body)}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={POLL_S}"}
    presented = [one.strip().removeprefix("W/") for one in header(request, b"if-none-match").split(",")]
    if tag in presented:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


def content(flags: Flags, tenant: str, minimum_versions: dict[str, str]) -> dict[str, Any]:
    """The answer as JSON."""
    return {
        "personalisation": personalisation(flags, tenant),
        "poll_interval_s": POLL_S,
        "minimum_versions": minimum_versions,
        "feed": {"default_limit": DEFAULT_LIMIT, "max_limit": MAX_LIMIT, "cursor_lifetime_s": cursor.LIFETIME_S},
        "events": {"max_events": MAX_EVENTS, "max_bytes": MAX_BYTES},
    }


def personalisation(flags: Flags, tenant: str) -> str:
    """on, off, percentage or killed: of the tenant's own flag and the global one, the one that allows less."""
    if is_killed(flags, GLOBAL) or is_killed(flags, tenant):
        return "killed"
    everywhere, own = flags.by_scope.get(GLOBAL), flags.by_scope.get(tenant)
    if own is None or (everywhere is not None and everywhere.state == "off"):
        return "off"
    return own.state
