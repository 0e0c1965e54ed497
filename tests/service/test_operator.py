"""The operator's commands, run as they are typed, on a real system's stores."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner

from retrieval.database import migrate
from service.operator import mount
from tests.support.redis_server import free_port
from tests.support.running import Json, Place, System, system, video

TENANT = "desk"
CLI = typer.Typer()
mount(CLI)


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    videos = [
        video(f"v{n}", f"{('bread', 'trains')[n % 2]} {n}", tags=[("bread", "trains")[n % 2]], creator=f"c{n % 9}")
        for n in range(60)
    ]
    with system(tmp_path_factory.mktemp("desk"), redis_database, {TENANT: videos}) as running:
        yield running


@pytest.fixture(autouse=True)
def _log_elsewhere() -> Iterator[None]:
    """As the program does it: log lines are no part of the answer."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()


def command(place: Place, *words: str, content: bytes = b"", env: Json | None = None) -> tuple[int, str, str]:
    """`python -m service WORDS`, in this process: (exit status, output, errors)."""
    environment = {**place.environment, "COLUMNS": "120", **(env or {})}
    done = CliRunner().invoke(CLI, words, env=environment, input=content, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def answer(place: Place, *words: str, env: Json | None = None) -> Any:
    """The JSON answer of a command that must succeed."""
    status, out, errors = command(place, *words, "--json", env=env)
    assert status == 0, errors
    return json.loads(out)


def policy_file(folder: Path, policy: Json) -> str:
    """A policy as a file."""
    path = folder / "policy.json"
    path.write_text(json.dumps(policy))
    return str(path)


PIN = {"id": "top", "kind": "pin", "target": {"items": ["v7"]}, "effect": {"position": 0}, "reason": "test"}


def test_a_policy_from_file_to_feed_and_back(s: System, tmp_path: Path) -> None:
    """lint, diff, publish, history, show, rollback: what is printed is what happens."""
    file = policy_file(tmp_path, {"rules": [PIN]})
    status, out, _ = command(s.place, "policy", "lint", file, "--scope", TENANT)
    assert (status, "may be published" in out) == (0, True)
    status, out, _ = command(s.place, "policy", "diff", file, "--scope", TENANT)
    assert status == 1
    assert '+      "kind": "pin"' in out
    status, out, errors = command(s.place, "policy", "publish", file, "--scope", TENANT, "--reason", "sponsor")
    assert status == 0, errors
    assert "live as version 1" in out
    s.in_every_worker(lambda: s.ids(TENANT)[0] == "v7", within_s=3)
    assert command(s.place, "policy", "diff", file, "--scope", TENANT)[0] == 0
    assert json.loads(command(s.place, "policy", "show", "--scope", TENANT)[1]) == {"rules": [PIN]}
    answer(s.place, "policy", "publish", policy_file(tmp_path, {}), "--scope", TENANT, "--reason", "enough")
    assert command(s.place, "policy", "rollback", "1", "--scope", TENANT, "--reason", "again")[0] == 0
    history = answer(s.place, "policy", "history", "--scope", TENANT)
    assert [(one["version"], one["why"]) for one in history] == [(3, "again"), (2, "enough"), (1, "sponsor")]
    audit = answer(s.place, "audit", "--scope", TENANT)
    assert audit[0]["action"] == "policy.rollback.1"
    assert audit[0]["who"].startswith("cli:")


def test_a_bad_policy_is_refused_with_every_problem(s: System, tmp_path: Path) -> None:
    """Exit status 1, each problem on its line with what is allowed; what is live stays."""
    before = answer(s.place, "policy", "history", "--scope", TENANT)
    file = policy_file(tmp_path, {"weights": {"charm": 1}, "limits": {"max_age": 11}})
    for words in (("lint", file), ("publish", file, "--reason", "r")):
        status, out, _ = command(s.place, "policy", *words, "--scope", TENANT)
        assert status == 1
        assert "/weights/charm" in out
        assert "/limits/max_age" in out
    assert answer(s.place, "policy", "history", "--scope", TENANT) == before
    status, _, errors = command(s.place, "policy", "lint", "-", "--scope", TENANT, content=b"{,}")
    assert (status, "is not JSON" in errors) == (2, True)
    assert command(s.place, "policy", "lint", file, "--scope", "nobody")[0] == 2


def test_explain_reads_well(s: System) -> None:
    """A user's page with features, rules and ranks; or why a video is not there, and nothing else."""
    s.events(TENANT, "pia", ("like", "v3"), ("complete", "v5"))
    words = ("policy", "explain", "--tenant", TENANT, "--user", s.user_id("pia"), "--limit", "3")
    status, out, errors = command(s.place, *words)
    assert status == 0, errors
    assert out.count("ranks") == 3
    assert "similarity" in out and "-0 " not in out
    status, out, errors = command(s.place, *words, "--item", "v5", "--item", "v99")
    assert status == 0, errors
    assert "the user has seen it" in out and "is in the index (yet)" in out
    assert out.count("not on the page") == 2 and "position" not in out
    said = answer(s.place, "policy", "explain", "--tenant", TENANT, "--user", s.user_id("pia"), "--limit", "20")
    assert [one["id"] for one in said["items"]] == s.ids(TENANT, "pia")
    page = s.feed(TENANT, "pia", limit=5)
    time.sleep(0.3)
    again = answer(s.place, "policy", "explain", "--tenant", TENANT, "--request", page["request_id"])
    assert [one["id"] for one in again["items"]] == [one["id"] for one in page["items"]]


def test_kill_and_revive(s: System) -> None:
    """For one tenant and for all, in every worker at once; reviving brings back what was there."""
    answer(s.place, "flags", "set", "--scope", TENANT, "--state", "percentage", "--percentage", "100", "--reason", "r")
    for scope in ((), ("--tenant", TENANT)):
        said = answer(s.place, "kill", *scope, "--reason", "fire")
        assert said["in"] == ["sql", "redis"]
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=2)
        status, out, _ = command(s.place, "status")
        assert (status, "is killed: fire" in out) == (1, True)
        answer(s.place, "revive", *scope, "--reason", "out")
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] != "killed", within_s=2)
    [flag] = [one for one in answer(s.place, "flags", "list") if one["scope"] == TENANT]
    assert (flag["state"], flag["percentage"]) == ("percentage", 100)
    assert command(s.place, "kill")[0] == 2
    assert command(s.place, "kill", "--reason", "")[0] == 2
    assert command(s.place, "revive", "--reason", "again")[0] == 2


def test_kill_with_every_store_away(s: System, tmp_path: Path) -> None:
    """A file is written, and the workers of this machine follow it."""
    away = {"FEED_DATABASE_URL": f"sqlite:///{tmp_path}/no.db", "FEED_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    said = answer(s.place, "kill", "--reason", "fire", env=away)
    assert said["in"] == ["file"]
    s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=2)
    assert answer(s.place, "revive", "--reason", "out", env=away)["file_removed"]
    status, _, errors = command(s.place, "revive", "--reason", "again", env=away)
    assert status == 2 and "not answering: redis, sql" in errors  # not "is not killed": nobody knows
    s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] != "killed", within_s=2)


def test_as_it_is_typed(s: System) -> None:
    """The program itself: what is not an answer (a warning in the log) is not on standard output."""
    environment = {**s.place.environment, "FEED_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    words = [sys.executable, "-m", "service", "flags", "list", "--json"]
    done = subprocess.run(words, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert TENANT in {one["scope"] for one in json.loads(done.stdout)}


def test_status_says_what_wants_attention(s: System) -> None:
    """All well: exit status 0 and a table; a store away: 1, and which."""
    status, out, _ = command(s.place, "status")
    assert (status, "nothing wants attention" in out) == (0, True)
    assert TENANT in out
    status, out, _ = command(s.place, "status", env={"FEED_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"})
    assert (status, "redis:" in out) == (1, True)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Stores without anything running: an empty database, no Redis."""
    place = Place(tmp_path, f"redis://127.0.0.1:{free_port()}/0")
    asyncio.run(migrate(place.database_url))
    return place


def test_tenants_and_keys(place: Place) -> None:
    """Made, listed, suspended, rotated; the clear text is shown once; mistakes are one line and status 2."""
    made = answer(place, "tenants", "create", "acme", "--name", "Acme")
    assert made["publishable_key"].startswith("pk_")
    assert command(place, "tenants", "create", "acme")[0] == 2
    assert command(place, "tenants", "suspend", "acme", "--reason", "unpaid")[0] == 0
    assert [one["status"] for one in answer(place, "tenants", "list")] == ["suspended"]
    key = answer(place, "keys", "create", "--scope", "sk", "--tenant", "acme", "--days", "30")
    assert command(place, "keys", "revoke", key["id"], "--reason", "lost")[0] == 0
    listed = {one["id"]: one["valid"] for one in answer(place, "keys", "list", "--tenant", "acme")}
    assert sorted(listed.values()) == [False, True, True]
    assert not listed[key["id"]]
    status, out, errors = command(place, "keys", "create", "--scope", "adm", "--tenant", "acme")
    assert (status, out) == (2, "")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors


def test_import_and_export(place: Place, tmp_path: Path) -> None:
    """What comes out goes in again and changes nothing; refused lines are named; --mirror takes down what is left."""
    answer(place, "tenants", "create", "acme")
    videos = [video(f"v{n}", f"Bread {n}", tags=["a", "ü"], published_at="2026-01-01T00:00:00Z") for n in range(2500)]
    videos[7] |= {"vector": [0.5] * place.dim, "available_until": "2030-01-01T00:00:00Z", "countries": ["DE"]}
    lines = [json.dumps(one) for one in videos]
    lines[1:1] = ["", "{", '{"id": "v1", "title": "an older line, overruled below"}']
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(lines))
    status, out, errors = command(place, "import", str(file), "--tenant", "acme", "--json")
    said = json.loads(out)
    assert (status, said["created"], said["refused"]) == (1, 2500, 1)
    assert errors.startswith("line 3:")
    copy = tmp_path / "out.jsonl.gz"
    assert command(place, "export", str(copy), "--tenant", "acme")[0] == 0
    assert len(gzip.decompress(copy.read_bytes()).splitlines()) == 2500
    assert answer(place, "import", str(copy), "--tenant", "acme")["unchanged"] == 2500
    file.write_text("\n".join(json.dumps(one) for one in videos[:2400]))
    assert answer(place, "import", str(file), "--tenant", "acme", "--mirror")["removed"] == 100
    status, out, _ = command(place, "export", "--tenant", "acme")
    assert out.count("\n") == 2400
    assert command(place, "import", str(file), "--tenant", "nobody")[0] == 2
    assert command(place, "import", str(tmp_path / "none"), "--tenant", "acme")[0] == 2


def test_a_person_sees_progress(place: Place, tmp_path: Path) -> None:
    """On a terminal a bar moves; the answer still comes on standard output."""
    import pty

    answer(place, "tenants", "create", "acme")
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(json.dumps(video(f"v{n}", "Bread")) for n in range(3000)))
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "service", "import", str(file), "--tenant", "acme", "--json"]
    environment = {**place.environment, "TERM": "xterm"}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=theirs) as running:
        os.close(theirs)
        seen = b""
        while True:
            try:
                some = os.read(ours, 65_536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not some:
                break
            seen += some
        out, _ = running.communicate(timeout=60)
    os.close(ours)
    assert b"importing" in seen
    assert b"%" in seen
    assert json.loads(out)["created"] == 3000
