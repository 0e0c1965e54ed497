"""The busiest routes, answered without the layers that only the others need.

Between an application of FastAPI and the function of a plain route lie a router, an exit stack and three wrappers for
exceptions, which take longer than some answers. Here a request of a hot route goes straight to its function, and what
that raises straight to the table of problems. The same functions are in the table of routes too: for the document of
the API, and for other methods of their addresses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import on_error

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct:
    """Answers (method, path) pairs of `endpoints` itself, everything else by `app`. Pure ASGI."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self.app = app
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self.endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        scope["app"], scope["endpoint"] = self.app, endpoint  # as the framework and its router would
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except Exception as error:
            response = await on_error(request, error)
        try:
            await response(scope, receive, send)
        except Exception as error:  # of what is done behind an answer: too late for its client, but the log has it
            await on_error(request, error)
            raise
