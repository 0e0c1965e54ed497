"""What the examples of docs/sdk.md name exists: paths, headers, statuses and fields of all three languages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
API: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
SCHEMAS = API["components"]["schemas"]
BLOCKS = dict(re.findall(r"```(swift|kotlin|ts)\n(.*?)```", (DOCS / "sdk.md").read_text(), re.DOTALL))
NAMED: dict[str, dict[str, Any]] = {
    "swift": {"paths": {"/v1/feed"}, "statuses": {200, 304, 429, 503}, "fields": set()},
    "kotlin": {"paths": set(), "statuses": {207, 413, 401, 403, 429, 503}, "fields": set()},
    "ts": {
        "paths": {"/v1/feed"},
        "statuses": {200, 429, 503},
        "fields": {"items", "next_cursor", "request_id", "degraded", "id", "title", "media_url", "position"},
    },
}
"""What a reader finds in each; an example that names something else must be entered here."""
by_language = pytest.mark.parametrize("language", NAMED)


@by_language
def test_paths_and_statuses_exist(language: str) -> None:
    """Every path is in the document, every status is one that its operations answer."""
    code = BLOCKS[language]
    paths = set(re.findall(r"/v1/[a-z/]+", code))
    statuses = {int(found) for found in re.findall(r"\b[2-5]\d\d\b(?! \*)", code)}
    assert paths == NAMED[language]["paths"]
    assert NAMED[language]["statuses"] <= statuses
    assert paths <= set(API["paths"])
    path = "/v1/events" if language == "kotlin" else "/v1/feed"
    (operation,) = API["paths"][path].values()
    assert {str(one) for one in NAMED[language]["statuses"]} <= set(operation["responses"])


@by_language
def test_headers_exist(language: str) -> None:
    """Every quoted header is one of the document's, or the one the keys go in."""
    found = set(re.findall(r'"([A-Z][A-Za-z]*(?:-[A-Z][A-Za-z]*)+|ETag|Authorization)"', BLOCKS[language]))
    parameters = {
        one["name"] for path in API["paths"].values() for of in path.values() for one in of["parameters"]
        if one["in"] == "header"
    }  # fmt: skip
    assert found <= parameters | set(API["components"]["headers"]) | {"Authorization"}
    assert bool(found) == (language != "kotlin")


def test_fields_exist() -> None:
    """What the TypeScript declares of a page and an item is in the document's schemas."""
    interfaces = dict(re.findall(r"interface (\w+) \{(.*?)\}", BLOCKS["ts"]))
    declared = {name: set(re.findall(r"(\w+)\??:", body)) for name, body in interfaces.items()}
    assert declared["Page"] <= set(SCHEMAS["Page"]["properties"])
    assert declared["Item"] - {"request_id"} <= set(SCHEMAS["Item"]["properties"])
    assert declared["Page"] | declared["Item"] == NAMED["ts"]["fields"]


def test_every_status_of_the_table_exists() -> None:
    """And every problem type that the document knows is in the guide's table, or belongs to administration."""
    text = (DOCS / "sdk.md").read_text()
    table = text[text.index("## Every status") : text.index("**Retries have a budget**")]
    named = set(re.findall(r"`([a-z]+-[a-z-]+|overloaded|unauthenticated)`", table))
    known = {one.removeprefix("/problems/") for one in SCHEMAS["Problem"]["properties"]["type"]["enum"]}
    assert named <= known
    of_apps = ("/v1/feed", "get"), ("/v1/events", "post"), ("/v1/config", "get")
    answered = {
        status for path, method in of_apps for status in API["paths"][path][method]["responses"] if status >= "400"
    }
    assert answered <= set(re.findall(r"\b[45]\d\d\b", table))


def test_the_typescript_is_the_file_that_is_run() -> None:
    """What stands in the guide is what `make sdk-examples` compiles."""
    assert BLOCKS["ts"] == (DOCS / "examples" / "scroll.ts").read_text()
