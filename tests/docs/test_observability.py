"""docs/observability.md, held against a running system and against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from tests.support.observed import Observed

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/observability.md").read_text()
ROW: Final = re.compile(r"^\| `([a-z_]+)` \| ([a-z, ]+) \|([^|]*)\|", re.M)
LIBRARY_OWN: Final = ("process_", "python_")


def section(heading: str) -> dict[str, tuple[str, set[str]]]:
    """The table under a heading: name -> (second column, the names in the third)."""
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return {name: (second.strip(), set(re.findall(r"`([a-z_]+)`", third))) for name, second, third in ROW.findall(text)}


def test_the_tables_name_every_metric_and_no_other(observed: Observed) -> None:
    """With its type and its labels, as each program exports it."""
    for job, metrics in observed.metrics.items():
        exported = {
            f"{name}_total" if metric.type == "counter" else name: (
                metric.type,
                {label for sample in metric.samples for label in sample.labels if label != "le"},
            )
            for name, metric in metrics.items()
            if not name.startswith(LIBRARY_OWN) and metric.samples
        }
        assert exported == section(f"Metrics of the {job}")


def test_the_table_names_every_log_event_and_no_other() -> None:
    """With its level and facts, as the code logs them. `library` is what `retrieval/logs.py` makes of others' lines."""
    logged: dict[str, tuple[set[str], set[str]]] = {"library": ({"warning and above"}, {"logger", "message"})}
    for path in (one for name in ("service", "indexer", "retrieval") for one in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[ast.Constant(value=str(event))]
                ):
                    levels, facts = logged.setdefault(event, (set(), set()))
                    levels.add(level)
                    facts |= {keyword.arg for keyword in node.keywords if keyword.arg} - {"exc_info"}
    written = {event: (set(levels.split(", ")), facts) for event, (levels, facts) in section("Logs").items()}
    written["retained"][1].clear()  # says where its facts are listed
    assert written == logged
