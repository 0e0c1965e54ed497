"""Errors: one table, proved complete, and each answer over HTTP as the table says."""

from __future__ import annotations

import gzip
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

import indexer
import ranking
import retrieval
import service as service_package
from ranking.errors import PolicyError
from retrieval.errors import FeedError, Problem, RateLimited, StoreUnavailable
from service.bounds import MAX_HEADER_BYTES, MAX_HEADERS, MAX_PARAMETERS, MAX_URI_BYTES
from service.errors import PROBLEMS, InvalidRequest, answer, on_error, problem_of
from service.events import MAX_BYTES, MAX_EVENTS
from tests.support.running import video
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One tenant with one video."""
    with served(tmp_path_factory.mktemp("errors"), {"acme": [video("a", "a")]}) as started:
        yield started


def every_error() -> Iterator[type[Exception]]:
    """Every class of error that the project raises on purpose, wherever it is defined."""
    for package in (ranking, retrieval, indexer, service_package):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    known: list[type[Exception]] = [FeedError, PolicyError]
    while known:
        found = known.pop()
        known += found.__subclasses__()
        if found is not FeedError and not found.__module__.startswith("indexer"):
            yield found


def test_the_table_is_complete() -> None:
    """Each error that can reach a request has a status and a type, its own or its parent's."""
    missing = [error.__name__ for error in every_error() if problem_of(error.__new__(error)) is None]
    assert not missing, "add them to service.errors.PROBLEMS"


def test_the_table_is_consistent() -> None:
    """Every type of problem has one status; all are errors of the caller but the one that asks to try again."""
    by_kind: dict[str, set[int]] = {}
    for status, kind, title in PROBLEMS.values():
        by_kind.setdefault(kind, set()).add(status)
        assert title
        assert 400 <= status < 500 or (status, kind) == (503, "overloaded")
    assert all(len(statuses) == 1 for statuses in by_kind.values())


@pytest.mark.parametrize("wanted_s", [-5, 0, 1, 3, 60])
def test_retry_after_is_one_to_five_seconds(wanted_s: int) -> None:
    """Never 0, which would invite a stampede, and never so long that an app gives up."""
    limited = answer(RateLimited(wanted_s))
    assert limited.status_code == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 5
    assert 1 <= int(answer(StoreUnavailable("away")).headers["retry-after"]) <= 5


def test_a_stores_words_are_not_for_callers() -> None:
    """What an error says about hosts and files stays in the log."""
    body = bytes(answer(StoreUnavailable("redis 10.0.0.7 refused /secret/path")).body)
    assert b"10.0.0.7" not in body
    assert b"secret" not in body


async def test_what_nobody_foresaw_is_a_500_without_details() -> None:
    """A document like all others, with nothing of the exception in it."""
    request = Request({"type": "http", "path": "/v1/feed", "headers": [], "method": "GET"})
    unforeseen = await on_error(request, ValueError("the user 5f2d1c"))
    assert unforeseen.status_code == 500
    assert b"5f2d1c" not in unforeseen.body
    assert unforeseen.media_type == "application/problem+json"


def test_every_problem_of_an_input_is_named() -> None:
    """Each with the pointer of its field."""
    body = bytes(answer(InvalidRequest([Problem("/a", "is wrong"), Problem("/b", "is missing")])).body)
    assert body.count(b'"pointer"') == 2


JSON_TYPE = {"Content-Type": "application/json"}


def get(path: str, **headers: str) -> dict[str, Any]:
    """A GET."""
    return {"method": "GET", "url": path, "headers": headers}


def post(content: bytes, **headers: str) -> dict[str, Any]:
    """A POST of events with this body; an underscore in a header's name is a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"method": "POST", "url": "/v1/events", "content": content, "headers": JSON_TYPE | named}


REQUESTS: list[tuple[int, str, dict[str, Any]]] = [
    (400, "invalid-request", get("/v1/feed?limit=0")),
    (400, "invalid-request", get(f"/v1/feed?surface={'x' * 65}")),
    (400, "invalid-request", get("/v1/feed?" + "&".join(f"p{n}=1" for n in range(MAX_PARAMETERS + 1)))),
    (400, "invalid-request", {**get("/v1/feed"), "headers": {"Feed-User": "short"}}),
    (400, "invalid-request", post(b"{}")),
    (400, "invalid-request", post(b'{"events": []}')),
    (400, "invalid-request", post(b'{"events": [' + b"{}," * MAX_EVENTS + b"{}]}")),
    (400, "invalid-request", post(b'{"events": [{}], "sent_at": "today"}')),
    (400, "invalid-request", post(b"{")),
    (400, "invalid-request", post(b"{}", content_encoding="gzip")),
    (400, "invalid-request", post(b"{}", content_encoding="br")),
    (400, "invalid-cursor", get("/v1/feed?cursor=abc")),
    (401, "unauthenticated", get("/v1/feed", Authorization="Bearer nobody")),
    (403, "forbidden-scope", get("/v1/admin/videos")),
    (404, "not-found", get("/v1/tenants/other/feed/default")),
    (404, "not-found", get("/v1/nothing-here")),
    (405, "method-not-allowed", {**get("/v1/feed"), "method": "DELETE"}),
    (413, "payload-too-large", post(b" " * (MAX_BYTES + 1))),
    (413, "payload-too-large", post(gzip.compress(b" " * (11 * MAX_BYTES)), content_encoding="gzip")),
    (414, "uri-too-long", get(f"/v1/feed?surface={'x' * MAX_URI_BYTES}")),
    (415, "unsupported-media-type", {**post(b"{}"), "headers": {"Content-Type": "text/plain"}}),
    (431, "headers-too-large", get("/v1/feed", Long="x" * MAX_HEADER_BYTES)),
    (431, "headers-too-large", get("/v1/feed", **{f"X{n}": "x" for n in range(MAX_HEADERS)})),
]


@pytest.mark.parametrize(("status", "kind", "sent"), REQUESTS, ids=[f"{n}-{s}" for n, (s, _, _) in enumerate(REQUESTS)])
def test_each_limit_answers_clearly(service: Served, status: int, kind: str, sent: dict[str, Any]) -> None:
    """Status, type and form of each refusal, over HTTP."""
    more = {name: value for name, value in sent.items() if name not in ("method", "url")}
    found = service.call(sent["method"], sent["url"], "acme", **more)
    assert found.status_code == status, found.text[:300]
    body = found.json()
    assert body["type"] == f"/problems/{kind}"
    assert body["status"] == status
    assert found.headers["content-type"] == "application/problem+json"


def test_every_method_of_an_address_is_allowed(service: Served) -> None:
    """A 405 names what the address takes on all its routes, not on the first one alone."""
    found = service.call("POST", "/v1/admin/videos", "acme", scope="sk")
    assert (found.status_code, found.headers["allow"]) == (405, "GET, HEAD, PUT")


def test_a_body_that_never_ends_is_cut_off(service: Served) -> None:
    """Chunks without a declared length are counted as they come."""

    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 8192

    found = service.call("POST", "/v1/events", "acme", content=endless(), headers={"Content-Type": "application/json"})
    assert found.status_code == 413


def test_events_that_cannot_be_stored_are_not_acknowledged(service: Served) -> None:
    """503 with Retry-After while Redis is away; the feed meanwhile answers."""
    event = {
        "id": "0190b6f2-7a5c-7c1e-9a6b-2f3d4c5b6a79",
        "type": "like",
        "item_id": "a",
        "occurred_at": "2026-01-01T00:00:00Z",
    }
    with service.without_redis():
        refused = service.call("POST", "/v1/events", "acme", user="u", json={"events": [event]})
        assert service.get("/v1/feed", "acme", user="u").status_code == 200
    assert refused.status_code == 503
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    accepted = service.call("POST", "/v1/events", "acme", user="u", json={"events": [event]})
    assert accepted.json() == {"accepted": 1, "duplicate": 0, "rejected": []}
