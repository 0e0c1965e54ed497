"""docs/design.md against the code: nothing it lists is missing, nothing is invented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import capacity
from ranking.features import DEFAULT_WEIGHTS
from ranking.policy import validate
from ranking.rules import KINDS
from retrieval.archive_tables import COLUMNS
from retrieval.sources import SOURCES
from retrieval.store import Store
from service.app import ROUTES
from service.errors import PROBLEMS
from service.operations import OPERATIONS
from service.page import MODES
from tests.support.content import published, some_rows

ROOT = Path(__file__).parents[2]
DESIGN = (ROOT / "docs/design.md").read_text()
MEASURING = ("docs/performance.md", "docs/decisions/0003-index-kinds.md", "docs/decisions/0007-cursor.md")
SECTIONS = (
    "Goals, and where each is met", "Architecture", "Caching", "Data model", "API contract", "CMS configuration",
    "Trade-offs and decisions", "Capacity and cost", "Privacy and security", "Rollout", "Observability",
    "Failure modes", "With more time",
)  # fmt: skip
ARROW = re.compile(r"^\s*(\w+)\s*-{1,2}>{1,2}\s*(\w+)\s*:")


def section(title: str, level: int = 2) -> str:
    """What stands under a heading, its subsections included."""
    mark = f"\n{'#' * level} {title}"
    assert mark in DESIGN, title
    return re.split(rf"\n#{{1,{level}}} ", DESIGN.split(mark, 1)[1])[0]


def cells(text: str) -> list[list[str]]:
    """The rows of every table in a text, without heads and rules."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in row] for row in rows]
    heads = {number - 1 for number, row in enumerate(found) if set("".join(row)) <= set("-: ")}
    return [row for number, row in enumerate(found) if number not in heads and number - 1 not in heads]


def test_every_section_of_the_brief_is_there_in_its_order() -> None:
    """One document, every section."""
    places = [DESIGN.index(f"\n## {title}") for title in SECTIONS]
    assert places == sorted(places)


def test_routes_are_those_of_the_application() -> None:
    """Each route with its method, and no other."""
    told = {
        (method, path)
        for methods, path in re.findall(r"`([A-Z, ]+) (/v1/[^`]+)`", section("API contract").split("```http")[0])
        for method in methods.split(", ")
    }
    assert told == {(method, route.path) for route in ROUTES for method in (route.methods or ()) if method != "HEAD"}


def test_every_route_names_the_keys_that_may_use_it() -> None:
    """As the OpenAPI document does; a webhook is signed instead."""
    keys = {
        (one.method, one.path): ", ".join((one.scope, *one.also)) if one.scope else "signature" for one in OPERATIONS
    }
    for row in cells(section("API contract").split("```http")[0]):
        for methods, path in re.findall(r"`([A-Z, ]+) (/v1/[^`]+)`", row[0]):
            for method in methods.split(", "):
                assert row[1] == keys[method, path.replace(":path", "")], path


def test_routes_in_diagrams_exist() -> None:
    """What an arrow carries is a route of the application."""
    known = {route.path for route in ROUTES}
    for path in re.findall(r"(?:GET|PUT|POST|DELETE) (/v1/[^\s\"<?(,]+)", section("Architecture")):
        assert path in known, path


def test_problems_are_those_of_the_table() -> None:
    """Every status with every type, and no other."""
    told = {
        (int(status), kind)
        for row in cells(section("Error semantics", 3))
        for status, kind in zip_longest_last(row[0].split(", "), re.findall(r"`([a-z-]+)`", row[1]))
    }
    assert told == {(status, kind) for status, kind, _ in PROBLEMS.values()}


def zip_longest_last(statuses: list[str], kinds: list[str]) -> list[tuple[str, str]]:
    """One status for all kinds of its row, or one each."""
    return list(zip(statuses if len(statuses) > 1 else statuses * len(kinds), kinds, strict=True))


def test_features_and_their_weights() -> None:
    """Each feature once, with the weight it has unless a policy says otherwise."""
    rows = [row for row in cells(section("A feed request", 3)) if row[0].startswith("`")]
    assert {row[0].strip("`"): float(row[2]) for row in rows} == dict(DEFAULT_WEIGHTS)


def test_sources_rules_and_modes_are_named() -> None:
    """Every source, every kind of rule, every mode that the rollout speaks of."""
    request = section("A feed request", 3)
    assert all(f"`{name}`" in request for name in SOURCES)
    rows = [row[0].strip("`") for row in cells(section("CMS configuration")) if row[0].startswith("`")]
    assert sorted(rows) == sorted(KINDS)
    assert {"personalised", "holdout", "fallback", "killed"} <= set(MODES)


def test_effects_in_the_table_of_rules_are_accepted() -> None:
    """The example of each kind could be published as it stands."""
    for kind, _, effect in (row for row in cells(section("CMS configuration")) if row[0].startswith("`")):
        rule = {"id": "example", "kind": kind.strip("`"), "effect": json.loads(effect.strip("`"))}
        target = {} if kind == "`cap`" else {"target": {"items": ["a"]}}
        assert validate({"rules": [rule | target]}) == []


def test_columns_of_the_archive() -> None:
    """Both tables with every column, in order."""
    told = {row[0].strip("`"): row[1].split(", ") for row in cells(section("Archive", 3))}
    assert told == {table: [field.name for field in fields] for table, fields in COLUMNS.items()}


def test_files_of_a_snapshot(tmp_path: Path) -> None:
    """What a published generation consists of is what the tree says."""
    published(Store(tmp_path), "acme", 1, some_rows(range(30)))
    tree = section("Snapshots", 3)
    for path in tmp_path.rglob("*"):
        name = path.name
        if path.is_file() and not name.startswith("."):
            assert (name in tree) or path.parent.name == "generations", name
    assert all(f"TENANT/{name}" in tree for name in ("CURRENT", "generations/", "segments/"))


def test_capacity_is_what_the_program_computes() -> None:
    """The tables between the marks are today's: `python -m benchmarks.capacity --write`."""
    assert capacity.written(DESIGN) == DESIGN


def test_more_load_never_needs_less() -> None:
    """A law of the arithmetic: ten times the load needs at least as much of everything, and nothing is negative."""
    one, ten = capacity.LOADS[1], capacity.LOADS[2]
    for amount in (capacity.pods, capacity.redis_nodes, capacity.archive_gb, capacity.sql_gb, capacity.monthly_euros):
        assert 0 < amount(one) < amount(ten)


def test_every_threat_has_a_test() -> None:
    """Who, what, defence, and a test that exists by that name."""
    rows = cells(section("Privacy and security"))
    assert len(rows) >= 12
    for row in rows:
        file, _, name = row[3].strip("`").partition("::")
        assert name and f"def {name}(" in (ROOT / file).read_text(), row[3]


def test_every_goal_is_measured_or_tested() -> None:
    """Each row of the goals names a command, a test or a page."""
    rows = cells(section("Goals, and where each is met"))
    assert len(rows) >= 7
    for row in rows:
        assert re.search(r"`(python|make|tests/)|\]\(", row[2]), row[0]


@pytest.mark.parametrize("number", range(DESIGN.count("```mermaid")))
def test_diagrams_name_whom_they_draw(number: int) -> None:
    """Each diagram is of a known kind; in a sequence every arrow is between declared participants, all of whom act."""
    drawn = DESIGN.split("```mermaid\n")[number + 1].split("```")[0]
    kind = drawn.split()[0]
    assert kind in ("flowchart", "sequenceDiagram")
    if kind == "sequenceDiagram":
        declared = set(re.findall(r"participant (\w+) as", drawn))
        acting = {name for line in drawn.splitlines() if (arrow := ARROW.match(line)) for name in arrow.groups()}
        assert acting == declared
        assert ";" not in drawn  # mermaid ends a statement there


@pytest.mark.parametrize("page", MEASURING)
def test_figures_stand_beside_their_command(page: str) -> None:
    """A section with a table of measured figures names the command that repeats them."""
    text = (ROOT / page).read_text()
    for part in re.split(r"\n## ", text)[1:] if page.endswith("performance.md") else [text]:
        if re.search(r"\d\s?(ms|µs|s|MB|/s)\b", part):
            assert re.search(r"python -m benchmarks\.|python benchmarks/|make |benchmarks/\w+\.py", part), part[:60]
