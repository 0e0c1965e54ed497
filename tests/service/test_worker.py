"""The start of a worker: nothing is loaded that it does not need, and the collector rests no longer than it takes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from retrieval.serves import Serve
from retrieval.stream import Event
from service.page import Asked, Page
from service.ranked import Ranked
from tests.support.running import video
from tests.support.served import served

HEAVY = ("alembic", "deltalake", "duckdb", "onnxruntime", "polars", "pyarrow")
"""What only other commands use: each would be a tenth of a second of every start."""

PROGRAM = f"""
import gc, sys
from service.worker import create
create()
print(gc.isenabled(), [name for name in {HEAVY} if name in sys.modules])
"""

HOLES = """
from pathlib import Path
from service.spare import give_back
def private_mb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024
blocks = [bytes(4000) for _ in range(25_000)]
blocks = blocks[::25]
before = private_mb()
give_back()
print(before - private_mb())
"""
"""100 MB in small pieces, of which one in 25 lives on."""


def test_what_is_free_goes_back_to_the_machine() -> None:
    """Holes between what lives on are of no use to this process, and of some to others."""
    told = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=60, check=True)
    assert float(told.stdout) > 60


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


def test_requests_leave_no_garbage_behind(tmp_path: Path) -> None:
    """What a page, a 304, a cursor page and a batch of events were made of is gone with their answers: so a worker may
    look for garbage seldom."""
    with served(tmp_path, {"acme": [video(f"v{n}", f"talk {n}") for n in range(60)]}) as s:

        def session() -> None:
            answer = s.get("/v1/feed", "acme", user="ada")
            tag = {"If-None-Match": answer.headers.get("etag", answer.text)}
            assert s.get("/v1/feed", "acme", user="ada", headers=tag).status_code == 304
            shown = s.feed("acme", "ada", cursor=answer.json()["next_cursor"])["items"]
            s.events("acme", "ada", *(("impression", one["id"]) for one in shown[:5]))

        session()
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                session()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kinds = (Request, Response, Asked, Page, Ranked, Event, Serve)
            assert [type(one).__name__ for one in gc.garbage if isinstance(one, kinds)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
