"""`python -m indexer ...` as an operator types it: exit status, output, and one line for what they can mend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import FRAIL, POISON, System, system, video
from tests.support.tiny_encoder import TinyEncoder

NO_REDIS = "redis://127.0.0.1:1/0"
"""The indexer needs none."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[System]:
    """Two tenants, nothing indexed, no program running."""
    tenants = {"acme": [video("a", "bread"), video("b", POISON)], "other": [video("c", "trains")]}
    with system(tmp_path, NO_REDIS, tenants, model=FRAIL, daemons=0, workers=0) as s:
        yield s


def test_once_then_status(shop: System) -> None:
    """Stale before (1), fresh after (0), as JSON and as a table; `once` is the daemon's own loop body."""
    code, output = shop.indexer("status", "--json")
    assert code == 1
    assert {one["tenant"]: one["stale"] for one in json.loads(output)} == {"acme": True, "other": True}
    code, output = shop.indexer("once")
    assert code == 0, output
    assert sum('"event": "published"' in line for line in output.splitlines()) == 2
    code, output = shop.indexer("status", "--json")
    assert code == 0, output
    acme, other = json.loads(output)
    assert (acme["items"], acme["quarantined"], acme["wanted"], acme["published"]) == (2, 1, 1, 1)
    assert (other["items"], other["lag_s"], other["last_error"]) == (1, 0.0, "")
    code, output = shop.indexer("status")
    assert code == 0
    assert "acme" in output
    assert "quarantined" in output


def test_a_failing_tenant_is_exit_status_1(shop: System) -> None:
    """`once` still does the others, and `status` says what is wrong."""
    folder = shop.place.store.root / "acme"
    folder.mkdir(parents=True)
    (folder / "segments").write_text("in the way")
    code, _ = shop.indexer("once")
    assert code == 1
    code, output = shop.indexer("status", "--json")
    assert code == 1
    acme, other = json.loads(output)
    assert "segments" in acme["last_error"]
    assert acme["stale"]
    assert not other["stale"]


def test_rebuild_writes_a_tenant_anew(shop: System) -> None:
    """Also where files were damaged; an unknown tenant is one line and exit status 2."""
    assert shop.indexer("once")[0] == 0
    shutil.rmtree(shop.place.store.root / "acme" / "segments")
    code, output = shop.indexer("rebuild", "--tenant", "acme")
    assert code == 0, output
    manifest = shop.place.store.current("acme")
    assert manifest is not None
    assert manifest.generation == 2
    assert shop.place.store.open(manifest).n_items == 1
    code, output = shop.indexer("rebuild", "--tenant", "nobody")
    assert (code, output) == (2, "indexer: no such tenant: 'nobody'\n")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"FEED_MODEL": "no-such-model"}, "unknown encoder 'no-such-model'"),
        ({"FEED_MODEL": "python:tests.support.nothing:Here"}, "no encoder at python:tests.support.nothing:Here"),
        ({"FEED_MODEL": "python:tests.support.running:nothing"}, "no encoder at python:tests.support.running:nothing"),
        ({"FEED_VECTOR_DIM": "384"}, f"makes vectors of {TinyEncoder.dim} numbers, but FEED_VECTOR_DIM is 384"),
        ({"FEED_DATABASE_URL": "sqlite+aiosqlite:////nowhere/at/all.db"}, "database"),
    ],
    ids=["unknown model", "no module", "no name", "another dimension", "no database"],
)
def test_what_an_operator_can_mend_is_one_line(told: dict[str, str], words: str, shop: System) -> None:
    """Exit status 2, no traceback, and nothing is published."""
    code, output = shop.indexer("once", **told)
    assert code == 2, output
    assert output.startswith("indexer: ")
    assert output.count("\n") == 1
    assert words in output
    assert shop.place.store.current("acme") is None
