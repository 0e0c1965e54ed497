"""What the documents tell a reader to type, set or open exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import REGISTRY
from typer.main import get_command

from indexer import telemetry as preparing
from service import canary, telemetry
from service.operator import mount
from tests.docs.test_documents import DOCUMENTS
from tests.support.manifests import DEPLOY, FOREIGN, SETTINGS, env_file

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def commands() -> dict[str, Any]:
    """The programs by name, as click knows them."""
    operator = typer.Typer()
    mount(operator)
    serving = importlib.import_module("service.__main__").cli
    found: Any = get_command(serving)
    more: Any = get_command(operator)
    found.commands |= more.commands
    return {"service": found, "indexer": get_command(importlib.import_module("indexer.__main__").cli)}


PROGRAMS = commands()


def pages(pattern: str) -> list[tuple[str, re.Match[str]]]:
    """Every match in every document, with the name of the document."""
    return [
        (str(path.relative_to(ROOT)), found)
        for path in DOCUMENTS
        for found in re.finditer(pattern, path.read_text())
        if path.name != "CHANGELOG.md"
    ]


def test_commands_of_the_programs_exist() -> None:
    """`python -m service flags set`, `indexer rebuild`: each word is a command, down to its group."""
    for page, found in pages(r"(?:python -m |`)(service|indexer) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?"):
        program, word, second = found.groups()
        command = PROGRAMS[program].commands.get(word)
        assert command is not None, f"{page}: {program} {word}"
        if hasattr(command, "commands") and second:
            assert second in command.commands, f"{page}: {program} {word} {second}"


def test_benchmarks_and_make_targets_exist() -> None:
    """`python -m benchmarks.x`, `python benchmarks/x.py`, `python -m deploy.x.y` and `make x` can be typed."""
    for page, found in pages(r"python -m ((?:benchmarks|deploy)\.[a-z_.]+[a-z_])"):
        assert importlib.util.find_spec(found[1]) is not None, f"{page}: {found[1]}"
    for page, found in pages(r"(benchmarks/[a-z_]+\.py)"):
        assert (ROOT / found[1]).exists(), f"{page}: {found[1]}"
    for page, found in pages(r"`make ([a-z-]+)"):
        assert found[1] in TARGETS, f"{page}: make {found[1]}"


def test_files_that_are_named_exist() -> None:
    """A path of the source or the tests in backticks leads to a file; a test in it by its name."""
    for page, found in pages(r"`((?:service|indexer|retrieval|ranking|tests|deploy)/[\w/.-]+\.py)(?:::(\w+))?"):
        path, name = ROOT / found[1], found[2]
        assert path.exists(), f"{page}: {found[1]}"
        assert name is None or f"def {name}(" in path.read_text(), f"{page}: {found[0]}"


def test_settings_that_are_named_exist() -> None:
    """Every FEED_ variable of any page is a setting."""
    for page, found in pages(r"\b(FEED_[A-Z_]+[A-Z])\b"):
        assert found[1] in SETTINGS, f"{page}: {found[1]}"


def test_variables_that_are_not_ours_are_told() -> None:
    """Whatever deploy/ sets beside our settings is in the second table of docs/settings.md."""
    page = (ROOT / "docs/settings.md").read_text()
    for name in FOREIGN | (set(env_file(DEPLOY / "example.env")) - set(SETTINGS)):
        assert f"`{name}`" in page, name


@pytest.mark.parametrize("page", ["docs/design.md", "docs/performance.md", "README.md"])
def test_metrics_that_are_named_are_exported(page: str) -> None:
    """A metric's name in backticks is one that service, indexer or canary registers."""
    known = {name for one in (telemetry, canary) for name in dir(one)}  # importing them is what registers
    assert known
    exported = {sample for metric in REGISTRY.collect() for sample in (metric.name, *(s.name for s in metric.samples))}
    exported |= {*preparing.OF_TENANTS, *preparing.OF_SIGNALS}
    for name in re.findall(r"`((?:feed|indexer|canary)_[a-z_]+)`", (ROOT / page).read_text()):
        assert name in exported or name.removesuffix("_total") in exported, name


def test_the_readme_is_one_screen_that_shows_the_way() -> None:
    """Short, with a picture, and every file of the way of a request is where it says."""
    page = (ROOT / "README.md").read_text()
    assert len(page.splitlines()) <= 75
    assert "![" in page
    for line in re.findall(r"^(\w+)/ .*", page, re.M):
        assert (ROOT / line).is_dir(), line
    for folder, files in re.findall(r"^(service|retrieval|ranking|indexer)/ (.*)$", page, re.M):
        for name in re.findall(r"[\w/]+\.py", files):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"
