"""What the tables of operations are written in: an operation, its parameters and answers, and each as OpenAPI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.errors import PROBLEMS
from service.openapi_schemas import Schema, text

EVERYWHERE: Final = ("invalid-request", "request-timeout", "uri-too-long", "headers-too-large")
WITH_KEY: Final = (*EVERYWHERE, "unauthenticated", "forbidden-scope", "tenant-suspended", "rate-limited")


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
    """One method of one path. `scope`: of the key, None for none; `also`: other scopes that may, on the terms the
    summary or a parameter states; `problems`: types beside those of every request.

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
    also: tuple[str, ...] = ()

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
            "security": [{scope: []} for scope in (self.scope, *self.also) if scope],
            "parameters": [parameter.described() for parameter in self.parameters],
            **({} if self.body is None else {"requestBody": {"required": True, "content": request}}),
            "responses": dict(sorted(responses.items())),
        }


def by_status(kinds: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Problem types by the status they come with."""
    known = {kind: status for status, kind, _ in PROBLEMS.values()}
    statuses = sorted({known[kind] for kind in kinds})
    return {status: tuple(sorted({kind for kind in kinds if known[kind] == status})) for status in statuses}


def response_name(kinds: Sequence[str]) -> str:
    """Under which the response of these problem types is written down once."""
    return "_or_".join(kinds)
