"""The application of one worker process: routes, error answers, resources."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranking.errors import PolicyError
from retrieval.errors import FeedError
from service import gauges, openapi, spare, telemetry
from service.bounds import Bounded
from service.direct import Direct
from service.errors import on_error, on_http_exception
from service.resources import opened
from service.routes.config import config
from service.routes.events import events
from service.routes.explain import explain, feed_or_explained
from service.routes.feed import default_feed
from service.routes.flags import get_audit, get_flag, put_flag
from service.routes.listings import delete_listing, get_listing, put_listing
from service.routes.playlists import delete_playlist, get_playlist, get_playlists, put_playlist
from service.routes.policies import (
    get_history,
    get_policy,
    preview_policy,
    publish,
    put_draft,
    roll_back,
    validate,
)
from service.routes.tenants import get_keys, get_tenants, patch_key, patch_tenant, post_key, post_tenant
from service.routes.users import delete_user, get_erasure
from service.routes.videos import delete_video, get_video, get_videos, put_videos
from service.routes.webhooks import get_deliveries, post_secret, receive
from service.settings import ServiceSettings

if TYPE_CHECKING:
    from service.tracing import Traces

log = structlog.get_logger("service")

YOUNG_OBJECTS: Final = 50_000
"""New objects between two looks for garbage. Requests leave no cycles behind, so a look finds nothing; with Python's
own 700 there are many a second, and now and then one through everything that came since the start."""
ROUTES = (
    Route("/v1/feed", feed_or_explained, methods=["GET"]),
    Route("/v1/tenants/{tenant}/feed/default", default_feed, methods=["GET"]),
    Route("/v1/events", events, methods=["POST"]),
    Route("/v1/users/{id}", delete_user, methods=["DELETE"]),
    Route("/v1/erasures/{id}", get_erasure, methods=["GET"]),
    Route("/v1/config", config, methods=["GET"]),
    Route("/v1/admin/videos", put_videos, methods=["PUT"]),
    Route("/v1/admin/videos", get_videos, methods=["GET"]),
    Route("/v1/admin/videos/{id:path}", get_video, methods=["GET"]),
    Route("/v1/admin/videos/{id:path}", delete_video, methods=["DELETE"]),
    Route("/v1/admin/policy", get_policy, methods=["GET"]),
    Route("/v1/admin/policy", put_draft, methods=["PUT"]),
    Route("/v1/admin/policy/history", get_history, methods=["GET"]),
    Route("/v1/admin/policy:validate", validate, methods=["POST"]),
    Route("/v1/admin/policy:preview", preview_policy, methods=["POST"]),
    Route("/v1/admin/policy:publish", publish, methods=["POST"]),
    Route("/v1/admin/policy:rollback", roll_back, methods=["POST"]),
    Route("/v1/admin/flags/personalisation", get_flag, methods=["GET"]),
    Route("/v1/admin/flags/personalisation", put_flag, methods=["PUT"]),
    Route("/v1/admin/audit", get_audit, methods=["GET"]),
    Route("/v1/admin/tenants", get_tenants, methods=["GET"]),
    Route("/v1/admin/tenants", post_tenant, methods=["POST"]),
    Route("/v1/admin/tenants/{id}", patch_tenant, methods=["PATCH"]),
    Route("/v1/admin/keys", get_keys, methods=["GET"]),
    Route("/v1/admin/keys", post_key, methods=["POST"]),
    Route("/v1/admin/keys/{id}", patch_key, methods=["PATCH"]),
    Route("/v1/admin/playlists", get_playlists, methods=["GET"]),
    Route("/v1/admin/playlists/{id:path}", get_playlist, methods=["GET"]),
    Route("/v1/admin/playlists/{id:path}", put_playlist, methods=["PUT"]),
    Route("/v1/admin/playlists/{id:path}", delete_playlist, methods=["DELETE"]),
    Route("/v1/admin/listing", get_listing, methods=["GET"]),
    Route("/v1/admin/listing", put_listing, methods=["PUT"]),
    Route("/v1/admin/listing", delete_listing, methods=["DELETE"]),
    Route("/v1/admin/webhooks/secrets", post_secret, methods=["POST"]),
    Route("/v1/admin/webhooks/deliveries", get_deliveries, methods=["GET"]),
    Route("/v1/webhooks/cms", receive, methods=["POST"]),
    Route("/v1/explain/{request_id}", explain, methods=["GET"]),
)
HOT: Final = {("GET", "/v1/feed"): feed_or_explained, ("POST", "/v1/events"): events}


def asgi(app: FastAPI) -> ASGIApp:
    """What a server runs: `app` behind the layers that every request passes, the outermost first.

    Outside the framework, because a hot route needs none of the framework's own five layers.
    """
    return Measured(Bounded(Direct(app, endpoints=HOT)), app.state.traces)


def application(settings: ServiceSettings) -> FastAPI:
    """The application with the given settings."""
    traces = opened_traces(settings.trace_share)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings) as resources:
            app.state.resources = resources
            gc.collect()
            gc.freeze()  # what lives as long as the process need not be looked through again and again
            gc.set_threshold(YOUNG_OBJECTS)
            gc.enable()  # `service.worker` had turned it off
            kept = [asyncio.create_task(each) for each in (gauges.keep_telling(resources), spare.keep_giving_back())]
            log.info("worker_started", tenants=len(resources.live.config.tenants), ready=resources.live.ready)
            yield
            log.info("worker_stopped")
            for task in kept:
                task.cancel()
            for task in kept:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if traces is not None:
                traces.close()

    app = FastAPI(
        title="Personalised vertical-video feeds",
        version="1",
        lifespan=lifespan,
        routes=list(ROUTES),
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is in telemetry.py and tracing.py
    )
    app.state.traces = traces
    app.openapi = openapi.document  # type: ignore[method-assign]  # FastAPI's documented way to bring one's own
    for kind in (FeedError, PolicyError, Exception):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    return app


def opened_traces(share: float) -> Traces | None:
    """Where spans go; nowhere, and nothing of OpenTelemetry loaded, when no share of the requests is traced."""
    if not share:
        return None
    from service.tracing import Traces

    return Traces(share)


class Measured:
    """Counts and times each request by route, until its answer is sent: what is done after that keeps nobody waiting.

    Pure ASGI: a few microseconds. `traces`: where spans go, None for nowhere.
    """

    def __init__(self, app: ASGIApp, traces: Traces | None) -> None:
        self.app = app
        self.traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, sent = time.perf_counter(), 500, 0.0

        async def observed(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            sent = time.perf_counter()

        try:
            await self.app(scope, receive, observed)
        finally:
            sent = sent or time.perf_counter()
            telemetry.observe_request(scope, status, sent - began)
            if self.traces is not None:
                self.traces.record(scope, status, began_s=began, sent_s=sent)
