"""Flags in a worker and over HTTP: who may change them, what is answered, and how a worker learns of a change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from retrieval.database import connect
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.flags import Flag
from retrieval.tables import GLOBAL
from retrieval.tenants import Tenants
from service.flags import LiveFlags
from tests.support.databases import NOW_S
from tests.support.redis_server import free_port
from tests.support.running import Json, System, eventually, finished, read, system, video

ACME = "acme"


def worker(database_url: str, redis_url: str, folder: Path) -> LiveFlags:
    """The flags of a worker with these stores."""
    redis = Redis.from_url(redis_url, protocol=2, socket_connect_timeout=0.2, socket_timeout=0.2)
    stores = FlagStores(FlagTable(connect(database_url)), FlagMirror(redis))
    return LiveFlags(stores, KillFiles(folder), copy=folder / "flags.json")


async def ended(flags: LiveFlags) -> None:
    """Stop a worker's flags and close its stores."""
    await flags.stop()
    await flags.stores.table._engine.dispose()
    await flags.stores.mirror._redis.aclose()


@pytest.fixture
def nowhere(tmp_path: Path) -> tuple[str, str]:
    """Stores that never answer."""
    return f"sqlite:///{tmp_path}/none.db", f"redis://127.0.0.1:{free_port()}/0"


@pytest.fixture
async def one(sqlite_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[LiveFlags]:
    """A started worker of a tenant `acme`."""
    engine = connect(sqlite_url)
    await Tenants(engine).create(ACME, "Acme", NOW_S)
    await engine.dispose()
    flags = worker(sqlite_url, redis_url, tmp_path / "one")
    await flags.start()
    yield flags
    await ended(flags)


async def until(flags: LiveFlags, mode: str, *, within_s: float = 3.0) -> None:
    """Wait until a worker decides so."""
    deadline = time.monotonic() + within_s
    while flags.decide(ACME, None) != mode:
        assert time.monotonic() < deadline, f"{flags.decide(ACME, None)}, not {mode}, after {within_s} s"
        await asyncio.sleep(0.02)


async def test_a_start_with_nothing_personalises_nobody(nowhere: tuple[str, str], tmp_path: Path) -> None:
    """Unknown is off, and the start does not wait for what does not answer."""
    flags = worker(*nowhere, tmp_path / "state")
    began = time.monotonic()
    await flags.start()
    assert time.monotonic() - began < 2
    assert flags.decide(ACME, None) == "off"
    await ended(flags)


async def test_a_restart_with_everything_away_remembers(
    one: LiveFlags, nowhere: tuple[str, str], tmp_path: Path
) -> None:
    """A kill survives in the last good copy; so does being on."""
    for state, mode in (("killed", "killed"), ("on", "personalised")):
        await one.set(ACME, {"state": state, "reason": "r"}, author="a", if_version=None)
        again = worker(*nowhere, tmp_path / "one")
        await again.start()
        assert again.decide(ACME, None) == mode
        await ended(again)


async def test_another_worker_learns_through_either_store(
    one: LiveFlags, sqlite_url: str, redis_url: str, nowhere: tuple[str, str], tmp_path: Path
) -> None:
    """One that has only SQL and one that has only Redis both follow within a second."""
    sql, redis = worker(sqlite_url, nowhere[1], tmp_path / "sql"), worker(nowhere[0], redis_url, tmp_path / "redis")
    for flags in (sql, redis):
        await flags.start()
    await until(redis, "personalised")
    for state, mode in (("killed", "killed"), ("on", "personalised"), ("off", "off")):
        await one.set(ACME, {"state": state, "reason": "r"}, author="a", if_version=None)
        began = time.monotonic()
        await until(sql, mode)
        await until(redis, mode)
        assert time.monotonic() - began < 1
    for flags in (sql, redis):
        await ended(flags)


async def test_a_flip_that_one_store_missed_is_carried_to_it(
    one: LiveFlags, sqlite_url: str, redis_url: str, nowhere: tuple[str, str], tmp_path: Path
) -> None:
    """Flipped with SQL away, the worker that has both writes it to SQL; and to an emptied Redis."""
    blind = worker(nowhere[0], redis_url, tmp_path / "blind")
    await blind.start()
    flag, reached = await blind.set(ACME, {"state": "killed", "reason": "r"}, author="a", if_version=None)
    assert reached == ("redis",)
    await until(one, "killed")
    deadline = time.monotonic() + 3
    while (await one.stores.table.all())[ACME] != flag:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await one.stores.mirror._redis.flushall()
    while (await one.stores.mirror.all()).get(ACME) != flag:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await ended(blind)


async def test_files_kill_with_everything_away(nowhere: tuple[str, str], tmp_path: Path) -> None:
    """A file is enough, for all or for one tenant; without it what was known holds again."""
    flags = worker(*nowhere, tmp_path)
    flags._learn({ACME: Flag(1)})
    await flags.start()
    await until(flags, "personalised")
    for name in ("kill", "kill-acme"):
        (tmp_path / name).write_text("fire")
        await until(flags, "killed", within_s=1)
        (tmp_path / name).unlink()
        await until(flags, "personalised", within_s=1)
    (tmp_path / "kill-other").write_text("fire")
    await asyncio.sleep(0.5)
    assert flags.decide(ACME, None) == "personalised"
    await ended(flags)


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    videos = [video(f"v{n}", f"bread {n}") for n in range(30)]
    with system(tmp_path_factory.mktemp("flags"), redis_database, {"host": videos}) as running:
        yield running


@pytest.fixture(scope="module")
def admin(s: System) -> str:
    """An operator's key, known to every worker."""

    async def make() -> str:
        engine = connect(s.place.database_url)
        key = await Tenants(engine).create_key(None, "adm", "test", int(time.time()))
        await engine.dispose()
        return key.clear

    key = finished(make())
    s.in_every_worker(lambda: s.call("GET", "/v1/admin/tenants", key).status_code == 200)
    return key


def flip(s: System, admin: str, scope: str, body: Json, tag: str = "*") -> httpx.Response:
    """PUT the flag of a scope."""
    path = f"/v1/admin/flags/personalisation?scope={scope}"
    return s.call("PUT", path, admin, json=body, headers={"If-Match": tag} if tag else {})


def test_a_flag_over_http(s: System, admin: str) -> None:
    """The new state is in every worker at once, for a user who would otherwise be held out or not."""
    path = "/v1/admin/flags/personalisation"
    before = s.call("GET", f"{path}?scope=host", admin)
    assert read(before, 200)["state"] == "on"
    percentage: Json = {"state": "percentage", "percentage": 0, "reason": "slowly", "allow": [s.user_id("pia")]}
    answer = flip(s, admin, "host", percentage, before.headers["etag"])
    assert read(answer, 200)["stored_in"] == ["sql", "redis"]
    s.events("host", "pia", ("like", "v1"))
    s.events("host", "tom", ("like", "v1"))
    s.in_every_worker(lambda: s.feed("host", "tom")["mode"] != "personalised", within_s=2)
    assert s.feed("host", "pia")["mode"] == "personalised"
    listed = read(s.call("GET", path, admin), 200)["flags"]
    assert [one["allowed_users"] for one in listed if one["scope"] == "host"] == [1]
    assert s.user_id("pia") not in str(listed)
    read(flip(s, admin, "host", {"state": "on", "reason": "done"}), 200)
    s.in_every_worker(lambda: s.feed("host", "pia")["mode"] == "personalised", within_s=2)


def test_writes_need_a_tag_a_reason_and_an_operator(s: System, admin: str) -> None:
    """428 without If-Match, 412 for an old one, 422 without a reason, 403 for a tenant's key, 404 for nobody's flag."""
    off = {"state": "off", "reason": "r"}
    assert flip(s, admin, "host", off, "").status_code == 428
    assert flip(s, admin, "host", off, '"1"').status_code == 412
    assert flip(s, admin, "nobody", off).status_code == 404
    assert flip(s, s.tenants["host"].secret, "host", off).status_code == 403
    bad: list[tuple[Json, int]] = [
        ({"state": "killed"}, 422),
        ({"state": "killed", "reason": ""}, 422),
        ({"state": "percentage", "percentage": 101, "reason": "r"}, 422),
        ({"state": "on", "reason": "r", "since": "now"}, 400),
        ({"state": "on", "reason": "r", "allow": ["ada@example.org"]}, 400),
    ]
    for body, status in bad:
        assert flip(s, admin, "host", body).status_code == status, body
    assert flip(s, admin, "global", {"state": "percentage", "percentage": 5, "reason": "r"}).status_code == 422
    assert (
        s.call("PUT", "/v1/admin/flags/personalisation", admin, json=off, headers={"If-Match": "*"}).status_code == 400
    )


def test_tenants_keys_and_the_audit(s: System, admin: str) -> None:
    """An operator makes a tenant and its keys, suspends it, and all of it can be read in the audit."""

    def send(method: str, path: str, body: Json, status: int) -> Json:
        return read(s.call(method, f"/v1/admin/{path}", admin, json=body, headers={"If-Match": "*"}), status)

    send("POST", "tenants", {"id": "new-app", "name": "New"}, 201)
    send("POST", "tenants", {"id": "new-app", "name": "New"}, 409)
    send("POST", "tenants", {"id": "global", "name": "New"}, 422)
    key = send("POST", "keys", {"scope": "pk", "tenant": "new-app", "label": "app"}, 201)
    s.in_every_worker(lambda: s.call("GET", "/v1/feed", key["key"]).status_code == 200)
    send("PATCH", "tenants/new-app", {"status": "suspended"}, 400)
    send("PATCH", "tenants/new-app", {"status": "suspended", "reason": "unpaid"}, 200)
    s.in_every_worker(lambda: s.call("GET", "/v1/feed", key["key"]).status_code == 403)
    send("PATCH", "tenants/new-app", {"status": "active", "reason": "paid"}, 200)
    ended = send("PATCH", f"keys/{key['id']}", {"revoked": True, "reason": "lost"}, 200)
    assert not ended["valid"]
    send("PATCH", "keys/key_nobody", {"revoked": True}, 404)
    listed = read(s.call("GET", "/v1/admin/keys?tenant=new-app", admin), 200)["keys"]
    assert [one["id"] for one in listed] == [key["id"]]
    assert key["key"] not in str(listed)
    entries = read(s.call("GET", "/v1/admin/audit?scope=new-app", admin), 200)["entries"]
    assert [(one["action"], one["why"]) for one in entries] == [
        ("key.revoke", "lost"), ("tenant.resume", "paid"), ("tenant.suspend", "unpaid"), ("key.create", ""),
        ("tenant.create", ""),
    ]  # fmt: skip
    assert entries[2]["from"] == {"status": "active"}
    page = read(s.call("GET", "/v1/admin/audit?limit=2", admin), 200)
    older = read(s.call("GET", f"/v1/admin/audit?limit=2&before={page['next_before']}", admin), 200)
    assert page["entries"][-1]["id"] > older["entries"][0]["id"]


@pytest.mark.parametrize("kind", ["tenant", "key"])
def test_who_changes_a_tenant_or_a_key_says_what_they_saw(s: System, admin: str, kind: str) -> None:
    """428 without If-Match, 412 with the tag of a state that is over, 200 with that of now; a 412 changes nothing."""
    read(s.call("POST", "/v1/admin/tenants", admin, json={"id": f"tag-{kind}", "name": "n"}), 201)
    made = read(s.call("POST", "/v1/admin/keys", admin, json={"scope": "pk", "tenant": f"tag-{kind}"}), 201)
    changes: dict[str, tuple[str, Json, Json]] = {
        "tenant": ("tenants/tag-tenant", {"status": "suspended", "reason": "r"}, {"status": "active", "reason": "r"}),
        "key": (f"keys/{made['id']}", {"expires_at": "2100-01-01T00:00:00Z"}, {"revoked": True}),
    }
    path, one, other = changes[kind]

    def listed() -> Json:
        found = read(s.call("GET", f"/v1/admin/{kind}s", admin), 200)[f"{kind}s"]
        (shown,) = [each for each in found if each["id"] == path.partition("/")[2]]
        return dict(shown)

    def patch(body: Json, tag: str | None) -> httpx.Response:
        headers = {} if tag is None else {"If-Match": f'"{tag}"'}
        return s.call("PATCH", f"/v1/admin/{path}", admin, json=body, headers=headers)

    seen = listed()
    assert patch(one, None).status_code == 428
    first = patch(one, seen["tag"])
    assert (first.status_code, first.headers["etag"]) == (200, f'"{listed()["tag"]}"')
    after = listed()
    late = patch(other, seen["tag"])
    assert (late.status_code, late.json()["type"]) == (412, "/problems/version-mismatch")
    assert patch(other, "nonsense").status_code == 412
    assert listed() == after != seen
    assert patch(other, after["tag"]).status_code == 200


def test_a_global_kill_reaches_everybody_and_ends(s: System, admin: str) -> None:
    """Every page of every worker says killed, with 200; the tenant's own state is untouched beneath it."""
    read(flip(s, admin, "global", {"state": "killed", "reason": "fire"}), 200)
    s.in_every_worker(lambda: s.feed("host", "pia")["mode"] == "killed", within_s=2)
    shown: Any = read(s.call("GET", "/v1/admin/flags/personalisation?scope=host", admin), 200)
    assert (shown["state"], shown["killed_globally"]) == ("on", True)
    read(flip(s, admin, "global", {"state": "on", "reason": "out"}), 200)
    s.in_every_worker(lambda: s.feed("host", "pia")["mode"] != "killed", within_s=2)


def test_a_kill_file_reaches_every_worker(s: System) -> None:
    """Made by hand in the state folder; and gone with the file."""
    files = KillFiles(s.place.folder / "state")
    files.kill(GLOBAL, "fire")
    s.in_every_worker(lambda: s.feed("host")["mode"] == "killed", within_s=2)
    files.lift(GLOBAL)
    eventually(lambda: s.feed("host")["mode"] != "killed")
