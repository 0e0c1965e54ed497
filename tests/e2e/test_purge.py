"""A tenant that leaves: gone from every byte of every store but its audit, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from retrieval import purge
from retrieval.archive import Archive
from retrieval.audit import Audit
from retrieval.database import connect
from retrieval.erasure import rekeyed
from retrieval.policies import Policies
from retrieval.tenants import Tenants
from service.operator import mount
from tests.e2e.test_signals import QUICK, Server, holding
from tests.support.running import PEPPER, Json, System, eventually, finished, read, system, video

CANARY = "canarybird"
"""In everything that belongs to the tenant but what the audit keeps: policies, titles of playlists, its name."""
LEAVING = [video(f"{CANARY}-{n}", f"{CANARY} part {n}", creator=CANARY, tags=[CANARY]) for n in range(30)]
STAYING = [video(f"v{n}", f"bread part {n}") for n in range(30)]
CLI = typer.Typer()
mount(CLI)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A store that keeps what it is told in files that can be searched."""
    store = Server(tmp_path / "redis")
    store.start()
    yield store
    store.kill()


def typed(running: System, *words: str, said: str = "") -> tuple[int, str, str]:
    """`python -m service WORDS`, answered with what is `said`: (exit status, output, errors)."""
    done = CliRunner().invoke(CLI, words, env=running.place.environment, input=said, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def lived_in(running: System) -> str:
    """Use everything a tenant can have; the user key of its user."""
    keys = running.tenants["leaving"]
    read(running.call("PUT", "/v1/admin/playlists/p", keys.secret, headers={"If-Match": '"0"'},
                      json={"title": "Best", "videos": [f"{CANARY}-1"]}), 200)  # fmt: skip
    read(running.call("POST", "/v1/admin/webhooks/secrets", keys.secret, json={}), 201)
    page = running.feed("leaving", "ada", limit=5)
    running.feed("leaving", "ada", cursor=page["next_cursor"])
    running.events("leaving", "ada", ("like", page["items"][0]["id"]), request_id=page["request_id"], id=str(uuid4()))
    running.events("staying", "bob", ("like", "v1"))
    finished(_policy(running, {"weights": {"freshness": 0.5}}))
    user_key = rekeyed(running.user_id("ada"), PEPPER)
    flag = ("flags", "set", "--scope", "leaving", "--state", "percentage", "--percentage", "10", "--reason", "first")
    assert typed(running, *flag, "--allow", running.user_id("ada"))[0] == 0
    archive = Archive(str(running.place.folder / "archive"))
    eventually(lambda: archive.count("events") == 2 and archive.count("serves") >= 2)
    return user_key


async def _policy(running: System, body: Json) -> None:
    engine = connect(running.place.database_url)
    try:
        await Policies(engine).publish("leaving", body, "ada", "summer", 0, 0)
    finally:
        await engine.dispose()


async def audited(running: System, tenant: str) -> list[tuple[str, str]]:
    """(action, reason) of what the audit says of a tenant, newest first."""
    engine = connect(running.place.database_url)
    try:
        return [(one.action, one.reason) for one in await Audit(engine).page(tenant)]
    finally:
        await engine.dispose()


async def again(running: System) -> int:
    """Make the tenant anew; the version of its catalogue."""
    engine = connect(running.place.database_url)
    try:
        return (await Tenants(engine).create("leaving", "Somebody else", 0)).version
    finally:
        await engine.dispose()


def test_a_purged_tenant_is_in_no_byte_but_its_audit(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos, vectors, snapshots, journals, events, counts, policies, keys: all gone, while another tenant goes on."""
    monkeypatch.setattr(purge, "SETTLE_S", 1.0)
    with system(tmp_path / "system", server.url, {"leaving": LEAVING, "staying": STAYING}, env=QUICK) as running:
        running.indexed()
        running.visible("leaving", f"{CANARY}-1")
        user_key = lived_in(running)
        folders = (running.place.folder, server.folder)
        assert len(holding(CANARY, *folders)) >= 3 and len(holding(user_key, *folders)) >= 3
        order = ("tenants", "purge", "leaving", "--reason", "contract ended")

        status, _, errors = typed(running, *order, "--yes")
        assert status == 2 and "suspended" in errors
        assert typed(running, "tenants", "suspend", "leaving", "--reason", "unpaid")[0] == 0
        status, _, errors = typed(running, *order, said="staying\n")
        assert status == 2 and "nothing was purged" in errors
        assert len(holding(CANARY, *folders)) >= 3

        status, said, errors = typed(running, *order, "--json", said="leaving\n")
        assert status == 0, errors
        gone = json.loads(said.splitlines()[-1])  # behind what was typed
        expected = {"videos": 30, "vectors": 30, "policies": 1, "playlists": 1, "webhook_secrets": 1, "api_keys": 2}
        assert expected.items() <= gone.items()
        assert gone["archived_events"] == 1 and gone["archived_serves"] >= 2
        assert gone["redis_keys"] >= 2 and gone["snapshot_files"] >= 3

        forbidden = (CANARY, user_key, running.user_id("ada"))
        eventually(lambda: not [text for text in forbidden if holding(text, *folders)])  # workers' own copies, too
        assert "v1" in running.scrolled("staying")
        assert finished(audited(running, "leaving"))[0] == ("tenant.purge", "contract ended")
        assert typed(running, *order, "--yes")[0] == 2  # there is no such tenant
        assert finished(again(running)) == 0
