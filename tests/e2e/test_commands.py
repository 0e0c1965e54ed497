"""The programs as an operator starts them: one worker, and settings that do not fit."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from retrieval.database import migrate
from tests.support.redis_server import free_port

ROOT = Path(__file__).parents[2]


def test_a_service_of_one_worker_is_ready_and_has_metrics(tmp_path: Path) -> None:
    """One worker runs inside the parent: its metrics must still be where the health port looks. Redis is away."""
    port, health, nobody = free_port(), free_port(), free_port()
    database = f"sqlite:///{tmp_path / 'feed.db'}"
    asyncio.run(migrate(database))
    environment = os.environ | {
        "FEED_DATABASE_URL": database,
        "FEED_REDIS_URL": f"redis://127.0.0.1:{nobody}/0",
        "FEED_SNAPSHOT_DIR": str(tmp_path / "snapshots"),
        "FEED_STATE_DIR": str(tmp_path / "state"),
        "FEED_METRICS_DIR": str(tmp_path / "metrics"),
        "FEED_ARCHIVE_URL": str(tmp_path / "archive"),
        "FEED_HEALTH_PORT": str(health),
    }
    command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--workers", "1"]
    service = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        assert "ready" in answered(f"http://127.0.0.1:{health}/readyz")
        assert "feed_worker_refreshed_timestamp_seconds" in answered(f"http://127.0.0.1:{health}/metrics")
    finally:
        service.terminate()
        service.wait(15)


def answered(url: str, within_s: float = 30.0) -> str:
    """The body of the first 200."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return httpx.get(url, timeout=2).raise_for_status().text
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("program", "variable", "value"),
    [(["service", "serve"], "FEED_PORT", "abc"), (["indexer", "status"], "FEED_POLL_S", "0")],
)
def test_a_setting_that_does_not_fit_is_named(program: list[str], variable: str, value: str) -> None:
    """One line with the variable and what is allowed, exit status 2, no traceback."""
    command = [sys.executable, "-m", *program]
    ended = subprocess.run(command, env=os.environ | {variable: value}, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2
    assert variable in ended.stderr
    assert "Traceback" not in ended.stderr
