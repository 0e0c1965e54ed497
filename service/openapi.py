"""The OpenAPI document: one table of operations, and what is the same for all of them.

Written by hand where FastAPI would guess, because the routes answer ready bytes. What keeps it true: a test asks for
every operation with its own examples, one compares it with the routes of the application, and one lets a program
invent thousands of requests. `python -m service openapi` prints it; docs/openapi.json is what is committed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.errors import PROBLEMS
from service.openapi_schemas import Schema, ref, schemas, text

SCOPES: Final = {
    "pk": "a publishable key `pk_…`, which may be in an app",
    "sk": "a secret key `sk_…`, server to server",
    "adm": "an operator's key `adm_…`",
}
EVERYWHERE: Final = ("invalid-request", "uri-too-long", "headers-too-large")
WITH_KEY: Final = (*EVERYWHERE, "unauthenticated", "forbidden-scope", "tenant-suspended", "rate-limited")
PROBLEM_JSON: Final = "application/problem+json"


@dataclass(frozen=True)
class Parameter:
    """One parameter. `place`: path, query or header; `example` is really sent by a test."""

    name: str
    place: str
    about: str
    schema: Schema = field(default_factory=text)
    example: Any = None

    def described(self) -> Schema:
        shown = {} if self.example is None else {"example": self.example}
        return {
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "description": self.about,
            "schema": self.schema,
            **shown,
        }


@dataclass(frozen=True)
class Answer:
    """A success: what it means, the schema of its body (None: no body) and its headers."""

    about: str
    schema: Schema | None = None
    headers: tuple[str, ...] = ()

    def described(self) -> Schema:
        content = {} if self.schema is None else {"content": {"application/json": {"schema": self.schema}}}
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in self.headers}
        return {"description": self.about, **({"headers": headers} if headers else {}), **content}


@dataclass(frozen=True)
class Operation:
    """One method of one path. `scope`: of the key, None for none; `problems`: types beside those of every request.

    examples_fail: the status the examples get where success would need something made before, 0 for success.
    """

    method: str
    path: str
    summary: str
    scope: str | None
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[str, ...] = ()
    body: Schema | None = None
    body_example: Any = None
    examples_fail: int = 0

    @property
    def name(self) -> str:
        """operationId."""
        words = f"{self.method} {self.path}".lower().replace("{", "").replace("}", "")
        return re.sub(r"[^a-z0-9]+", "_", words)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types of every problem it may answer."""
        return (*(WITH_KEY if self.scope else EVERYWHERE), *self.problems)

    def described(self) -> Schema:
        responses: dict[str, Schema] = {str(status): answer.described() for status, answer in self.answers.items()}
        kinds = self.kinds
        request = {"application/json": {"schema": self.body, "example": self.body_example}}
        for status, of_status in by_status(kinds).items():
            responses[str(status)] = {"$ref": f"#/components/responses/{response_name(of_status)}"}
        return {
            "operationId": self.name,
            "summary": self.summary,
            "security": [{self.scope: []}] if self.scope else [],
            "parameters": [parameter.described() for parameter in self.parameters],
            **({} if self.body is None else {"requestBody": {"required": True, "content": request}}),
            "responses": dict(sorted(responses.items())),
        }


HEADERS: Final[Mapping[str, Schema]] = {
    "ETag": text("present it as If-None-Match to learn whether the answer is still right"),
    "Cache-Control": text("how long the answer may be kept, and by whom"),
    "Vary": text("the request headers the answer depends on"),
    "Server-Timing": text("milliseconds of each stage"),
    "X-Request-Id": text("as `request_id` in the body"),
    "Location": text("where the result will be"),
    "Retry-After": {"type": "integer", "minimum": 1, "maximum": 5, "description": "seconds to wait"},
    "WWW-Authenticate": text(),
}


def document() -> Schema:
    """The whole document, the same bytes for the same code."""
    from service.operations import OPERATIONS  # the table is long and reads better in a file of its own

    paths: dict[str, dict[str, Schema]] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = operation.described()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Personalised vertical-video feeds",
            "version": "1",
            "description": "The tenant comes from the key alone. Errors are RFC 9457 problem documents; what an app "
            "does on each is in docs/sdk.md. Within v1 fields and problem types are added, never removed or changed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {
            "schemas": schemas(),
            "headers": {name: {"schema": schema} for name, schema in HEADERS.items()},
            "responses": {
                response_name(kinds): _problem_response(status, kinds)
                for operation in OPERATIONS
                for status, kinds in by_status(operation.kinds).items()
            },
            "securitySchemes": {
                scope: {"type": "http", "scheme": "bearer", "description": about} for scope, about in SCOPES.items()
            },
        },
    }


def by_status(kinds: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Problem types by the status they come with."""
    known = {kind: status for status, kind, _ in PROBLEMS.values()}
    statuses = sorted({known[kind] for kind in kinds})
    return {status: tuple(sorted({kind for kind in kinds if known[kind] == status})) for status in statuses}


def response_name(kinds: Sequence[str]) -> str:
    """Under which the response of these problem types is written down once."""
    return "_or_".join(kinds)


def _problem_response(status: int, kinds: Sequence[str]) -> Schema:
    titles = {kind: title for _, kind, title in reversed([*PROBLEMS.values()])}
    schema = {"allOf": [ref("Problem"), {"properties": {"type": {"enum": [f"/problems/{kind}" for kind in kinds]}}}]}
    headers = {429: "Retry-After", 503: "Retry-After", 401: "WWW-Authenticate"}
    name = headers.get(status)
    return {
        "description": "; ".join(f"`{kind}`: {titles[kind]}" for kind in kinds),
        **({"headers": {name: {"$ref": f"#/components/headers/{name}"}}} if name else {}),
        "content": {PROBLEM_JSON: {"schema": schema}},
    }
