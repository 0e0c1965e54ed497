"""The start of a worker: nothing is loaded that it does not need, and the collector rests no longer than it takes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

from tests.support.served import served

HEAVY = ("alembic", "deltalake", "duckdb", "onnxruntime", "polars", "pyarrow")
"""What only other commands use: each would be a tenth of a second of every start."""

PROGRAM = f"""
import gc, sys
from service.worker import create
create()
print(gc.isenabled(), [name for name in {HEAVY} if name in sys.modules])
"""


def test_what_only_other_commands_use_is_not_loaded(tmp_path: Path) -> None:
    """And while modules come, nobody looks for garbage among them."""
    settings = {"FEED_DATABASE_URL": f"sqlite:///{tmp_path}/feed.db", "FEED_STATE_DIR": str(tmp_path)}
    program = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(program, env=os.environ | settings, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.splitlines() == ["False []"]


def test_a_worker_that_serves_collects_its_garbage(tmp_path: Path) -> None:
    """`service.worker` turns the collector off; when everything is loaded it is on again."""
    gc.disable()
    try:
        with served(tmp_path, {"acme": []}):
            assert gc.isenabled()
    finally:
        gc.enable()
