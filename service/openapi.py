"""The OpenAPI document: one table of operations, and what is the same for all of them.

Written by hand where FastAPI would guess, because the routes answer ready bytes. What keeps it true: a test asks for
every operation with its own examples, one compares it with the routes of the application, and one lets a program
invent thousands of requests. `python -m service openapi` prints it; docs/openapi.json is what is committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from service.errors import PROBLEMS
from service.openapi_schemas import Schema, ref, schemas, text
from service.operation import by_status, response_name
from service.operations import OPERATIONS

SCOPES: Final = {
    "pk": "a publishable key `pk_…`, which may be in an app",
    "sk": "a secret key `sk_…`, server to server",
    "adm": "an operator's key `adm_…`",
}
PROBLEM_JSON: Final = "application/problem+json"
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
