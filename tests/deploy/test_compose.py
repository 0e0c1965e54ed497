"""The whole system as deploy/compose.yaml starts it, on a real PostgreSQL and a real Valkey, without the containers.

The commands and variables are the compose file's own; only addresses, folders and ports are those of this test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from indexer.encoder import DEFAULT_MODEL
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS, SERVES
from tests.support.manifests import compose, image_command, image_environment
from tests.support.redis_server import free_port
from tests.support.running import START_LIMIT_S, Keys, Place, System, eventually, video

TENANT = "acme"


def told(name: str, here: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container of ours, with this test's addresses in place of the network's, and without the
    machine code that only the image brings."""
    container = compose()["services"][name]
    image = {key: value for key, value in image_environment(container["image"]).items() if not key.startswith("NUMBA_")}
    return {**image, **container["environment"], **here, "PATH": os.environ["PATH"]}


def run(name: str, here: Mapping[str, str], *words: str) -> bytes:
    """The container's command, or `words` in it, to its end; what it wrote to standard output."""
    container = compose()["services"][name]
    command = list(words) or container.get("command") or image_command(container["image"])
    done = subprocess.run([sys.executable, *command[1:]], env=told(name, here), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def here(tmp_path: Path, empty_database_url: str, redis_url: str) -> dict[str, str]:
    """What differs on this machine."""
    folders = {name: str(tmp_path / name) for name in ("snapshots", "state", "metrics", "archive")}
    return {
        "FEED_DATABASE_URL": empty_database_url,
        "FEED_REDIS_URL": redis_url,
        "FEED_SNAPSHOT_DIR": folders["snapshots"],
        "FEED_STATE_DIR": folders["state"],
        "FEED_METRICS_DIR": folders["metrics"],
        "FEED_ARCHIVE_URL": folders["archive"],
        "FEED_METRICS_PORT": str(free_port()),
    }


@pytest.fixture
def s(tmp_path: Path, here: dict[str, str]) -> Iterator[System]:
    """Migrated, a tenant made by the operator's command, indexer and service running."""
    run("migrate", here)
    run("migrate", here)  # a second release in the same minute
    made = orjson.loads(run("indexer", here, "python", "-m", "service", "tenants", "create", TENANT, "--json"))
    more = told("service", here) | told("indexer", here)
    place = Place(tmp_path, here["FEED_REDIS_URL"], DEFAULT_MODEL, more=more | {"FEED_VECTOR_DIM": "384"})
    running = System(place, {TENANT: Keys(made["publishable_key"], made["secret_key"])})
    try:
        running.start_daemon()
        running.start_service(int(more["FEED_WORKERS"]))
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_from_an_empty_database_to_a_report(s: System, here: dict[str, str]) -> None:
    """A video is embedded by the real model and seen, liked, and archived; the operator's report knows of it."""
    s.put(
        TENANT, *(video(f"v{n}", title) for n, title in enumerate(["Baking bread", "Night trains", "Chess openings"]))
    )
    s.visible(TENANT, "v2", within_s=START_LIMIT_S)
    # The tenant's pepper is another at each run, and with it who is held out: two in a hundred.
    pages = {name: s.feed(TENANT, user=name) for name in ("ada", "ben", "cleo", "dora", "emil")}
    user, page = next((name, page) for name, page in pages.items() if page["mode"] != "holdout")
    liked = page["items"][0]["id"]
    assert s.events(TENANT, user, ("like", liked), request_id=page["request_id"])["accepted"] == 1
    assert s.feed(TENANT, user=user)["mode"] == "personalised"
    archive = Archive(str(s.place.folder / "archive"))
    eventually(lambda: archive.count(EVENTS) == 1 and archive.count(SERVES) >= 2, within_s=START_LIMIT_S)
    [found] = orjson.loads(run("indexer", here, "python", "-m", "service", "report", "--json"))["tenants"]
    assert (found["tenant"], found["users"] >= 1, found["published"]) == (TENANT, True, 3)
