"""Hot routes go past the router; what is answered is the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

from retrieval.errors import RateLimited
from service.app import HOT, ROUTES
from service.direct import Direct


async def answered(app: Any, method: str, path: str) -> tuple[int, bytes]:
    """(status, body) of one request."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    await app({**scope, "headers": [], "path_params": {}, "root_path": "", "app": Starlette()}, receive, send)
    return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:])


async def hot(request: Request) -> Response:
    return Response(f"hot {request.scope['endpoint'].__name__}")


async def other(_request: Request) -> Response:
    return Response("routed")


async def limited(_request: Request) -> Response:
    raise RateLimited(3)


async def broken(_request: Request) -> Response:
    raise ZeroDivisionError("a bug, with an id in it")


async def behind(request: Request) -> Response:
    return Response("fine", background=BackgroundTask(broken, request))


ENDPOINTS = {("GET", "/hot"): hot, ("GET", "/limited"): limited, ("GET", "/broken"): broken}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/hot", (200, b"hot hot")), ("GET", "/other", (200, b"routed")), ("POST", "/hot", (200, b"routed"))],
)
async def test_only_its_own_routes(method: str, path: str, expected: tuple[int, bytes]) -> None:
    """By method and path; the endpoint is named in the scope, where metrics and logs look for it."""
    app = Direct(Route("/{path:path}", other, methods=["GET", "POST"]).app, ENDPOINTS)
    assert await answered(app, method, path) == expected


async def test_what_is_raised_is_a_problem_document() -> None:
    """The foreseen by the table; of the unforeseen nothing is told."""
    app = Direct(Starlette(), ENDPOINTS)
    status, body = await answered(app, "GET", "/limited")
    assert (status, orjson.loads(body)["type"]) == (429, "/problems/rate-limited")
    status, body = await answered(app, "GET", "/broken")
    assert (status, orjson.loads(body)["type"]) == (500, "/problems/internal")
    assert b"a bug" not in body


async def test_what_fails_behind_an_answer_is_logged_under_its_id() -> None:
    """The client has its answer and hears of nothing; the log names the request."""
    app = Direct(Starlette(), {("GET", "/behind"): behind})
    with capture_logs() as lines, pytest.raises(ZeroDivisionError):
        await answered(app, "GET", "/behind")
    (line,) = lines
    assert (line["event"], line["log_level"], len(line["request_id"])) == ("unforeseen", "error", 24)


def test_every_hot_route_is_in_the_table_of_routes() -> None:
    """The document of the API and the answers to other methods come from there."""
    table = {(method, route.path): route.endpoint for route in ROUTES for method in route.methods or ()}
    assert {key: table.get(key) for key in HOT} == HOT
