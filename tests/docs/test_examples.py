"""The HTTP examples of docs/design.md, run in their order against a service, as a reader would."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.support.running import video
from tests.support.served import Served, served

PAGE = Path(__file__).parents[2] / "docs/design.md"
ANYTHING = "…"
TENANT = "acme"
NAME = re.compile(r"\{([a-z_][a-z0-9_.]*)\}")


def examples() -> list[str]:
    """The fenced blocks, in order."""
    return [part.split("```")[0].strip() for part in PAGE.read_text().split("```http\n")[1:]]


def looked_up(name: str, said: dict[str, Any]) -> str:
    """`items.0.id` of what was said before."""
    found: Any = said
    for part in name.split("."):
        found = found[int(part)] if part.isdigit() else found[part]
    return str(found)


def fits(expected: Any, found: Any) -> bool:
    """Whether an answer has what the example shows of it; … is anything."""
    if expected == ANYTHING:
        return found is not None
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(name in found and fits(expected[name], found[name]) for name in expected)
    if isinstance(expected, list):
        pairs = zip(expected, found, strict=True) if isinstance(found, list) and len(found) == len(expected) else None
        return pairs is not None and all(fits(*pair) for pair in pairs)
    return bool(expected == found)


def run(service: Served, example: str, said: dict[str, Any]) -> None:
    """Send what the example sends, expect what it shows, and remember the answer in `said`."""
    head, *rest = example.split("\n\n")
    expected = rest.pop()
    keys = {"pk_…": service.keys[TENANT].publishable, "sk_…": service.keys[TENANT].secret, "adm_…": service.admin_key}
    known = said | {"tenant": TENANT, "now": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def filled(text: str) -> str:
        for mark, key in keys.items():
            text = text.replace(mark, key)
        return NAME.sub(lambda found: looked_up(found[1], known), text)

    line, *headers = filled(head).splitlines()
    method, path = line.split(" ", 1)
    body = filled("\n\n".join(rest))
    answer = service.client.request(
        method,
        path,
        headers={"Content-Type": "application/json"} | dict(one.split(": ", 1) for one in headers),
        content=body or None,
    )
    status, _, shown = expected.partition("\n")
    assert (answer.status_code, head) == (int(status), head), answer.text
    if shown:
        assert fits(json.loads(shown), answer.json()), f"{head}\n{answer.text}"
    said |= answer.json()


def test_the_examples_run(tmp_path: Path) -> None:
    """Every example answers what it says it answers, one after the other, on an empty user of a small tenant."""
    videos = [video(f"v{n}", f"bread part {n}", tags=["bread"]) for n in range(30)]
    found = examples()
    assert len(found) >= 8
    said: dict[str, Any] = {}
    with served(tmp_path, {TENANT: videos}) as service:
        for example in found:
            run(service, example, said)


def test_an_example_that_is_wrong_is_noticed() -> None:
    """The comparison itself: a missing key, another value, a longer list."""
    assert fits({"a": ANYTHING, "b": [1]}, {"a": 0, "b": [1], "c": 2})
    assert not fits({"a": 1}, {"b": 1})
    assert not fits([{"a": 1}], [{"a": 1}, {"a": 1}])
    assert not fits({"a": ANYTHING}, {"a": None})
