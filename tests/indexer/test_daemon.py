"""The daemon: every tenant by itself, several daemons together, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.local.processes import Child
from indexer.priority import shared_by_session
from indexer.rebuild import Tenant
from indexer.status import read_failure
from retrieval.catalogue import Catalogue
from retrieval.errors import StoreUnavailable
from retrieval.tenants import Tenants
from tests.support.indexing import HookedEncoder, Indexing, names
from tests.support.running import SLOW, System, eventually, system, video

TENANTS = ("a", "b", "c", "d", "e")


async def test_once_brings_every_tenant_up_to_date(indexing: Indexing) -> None:
    """Those without videos too; a second pass finds nothing to do."""
    await indexing.tenants("b", "empty")
    for tenant in ("acme", "b"):
        await indexing.put_many(tenant, range(10))
    daemon = indexing.daemon()
    assert await daemon.once() == 0
    assert [len(indexing.shown(tenant)) for tenant in ("acme", "b", "empty")] == [10, 10, 0]
    before = [indexing.store.pointer(tenant) for tenant in ("acme", "b", "empty")]
    assert await daemon.once() == 0
    assert [indexing.store.pointer(tenant) for tenant in ("acme", "b", "empty")] == before


async def test_a_failing_tenant_backs_off_alone(indexing: Indexing) -> None:
    """The others go on; the failing one says why, waits longer each time, and recovers by itself."""
    await indexing.tenants("b")
    for tenant in ("acme", "b"):
        await indexing.put_many(tenant, range(5))
    in_the_way = indexing.store.root / "acme"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.mkdir()
    (in_the_way / "segments").write_text("a file where a folder belongs")
    daemon = indexing.daemon()
    assert await daemon.once() == 1
    assert indexing.shown("b") == names(range(5))
    failing = daemon.attempts["acme"]
    assert "segments" in read_failure(indexing.store, "acme")
    assert failing.retry_at_s > time.monotonic() + 1
    await indexing.put_many("b", [5])
    assert await daemon.once() == 1, "not tried again yet, and still failed"
    assert failing.failures == 1
    assert indexing.shown("b") == names(range(6))
    failing.retry_at_s = 0.0
    assert await daemon.once() == 1
    assert failing.failures == 2
    assert failing.retry_at_s > time.monotonic() + 3
    (in_the_way / "segments").unlink()
    failing.retry_at_s = 0.0
    assert await daemon.once() == 0
    assert indexing.shown("acme") == names(range(5))
    assert not read_failure(indexing.store, "acme")


async def test_a_bug_with_one_tenant_is_a_failure_of_that_tenant(indexing: Indexing) -> None:
    """Not only what was foreseen: whatever an encoder raises, the others are served."""
    await indexing.tenants("b")
    await indexing.put("acme", video("x", "boom"))
    await indexing.put("b", video("y", "bread"))

    def explode(texts: Sequence[str]) -> None:
        if "boom" in texts:
            raise ZeroDivisionError("a bug")

    assert await indexing.daemon(HookedEncoder(explode)).once() == 1
    assert indexing.shown("b") == ["y"]
    assert read_failure(indexing.store, "acme") == "ZeroDivisionError: a bug"


async def test_two_daemons_share_the_tenants(indexing: Indexing) -> None:
    """Side by side over many changes: all is published, nothing is embedded twice, and nobody fails."""
    await indexing.tenants(*TENANTS)
    daemons = [indexing.daemon(holder=name) for name in ("one", "two")]
    for step in range(4):
        for tenant in TENANTS:
            await indexing.put_many(tenant, range(10 * step, 10 * step + 10), words=tenant)
        assert await asyncio.gather(*(daemon.once() for daemon in daemons)) == [0, 0]
    for tenant in TENANTS:
        assert indexing.shown(tenant) == names(range(40))
    assert len(indexing.encoder.texts_encoded) == 40 * len(TENANTS)


async def test_once_waits_for_a_tenant_somebody_else_is_at(indexing: Indexing) -> None:
    """A daemon that was killed leaves its lease behind; `once` must not call that up to date."""
    await indexing.put_many("acme", range(5))
    daemon = indexing.daemon()
    assert await daemon.leases.acquire("index:acme", "killed", 1, int(time.time())) is not None
    assert await daemon.once() == 0
    assert indexing.shown("acme") == names(range(5))


async def test_a_holder_that_slept_through_its_lease_publishes_nothing_older(indexing: Indexing) -> None:
    """Another one has published meanwhile: the sleeper is refused, begins again, and all is there."""
    await indexing.put_many("acme", range(5))
    asleep, awake = threading.Event(), threading.Event()

    def sleep(_texts: Sequence[str]) -> None:
        asleep.set()
        assert awake.wait(10)

    sleeper = indexing.daemon(HookedEncoder(sleep), holder="sleeper")
    sleeping = asyncio.create_task(sleeper.once())
    await asyncio.to_thread(asleep.wait, 10)
    await indexing.put_many("acme", range(5, 9))
    other = indexing.daemon(holder="other")
    token = await other.leases.acquire("index:acme", "other", 60, int(time.time()) + 1000)  # as if time had passed
    assert token is not None
    tenant = Tenant("acme")
    while await other.rebuild.catch_up(tenant):
        pass
    published = indexing.store.pointer("acme")
    await other.leases.release("index:acme", "other", token)
    awake.set()
    assert await sleeping == 0
    assert indexing.store.pointer("acme") == published
    assert indexing.shown("acme") == names(range(9))


async def test_run_keeps_going_until_it_is_told_to_stop(indexing: Indexing) -> None:
    """Changes are picked up while it runs, and it ends at once when there is nothing to finish."""
    stop, daemon = asyncio.Event(), indexing.daemon()
    running = asyncio.create_task(daemon.run(stop))
    for n in range(3):
        await indexing.put_many("acme", [n])
        await _shown(indexing, names(range(n + 1)))
    stop.set()
    await asyncio.wait_for(running, 2)


async def test_a_tenant_that_is_suspended_is_left_alone(indexing: Indexing) -> None:
    """And taken up again, with everything that was stored meanwhile, when it is resumed."""
    await indexing.put_many("acme", range(3))
    daemon = indexing.daemon()
    await daemon.once()
    await Tenants(indexing.engine).suspend("acme", int(time.time()))
    await indexing.put_many("acme", [3])
    await daemon.once()
    assert indexing.shown("acme") == names(range(3))
    assert not daemon.attempts
    await Tenants(indexing.engine).resume("acme", int(time.time()))
    await daemon.once()
    assert indexing.shown("acme") == names(range(4))


async def test_an_unreachable_catalogue_does_not_end_the_daemon(indexing: Indexing) -> None:
    """It says so and asks again; what is published stays."""
    daemon = indexing.daemon()
    stop, asked = asyncio.Event(), 0

    class Away(Catalogue):
        async def versions(self) -> dict[str, int]:
            nonlocal asked
            asked += 1
            if asked < 4:
                raise StoreUnavailable("away")
            return await super().versions()

    object.__setattr__(daemon.rebuild, "catalogue", Away(indexing.engine))
    await indexing.put_many("acme", range(3))
    running = asyncio.create_task(daemon.run(stop))
    await _shown(indexing, names(range(3)))
    stop.set()
    await running
    assert asked >= 4


# --- real processes


def holder_of(s: System, tenant: str) -> int | None:
    """The process that holds the tenant's lease now."""
    database = sqlite3.connect(s.place.folder / "feed.db", timeout=5)
    try:
        row = database.execute("SELECT holder FROM leases WHERE name = ?", (f"index:{tenant}",)).fetchone()
    finally:
        database.close()
    return int(row[0].rsplit("-", 2)[1]) if row and row[0] else None


def test_a_stopped_process_cannot_publish_over_a_newer_generation(tmp_path: Path) -> None:
    """Two real daemons; the one at work gets SIGSTOP in the middle and SIGCONT after the other has published."""
    tenants = {"acme": [video(f"v{n}", f"bread {n}") for n in range(3)]}
    with system(tmp_path, "redis://127.0.0.1:1/0", tenants, model=SLOW, workers=0, daemons=0) as s:
        assert s.indexer("once")[0] == 0
        daemons = [s.start_daemon(FEED_LEASE_S="5", SLOW_S="1.5") for _ in range(2)]
        for daemon in daemons:
            eventually(lambda daemon=daemon: b"started" in daemon.log.read_bytes())  # type: ignore[misc]
        s.place.store_videos("acme", [video("slow", "trains")])
        eventually(lambda: holder_of(s, "acme") is not None)
        time.sleep(0.4)  # into the encoding: stopped within a transaction it would keep everybody out of SQLite
        stopped = next(daemon for daemon in daemons if daemon.process.pid == holder_of(s, "acme"))
        stopped.process.send_signal(signal.SIGSTOP)
        s.place.store_videos("acme", [video("other", "chess")])
        s.indexed(within_s=20)
        published = s.place.store.pointer("acme")
        stopped.process.send_signal(signal.SIGCONT)
        eventually(lambda: _said(stopped, b"overtaken"))
        time.sleep(0.5)
        assert s.place.store.pointer("acme") == published
        manifest = s.place.store.current("acme")
        assert manifest is not None
        assert s.place.store.open(manifest).n_items == 5


def test_the_daemon_steps_back(tmp_path: Path) -> None:
    """A real one, in a session of its own as `make run` starts it: its threads and its session are behind feeds."""
    nice = max(7, os.nice(0))  # of a test that was put further back itself, nothing comes forward
    with system(tmp_path, "redis://127.0.0.1:1/0", {"acme": []}, model=SLOW, workers=0, daemons=0) as s:
        daemon = s.start_daemon(FEED_NICE="7")
        eventually(lambda: _said(daemon, b"started"))
        process = Path(f"/proc/{daemon.process.pid}")
        assert {os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in (process / "task").iterdir()} == {nice}
        autogroup = process / "autogroup"  # not every kernel has it
        assert not autogroup.exists() or autogroup.read_text().endswith(f" nice {nice}\n")
        wanted = os.SCHED_IDLE if shared_by_session() else os.SCHED_OTHER
        assert {os.sched_getscheduler(int(task.name)) for task in (process / "task").iterdir()} == {wanted}


def test_the_old_priority_is_left_alone(tmp_path: Path) -> None:
    """FEED_NICE=0: nothing is changed."""
    with system(tmp_path, "redis://127.0.0.1:1/0", {"acme": []}, model=SLOW, workers=0, daemons=0) as s:
        daemon = s.start_daemon(FEED_NICE="0")
        eventually(lambda: _said(daemon, b"started"))
        assert os.sched_getscheduler(daemon.process.pid) == os.SCHED_OTHER


@pytest.mark.parametrize(
    ("switched", "groups", "weighed", "expected"),
    [
        ("1\n", "2:cpuacct:/\n1:cpu:/\n0::/\n", "", True),
        ("1\n", "0::/user.slice\n", "", True),
        ("0\n", "0::/\n", "", False),
        ("1\n", "4:cpu,cpuacct:/docker/5f\n", "", False),
        ("1\n", "0::/user.slice\n", "user.slice", False),
        ("1\n", "0::/\n", ".", False),  # a container's view of its own group
    ],
)
def test_who_shares_a_group_is_not_idle_in_it(
    tmp_path: Path, switched: str, groups: str, weighed: str, expected: bool
) -> None:
    """Only where sessions have shares of their own does the indexer give way at once: else it might never run."""
    (tmp_path / "by_session").write_text(switched)
    (tmp_path / "cgroup").write_text(groups)
    if weighed:
        (tmp_path / weighed).mkdir(exist_ok=True)
        (tmp_path / weighed / "cpu.weight").write_text("100\n")
    assert shared_by_session(tmp_path / "by_session", tmp_path / "cgroup", tmp_path) is expected
    assert not shared_by_session(tmp_path / "missing", tmp_path / "cgroup", tmp_path)


def test_a_session_of_others_is_left_alone() -> None:
    """Started from somebody's shell, whatever else runs there keeps its share."""
    code = "from indexer.priority import step_back; step_back(3); import os; print(os.nice(0))"
    command = f"cat /proc/self/autogroup; {sys.executable} -c '{code}'; cat /proc/self/autogroup"
    shown = subprocess.run(["setsid", "sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    before, own, after = shown.stdout.splitlines() or ["", "", ""]
    assert own == str(max(3, os.nice(0)))
    assert before == after


def test_sigterm_ends_the_daemon_in_the_middle_of_its_work(tmp_path: Path) -> None:
    """An encoder that is busy for minutes is abandoned; status 0 within 10 s, and the next daemon finishes."""
    tenants = {"acme": [video("a", "bread")]}
    with system(tmp_path, "redis://127.0.0.1:1/0", tenants, model=SLOW, workers=0, daemons=0) as s:
        daemon = s.start_daemon(SLOW_S="120")
        eventually(lambda: holder_of(s, "acme") is not None)
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0
        assert _said(daemon, b"stopped")
        assert not _said(daemon, b"Traceback")
        assert s.place.store.current("acme") is None
        assert holder_of(s, "acme") is None, "its lease is given back: the next one need not wait"
        assert s.indexer("once", SLOW_S="0")[0] == 0
        assert s.place.store.current("acme") is not None


def test_ctrl_c_ends_an_idle_daemon_at_once(tmp_path: Path) -> None:
    """Nothing to finish: less than two seconds."""
    with system(tmp_path, "redis://127.0.0.1:1/0", {"acme": []}, workers=0) as s:
        began = time.monotonic()
        s.daemons[0].process.send_signal(signal.SIGINT)
        assert s.daemons[0].process.wait(10) == 0
        assert time.monotonic() - began < 2


def _said(child: Child, words: bytes) -> bool:
    return words in child.log.read_bytes()


async def _shown(indexing: Indexing, expected: Sequence[str]) -> None:
    async with asyncio.timeout(5):
        while indexing.store.pointer("acme") is None or indexing.shown("acme") != list(expected):  # noqa: ASYNC110 - on disk
            await asyncio.sleep(0.01)
