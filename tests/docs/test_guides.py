"""The guides for SDKs and content managers: what they show is valid, what they list is complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from ranking.policy import validate
from ranking.rank import REASONS
from ranking.rules import KINDS
from service.events import SIGNALS
from service.page import CAUSES, MODES

DOCS = Path(__file__).resolve().parents[2] / "docs"
SDK, CMS = ((DOCS / name).read_text() for name in ("sdk.md", "cms.md"))
API: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())


def documents(page: str) -> Iterator[dict[str, Any]]:
    """Every JSON object in the page's blocks of JSON; a block may hold several."""
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        rest = block.strip()
        while rest:
            found, end = json.JSONDecoder().raw_decode(rest)
            yield found
            rest = rest[end:].strip()


@pytest.mark.parametrize("shown", list(documents(CMS)), ids=lambda shown: shown.get("id", "policy"))
def test_what_a_content_manager_copies_can_be_published(shown: dict[str, Any]) -> None:
    """A rule or a policy as it stands in docs/cms.md."""
    policy = {"rules": [shown]} if "kind" in shown else shown
    assert validate(policy) == []


def test_every_kind_of_rule_but_bury_has_an_example() -> None:
    """`bury` is a boost with a factor below 1, and shown beside it in words."""
    assert {shown["kind"] for shown in documents(CMS) if "kind" in shown} == set(KINDS) - {"bury"}


def test_what_an_sdk_gets_is_as_the_document_says() -> None:
    """The page and the problem of docs/sdk.md have every field of their schema, in its type, and no other."""
    page, problem = documents(SDK)
    for shown, name in ((page, "Page"), (problem, "Problem")):
        schema = {"$ref": f"#/components/schemas/{name}", "components": API["components"]}
        jsonschema_rs.validate(schema, shown)
        assert set(shown) == set(API["components"]["schemas"][name]["properties"])
    assert set(page["items"][0]) == set(API["components"]["schemas"]["Item"]["properties"])


def test_every_word_an_sdk_may_read_is_told() -> None:
    """Modes, causes, reasons and types of events: all of them, and none that is not sent."""
    modes, causes = (SDK.split(f"| `{head}` |")[1].split("\n\n")[0] for head in ("mode", "degraded"))
    first = [row.split("|")[1] for text in (modes, causes) for row in text.splitlines() if row.startswith("| `")]
    assert {word for cell in first for word in re.findall(r"`(\w+)`", cell)} == {*MODES, *CAUSES}
    (reasons,) = re.findall(r"^`reason` is (.*)\.", SDK, re.M)
    assert set(re.findall(r"`(\w+)`", reasons.split(".")[0])) == set(REASONS)
    (types,) = re.findall(r"^- Types: (.*?)\.$", SDK, re.M | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", types)) - {"value"} == set(SIGNALS)
