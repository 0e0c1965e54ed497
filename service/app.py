"""The application of one worker process: routes, error answers, resources."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranking.errors import PolicyError
from retrieval import logs
from retrieval.errors import FeedError
from service import telemetry
from service.errors import on_error, on_http_exception
from service.resources import Resources, opened
from service.routes.events import events
from service.routes.feed import default_feed, feed
from service.routes.videos import delete_video, get_video, get_videos, put_videos
from service.settings import ServiceSettings

ROUTES = (
    Route("/v1/feed", feed, methods=["GET"]),
    Route("/v1/tenants/{tenant}/feed/default", default_feed, methods=["GET"]),
    Route("/v1/events", events, methods=["POST"]),
    Route("/v1/admin/videos", put_videos, methods=["PUT"]),
    Route("/v1/admin/videos", get_videos, methods=["GET"]),
    Route("/v1/admin/videos/{id:path}", get_video, methods=["GET"]),
    Route("/v1/admin/videos/{id:path}", delete_video, methods=["DELETE"]),
)


def create() -> FastAPI:
    """The application, configured from the environment; what each worker process runs."""
    logs.configure()
    return application(ServiceSettings())


def application(settings: ServiceSettings) -> FastAPI:
    """The application with the given settings."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings) as resources:
            app.state.resources = resources
            beating = asyncio.create_task(_beat(resources))
            yield
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating

    app = FastAPI(title="Personalised vertical-video feeds", version="1", lifespan=lifespan, routes=list(ROUTES))
    for kind in (FeedError, PolicyError, Exception):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_middleware(Measured)
    return app


class Measured:
    """Counts and times each request by route. Pure ASGI: a few microseconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, observed)
        finally:
            # The matched pattern, never the path: a path holds ids.
            route = getattr(scope.get("route"), "path", "(none)")
            telemetry.REQUESTS.labels(route, status).inc()
            telemetry.DURATION.labels(route).observe(time.perf_counter() - began)


async def _beat(resources: Resources) -> None:
    while True:
        telemetry.ALIVE.set(resources.live.refreshed_s if resources.live.ready else 0)
        await asyncio.sleep(1)
