"""Flags: a pure decision with stable buckets, and stores of which any one is enough."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.audit import Audit
from retrieval.database import connect
from retrieval.errors import InvalidInput, NotFound, StoreUnavailable, VersionMismatch
from retrieval.flag_stores import REDIS, SQL, FlagMirror, FlagStores, FlagTable, KillFiles, restore, save
from retrieval.flags import (
    COHORTS,
    HOLDOUT,
    ROLL_OUT,
    Flag,
    Flags,
    as_document,
    bucket,
    changed,
    cohort,
    decide,
    from_document,
    is_killed,
    merged,
)
from retrieval.tables import GLOBAL
from retrieval.tenants import Tenants
from tests.support.databases import NOW_S
from tests.support.redis_server import free_port

NOW_MS = NOW_S * 1000
ON = Flag(1, reason="r")
USERS = [f"{number:032x}" for number in range(20_000)]

texts = st.text(max_size=20)
flags_ = st.builds(
    Flag,
    version=st.integers(0, 9),
    state=st.sampled_from(["off", "on", "percentage"]),
    percentage=st.floats(0, 100),
    holdout_percent=st.floats(1, 5),
    allow=st.frozensets(st.sampled_from(USERS[:5])),
    killed=st.booleans(),
    reason=st.just("r"),
)
known = st.dictionaries(st.sampled_from([GLOBAL, "a", "b"]), flags_)


@pytest.mark.parametrize(
    ("tenant", "flag", "user", "expected"),
    [
        ("acme", ROLL_OUT, "0" * 32, 2853),
        ("acme", ROLL_OUT, "1" * 32, 5838),
        ("acme", HOLDOUT, "0" * 32, 5313),
        ("pycon-us", ROLL_OUT, "0123456789abcdef0123456789abcdef", 3098),
        ("ünï", HOLDOUT, "", 2743),
    ],
)
def test_golden_buckets(tenant: str, flag: str, user: str, expected: int) -> None:
    """A user's bucket is the same in every release: another one would reshuffle every experiment."""
    assert bucket(tenant, flag, user) == expected


def test_a_user_stays_in_one_of_ten_cohorts() -> None:
    """Golden, like the buckets: moving somebody would mix up every trial. Nobody in particular is in none."""
    assert [cohort("acme", user * 32) for user in "0123"] == ["6", "2", "9", "9"]
    assert cohort("acme", None) == ""
    found = Counter(cohort("acme", user) for user in USERS)
    assert set(found) == set(COHORTS)
    assert min(found.values()) > len(USERS) / 12


def test_buckets_are_even_and_independent() -> None:
    """Each tenth of the buckets has a tenth of the users, and hold-out and roll-out part them in unrelated ways."""
    roll_out = [bucket("acme", ROLL_OUT, user) for user in USERS]
    held_out = [bucket("acme", HOLDOUT, user) < 200 for user in USERS]
    for tenth in range(10):
        share = sum(1000 * tenth <= one < 1000 * (tenth + 1) for one in roll_out) / len(USERS)
        assert share == pytest.approx(0.1, abs=0.01)
    assert sum(held_out) / len(USERS) == pytest.approx(0.02, abs=0.004)
    among_low = [held for held, one in zip(held_out, roll_out, strict=True) if one < 5000]
    assert sum(among_low) / len(among_low) == pytest.approx(0.02, abs=0.006)


def test_unknown_is_not_personalised() -> None:
    """Without a flag of the tenant nobody is personalised, whatever is said for all."""
    assert decide(Flags(), "acme", USERS[0]) == "off"
    assert decide(Flags({GLOBAL: ON}), "acme", USERS[0]) == "off"
    assert decide(Flags({"other": ON}), "acme", None) == "off"


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        (Flags({"acme": Flag(1, killed=True, allow=frozenset(USERS[:1]))}), "killed"),
        (Flags({"acme": ON, GLOBAL: Flag(1, killed=True)}), "killed"),
        (Flags({"acme": ON}, {GLOBAL: "why"}), "killed"),
        (Flags({"acme": ON}, {"acme": "why"}), "killed"),
        (Flags({"acme": ON}, {"other": "why"}), "personalised"),
        (Flags({"acme": ON, GLOBAL: Flag(1, state="off")}), "off"),
        (Flags({"acme": Flag(1, state="off", allow=frozenset(USERS[:1]))}), "off"),
        (Flags({"acme": Flag(1, state="percentage", percentage=0)}), "off"),
        (Flags({"acme": Flag(1, state="percentage", percentage=0, allow=frozenset(USERS[:1]))}), "personalised"),
        (Flags({"acme": ON, "other": Flag(1, killed=True)}), "personalised"),
    ],
)
def test_precedence(flags: Flags, mode: str) -> None:
    """Any kill wins over everything, then off, then the allow-list, then the percentage."""
    assert decide(flags, "acme", USERS[0]) == mode


def test_a_growing_percentage_only_adds_users() -> None:
    """Whoever is in at 10 % is in at 30 %, the held-out stay out at 100 %, and the shares are what was asked."""
    at = {
        percent: {
            user
            for user in USERS
            if decide(Flags({"acme": Flag(1, state="percentage", percentage=percent)}), "acme", user) == "personalised"
        }
        for percent in (10, 30, 100)
    }
    assert at[10] < at[30] < at[100]
    assert len(at[30]) / len(USERS) == pytest.approx(0.3 * 0.98, abs=0.015)
    held_out = {user for user in USERS if decide(Flags({"acme": ON}), "acme", user) == "holdout"}
    assert at[100] | held_out == set(USERS)


def test_an_anonymous_user_has_no_bucket() -> None:
    """Nobody in particular is personalised (that is, a cold start) when everybody is, and not in a percentage."""
    assert decide(Flags({"acme": ON}), "acme", None) == "personalised"
    assert decide(Flags({"acme": Flag(1, state="percentage", percentage=100)}), "acme", None) == "off"


@given(known, known, known)
def test_merging_is_order_free(one: dict[str, Flag], two: dict[str, Flag], three: dict[str, Flag]) -> None:
    """In whatever order and however often copies arrive, each scope ends at the same version, killed or not."""

    def outcome(flags: dict[str, Flag]) -> dict[str, tuple[int, bool]]:
        return {scope: (flag.version, flag.killed) for scope, flag in flags.items()}

    expected = outcome(merged(one, two, three))
    assert outcome(merged(three, one, two)) == expected
    assert outcome(merged(merged(three, two), merged(one, one, three))) == expected


@given(known, st.sampled_from(["a", "b", "c"]), st.none() | st.sampled_from(USERS[:50]))
def test_a_kill_of_any_store_wins(flags: dict[str, Flag], tenant: str, user: str | None) -> None:
    """However the others stand, the newest kill kills, and without one nobody is called killed."""
    newest = merged(flags, {tenant: Flag(99, killed=True)})
    assert decide(Flags(newest), tenant, user) == "killed"
    assert (decide(Flags(flags), tenant, user) == "killed") == any(is_killed(Flags(flags), s) for s in (GLOBAL, tenant))


@given(flags_)
def test_documents_round_trip(flag: Flag) -> None:
    """What is stored is what is read."""
    assert from_document(flag.version, as_document(flag)) == flag


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"state": "on"},
        {"reason": "why"},
        {"state": "on", "reason": " "},
        {"state": "maybe", "reason": "why"},
        {"state": ["on"], "reason": "why"},
        {"state": "percentage", "reason": "why"},
        {"state": "percentage", "percentage": math.nan, "reason": "why"},
        {"state": "percentage", "percentage": 1e308, "reason": "why"},
        {"state": "percentage", "percentage": True, "reason": "why"},
        {"state": "on", "holdout_percent": 0.5, "reason": "why"},
        {"state": "on", "holdout_percent": 6, "reason": "why"},
        {"state": "on", "allow": "all", "reason": "why"},
        {"state": "on", "allow": [1], "reason": "why"},
        {"state": "on", "reason": "why", "scope": "x"},
    ],
)
def test_a_bad_change_is_refused(change: dict[str, Any]) -> None:
    """A change without a reason, out of range or with an unknown field changes nothing."""
    with pytest.raises(InvalidInput):
        changed(ON, change, author="ada", now_ms=NOW_MS)


def test_a_bad_change_names_everything() -> None:
    """All problems at once, each with its field."""
    with pytest.raises(InvalidInput) as caught:
        changed(None, {"state": "x", "percentage": -1, "holdout_percent": 9, "y": 1}, author="ada", now_ms=NOW_MS)
    assert {problem.pointer for problem in caught.value.problems} == {
        "/state", "/percentage", "/holdout_percent", "/y", "/reason",
    }  # fmt: skip


def test_lifting_a_kill_brings_back_what_was_there() -> None:
    """A kill keeps percentage, allow-list and hold-out; versions grow even when the clock stands still."""
    one = changed(None, {"state": "percentage", "percentage": 25, "reason": "slowly"}, author="ada", now_ms=NOW_MS)
    two = changed(one, {"state": "killed", "reason": "fire"}, author="bob", now_ms=NOW_MS)
    three = changed(two, {"state": "percentage", "percentage": 25, "reason": "out"}, author="bob", now_ms=NOW_MS - 9)
    assert (two.killed, two.state, two.percentage, two.reason) == (True, "percentage", 25, "fire")
    assert (three.killed, three.percentage) == (False, 25)
    assert [flag.version for flag in (one, two, three)] == [NOW_MS, NOW_MS + 1, NOW_MS + 2]


async def test_a_new_tenant_is_switched_on(engine: AsyncEngine, tenant: str) -> None:
    """By a flag of its own, in the transaction that creates it."""
    flags = await FlagTable(engine).all()
    assert flags[tenant].state == "on"
    assert decide(Flags(flags), tenant, None) == "personalised"


async def test_setting_checks_the_version_and_is_audited(engine: AsyncEngine, tenant: str) -> None:
    """Who saw an old version is refused; the entry says who, from what, to what, and why, without any user."""
    table = FlagTable(engine)
    before = (await table.all())[tenant]
    counter = await table.version()
    with pytest.raises(VersionMismatch):
        await table.set(tenant, {"state": "off", "reason": "why"}, author="ada", if_version=7, now_ms=NOW_MS)
    assert await table.version() == counter
    change = {"state": "percentage", "percentage": 5, "allow": USERS[:2], "reason": "slowly"}
    flag = await table.set(tenant, change, author="ada", if_version=before.version, now_ms=NOW_MS + 5)
    assert (await table.all())[tenant] == flag
    assert await table.version() == counter + 1
    entry = (await Audit(engine).page(tenant))[0]
    assert (entry.who, entry.action, entry.reason, entry.at_s) == ("ada", "flag.set", "slowly", NOW_S)
    assert entry.before is not None
    assert entry.after is not None
    assert (entry.before["state"], entry.after["state"], entry.after["allow"]) == ("on", "percentage", 2)
    assert USERS[0] not in str(entry)
    with pytest.raises(NotFound):
        await table.set("nobody", change, author="ada", if_version=None, now_ms=NOW_MS)
    await table.set(GLOBAL, {"state": "killed", "reason": "why"}, author="ada", if_version=0, now_ms=NOW_MS)


async def test_sql_adopts_only_what_is_newer(engine: AsyncEngine, tenant: str) -> None:
    """A flag that was set while SQL was away comes in once, an older one never, a foreign tenant's never."""
    table = FlagTable(engine)
    newer = Flag(NOW_MS + 9, killed=True, author="ada", reason="fire")
    assert await table.adopt(tenant, newer, now_s=NOW_S)
    counter = await table.version()
    assert not await table.adopt(tenant, newer, now_s=NOW_S)
    assert not await table.adopt(tenant, Flag(NOW_MS + 8), now_s=NOW_S)
    assert not await table.adopt("nobody", newer, now_s=NOW_S)
    assert await table.version() == counter
    assert (await table.all())[tenant] == newer
    assert [entry.action for entry in await Audit(engine).page(tenant)] == ["flag.adopt", "tenant.create"]


async def test_a_flip_works_with_either_store_away(sqlite_url: str, redis_url: str, tmp_path: Path) -> None:
    """SQL away: the mirror takes it, starting from what is known. Both away: said so. A stale author is refused."""
    here, gone = connect(sqlite_url), connect(f"sqlite:///{tmp_path}/none.db")
    await Tenants(here).create("acme", "Acme", NOW_S)
    redis = Redis.from_url(redis_url, protocol=2)
    nowhere = Redis.from_url(f"redis://127.0.0.1:{free_port()}/0", protocol=2, socket_connect_timeout=0.1)
    kill = {"state": "killed", "reason": "fire"}

    async def flip(engine: AsyncEngine, mirror: Redis, if_version: int | None) -> tuple[Flag, tuple[str, ...]]:
        stores = FlagStores(FlagTable(engine), FlagMirror(mirror))
        return await stores.set("acme", kill, author="a", if_version=if_version, now_ms=NOW_MS + 5, known=ON)

    try:
        both, reached = await flip(here, redis, NOW_MS)
        assert (reached, (await FlagMirror(redis).all())["acme"]) == ((SQL, REDIS), both)
        assert (await flip(here, nowhere, None))[1] == (SQL,)
        only, reached = await flip(gone, redis, 1)
        assert (reached, only.killed, only.version) == ((REDIS,), True, NOW_MS + 5)
        with pytest.raises(VersionMismatch):
            await flip(gone, redis, 2)
        with pytest.raises(StoreUnavailable):
            await flip(gone, nowhere, None)
    finally:
        for client in (redis, nowhere):
            await client.aclose()
        for engine in (here, gone):
            await engine.dispose()


async def test_damage_is_unknown_not_fatal(redis_url: str, tmp_path: Path) -> None:
    """Junk in Redis or in the copy on disk leaves the flags beside it readable and decides nothing."""
    redis = Redis.from_url(redis_url, protocol=2)
    await redis.hset("flags", mapping={"a": b"junk", "b": b'[1,{"state":"on"}]', "c": b"[5]", b"\xff": b"1"})
    await FlagMirror(redis).put("acme", ON)
    assert await FlagMirror(redis).all() == {"acme": ON}
    await redis.set("flags", "no hash")
    with pytest.raises(StoreUnavailable):
        await FlagMirror(redis).all()
    await redis.aclose()
    copy = tmp_path / "state" / "flags.json"
    assert restore(copy) == {}
    save({"acme": ON, GLOBAL: Flag(3, killed=True, reason="r")}, copy)
    assert restore(copy) == {"acme": ON, GLOBAL: Flag(3, killed=True, reason="r")}
    assert copy.stat().st_mode & 0o077 == 0
    for content in (b"", b"[]", b"\xff", b'{"acme": 1}', copy.read_bytes()[:-5]):
        copy.write_bytes(content)
        assert restore(copy) == {}


async def test_a_mirror_sees_what_changed_since_it_was_asked(redis_url: str) -> None:
    """A flag that came, one that is another now, one that is gone, one that is damaged."""
    redis = Redis.from_url(redis_url, protocol=2)
    asked = FlagMirror(redis)
    other = replace(ON, version=ON.version + 1, state="off")
    await asked.put("acme", ON)
    assert [await asked.all(), await asked.all()] == [{"acme": ON}] * 2
    await FlagMirror(redis).put("acme", other)
    assert await asked.all() == {"acme": other}
    await FlagMirror(redis).put("b", ON)
    assert await asked.all() == {"acme": other, "b": ON}
    await redis.hset("flags", "b", "junk")
    assert await asked.all() == {"acme": other}
    await redis.hdel("flags", "acme", "b")
    assert await asked.all() == {}
    await redis.aclose()


def test_kill_files(tmp_path: Path) -> None:
    """A file kills, made by us or by hand; other files do not; removing it ends the kill."""
    folder = tmp_path / "state"
    files = KillFiles(folder)
    assert files.read() == {}
    assert files.kill(GLOBAL, "fire").name == "kill"
    files.kill("acme", "smoke")
    (folder / "kill-by-hand").write_bytes(b"\xff\n")
    (folder / "kill-empty").touch()
    (folder / "kill-dir").mkdir()
    for other in ("killer", "kill-", ".kill.1.tmp", "kill-Big", "config.json"):
        (folder / other).touch()
    assert files.read() == {
        GLOBAL: "fire",
        "acme": "smoke",
        "by-hand": "\ufffd",
        "empty": "(no reason given)",
        "dir": "(the file cannot be read)",
    }
    assert files.lift("acme")
    assert not files.lift("acme")
    assert "acme" not in files.read()
