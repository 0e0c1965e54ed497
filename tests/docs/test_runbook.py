"""docs/runbook.md: an entry for each alert, an alert for each entry, and no command that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final, cast

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # ships no types
from typer.core import TyperGroup
from typer.main import get_command

from indexer.__main__ import cli as indexer
from service.__main__ import cli as service
from service.operator import mount

ROOT: Final = Path(__file__).parents[2]
RUNBOOK: Final = (ROOT / "docs/runbook.md").read_text()
ENTRIES: Final = dict(re.findall(r"^### (.+)\n((?:(?!^###? ).*\n)*)", RUNBOOK, re.M))
ALERTS: Final = [
    rule
    for path in (ROOT / "deploy/prometheus/rules").glob("*.yml")
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
COMMAND: Final = re.compile(r"python -m (service|indexer) ([^`#|<>\n]*(?:\n  [^`#|<>\n]*)?)")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_entry(alert: dict[str, dict[str, str]]) -> None:
    """The link is to a heading, and what is below it speaks of this alert, or is called like it."""
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page == "docs/runbook.md"
    [heading] = [one for one in ENTRIES if one.lower() == anchor]
    assert alert["alert"] == heading or f"`{alert['alert']}`" in ENTRIES[heading]
    assert alert["labels"]["severity"] in ("page", "ticket", "info")


def test_an_entry_belongs_to_an_alert() -> None:
    """And says what users notice, what to look at, what to do, and how to be sure."""
    below_alerts = RUNBOOK.split("\n## Alerts\n")[1].split("\n## ")[0]
    headings = re.findall(r"^### (.+)$", below_alerts, re.M)
    assert {one.lower() for one in headings} == {a["annotations"]["runbook_url"].partition("#")[2] for a in ALERTS}
    for heading in headings:
        if heading != "KillSwitchOn":  # nothing is wrong then
            for part in ("**Users notice**", "**Look at**", "**Do**", "**Sure when**"):
                assert part in ENTRIES[heading], f"{heading}: {part}"


def groups() -> dict[str, Any]:
    """The commands of both programs, the operator's among them."""
    operator = typer.Typer()
    mount(operator)
    found: dict[str, Any] = {"service": get_command(service), "indexer": get_command(indexer)}
    found["service"].commands |= cast("TyperGroup", get_command(operator)).commands
    return found


def test_every_command_exists() -> None:
    """Program, command and options, as their own --help knows them."""
    programs = groups()
    for program, line in COMMAND.findall(RUNBOOK):
        command, words = programs[program], shlex.split(line.replace("…", ""))
        while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"python -m {program} {line}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, f"python -m {program} {line}"
