"""How long a request line and its headers may be, checked before anything looks at them."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval.errors import FeedError, Problem
from service.errors import HeadersTooLarge, InvalidRequest, UriTooLong, answer

MAX_URI_BYTES: Final = 8 << 10
"""Path and query; the longest cursor has 2 KiB of them."""
MAX_PARAMETERS: Final = 32
MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 << 10
"""All names and values together."""


class Bounded:
    """Refuses what no client of ours would send: 414, 431, or 400 for too many parameters. Pure ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = refusal(scope) if scope["type"] == "http" else None
        await (self.app if refused is None else answer(refused))(scope, receive, send)


def refusal(scope: Scope) -> FeedError | None:
    """What is wrong with the size of a request, None if nothing is."""
    query: bytes = scope["query_string"]
    if len(scope["raw_path"]) + len(query) > MAX_URI_BYTES:
        return UriTooLong(f"the path and query have more than the {MAX_URI_BYTES} bytes allowed")
    if query.count(b"&") >= MAX_PARAMETERS:
        return InvalidRequest([Problem("/query", f"has more than {MAX_PARAMETERS} parameters")])
    headers = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        return HeadersTooLarge(f"more than {MAX_HEADERS} headers, or than {MAX_HEADER_BYTES} bytes of them")
    return None
