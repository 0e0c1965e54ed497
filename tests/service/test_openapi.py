"""The OpenAPI document is true: compared with the routes, asked for with its examples, and with invented requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.app import ROUTES
from service.errors import PROBLEMS
from service.openapi import document
from service.operation import Operation
from service.operations import OPERATIONS
from tests.support.running import eventually, video
from tests.support.served import Served, served

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip
by_name = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tenant that the examples speak of, and its videos."""
    videos = [video("talk-1", "How bread rises"), video("talk-2", "How trains stop")]
    with served(tmp_path_factory.mktemp("openapi"), {"acme": videos}) as started:
        yield started


@pytest.fixture(scope="module")
def keys(service: Served) -> dict[str | None, str]:
    """A key of each scope."""
    of_tenant = service.keys["acme"]
    return {"pk": of_tenant.publishable, "sk": of_tenant.secret, "adm": service.admin_key, None: ""}


@pytest.fixture
def _awake(service: Served, keys: dict[str | None, str]) -> None:
    """The tenant is active, though an invented request before may have suspended it."""
    headers = {"Authorization": f"Bearer {keys['adm']}", "If-Match": "*"}
    change = {"status": "active", "reason": "the next test"}
    assert service.client.patch("/v1/admin/tenants/acme", json=change, headers=headers).status_code == 200
    eventually(lambda: service.resources.live.config.tenants["acme"].status == "active")


def test_the_committed_document_is_the_one_the_code_makes() -> None:
    """docs/openapi.json is what `python -m service openapi` prints; a change of the API shows in its diff."""
    assert json.loads(COMMITTED.read_text()) == document(), "run: python -m service openapi > docs/openapi.json"


def test_it_is_what_the_service_serves(service: Served) -> None:
    """/openapi.json needs no key and is the same document."""
    assert service.client.get("/openapi.json").json() == document()


def test_it_is_an_openapi_document() -> None:
    """Every schema in it is a JSON schema, and every reference leads somewhere."""
    whole = document()

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(whole)):
        found: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for schema in whole["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_every_route_is_in_it_and_nothing_else() -> None:
    """A route that is added without its entry in OPERATIONS fails here, and so does an entry without a route."""
    routes = {
        (method, route.path.replace(":path", ""))
        for route in ROUTES
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert {(operation.method, operation.path) for operation in OPERATIONS} == routes


def test_every_problem_type_is_used() -> None:
    """What can be answered is documented somewhere, and what is documented exists."""
    used = {kind for operation in OPERATIONS for kind in operation.problems}
    assert used <= {kind for _, kind, _ in PROBLEMS.values()}
    assert {kind for operation in OPERATIONS for kind in operation.kinds} == {kind for _, kind, _ in PROBLEMS.values()}


def request_of(operation: Operation, key: str) -> dict[str, Any]:
    """The request that an operation's examples describe."""
    path, query, headers = operation.path, {}, {"Authorization": f"Bearer {key}"} if key else {}
    for parameter in operation.parameters:
        if parameter.example is None:
            continue
        if parameter.place == "path":
            path = path.replace("{" + parameter.name + "}", str(parameter.example))
        elif parameter.place == "query":
            query[parameter.name] = parameter.example
        else:
            headers[parameter.name] = parameter.example
    body = {} if operation.body_example is None else {"json": operation.body_example}
    return {"method": operation.method, "url": path, "params": query, "headers": headers, **body}


@by_name
def test_the_examples_work(service: Served, keys: dict[str | None, str], operation: Operation) -> None:
    """Each operation is asked for with its examples and answers as documented, with success where it can."""
    answer = service.client.request(**request_of(operation, keys[operation.scope]))
    assert str(answer.status_code) in document()["paths"][operation.path][operation.method.lower()]["responses"]
    assert answer.status_code < 400 or operation.examples_fail == answer.status_code, answer.text


@by_name
@pytest.mark.usefixtures("_awake")
def test_requests_nobody_thought_of(service: Served, keys: dict[str | None, str], operation: Operation) -> None:
    """Invented requests, fitting the document and not: no 5xx, no status, header or body that is not documented."""
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=service.base_url)
    found = schema[operation.path][operation.method]
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        try:
            strategy = found.as_strategy(generation_mode=mode)
        except Exception as error:  # an operation to which no wrong request can be made
            if "negative" not in str(error).lower():
                raise
            continue

        @given(case=strategy)
        @settings(
            max_examples=25, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: Any) -> None:
            headers = {"Authorization": f"Bearer {keys[operation.scope]}"} if operation.scope else {}
            case.call_and_validate(headers=headers, checks=CHECKS)

        check()


@pytest.mark.usefixtures("_awake")
def test_an_explained_page_is_documented(service: Served, keys: dict[str | None, str]) -> None:
    """With `explain=1` a secret key gets what the document says, and an app's key the refusal it says."""
    operation = next(one for one in OPERATIONS if one.path == "/v1/feed")
    assert {"explain", "item"} <= {parameter.name for parameter in operation.parameters}
    query = {"explain": "1", "item": "talk-1"}
    bearer = {scope: {"Authorization": f"Bearer {keys[scope]}"} for scope in ("pk", "sk")}
    explained = service.client.get("/v1/feed", params=query, headers=bearer["sk"])
    schema = {**document()["paths"]["/v1/feed"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]}
    explanation = schema["anyOf"][1]
    jsonschema_rs.validate(explanation, explained.json())
    assert not jsonschema_rs.is_valid(explanation, service.feed("acme"))
    assert service.client.get("/v1/feed", params=query, headers=bearer["pk"]).status_code == 403


def test_no_error_is_without_its_document(service: Served) -> None:
    """What Starlette answers by itself (no such route, no such method) is a problem document as well."""
    answers = [service.client.get("/v2/nothing"), service.client.delete("/v1/feed"), service.client.get("/")]
    for answer in answers:
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json())
