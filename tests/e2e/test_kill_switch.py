"""The kill switch, flipped twenty times under load: no error, no wait, and cursor chains go on."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from retrieval.database import connect
from retrieval.errors import StoreUnavailable
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.tables import GLOBAL
from service.resources import _redis
from tests.support.running import Json, System, eventually, finished, system, video

TENANT = "switch"
ALWAYS_S = 5.0
HASTY = {"FEED_USER_REQUESTS_PER_S": "0"}  # these users scroll as fast as they are answered


@pytest.fixture
def s(redis_url: str, tmp_path: Path) -> Iterator[System]:
    """A system on a Redis database of its own, because the switch is for all tenants."""
    videos = [video(f"v{n}", f"{('bread', 'trains', 'chess')[n % 3]} {n}", creator=f"c{n % 20}") for n in range(300)]
    with system(tmp_path, redis_url.removesuffix("/0") + "/7", {TENANT: videos}, env=HASTY) as running:
        running.events(TENANT, "pia", ("like", "v1"), ("like", "v4"))
        yield running


async def flip(s: System, state: str, database_url: str | None = None) -> float:
    """Set the global flag as an operator's command does; seconds it took."""
    began = time.monotonic()
    engine, redis = connect(database_url or s.place.database_url), _redis(s.place.redis_url, 0.5)
    stores = FlagStores(FlagTable(engine), FlagMirror(redis))
    try:
        change = {"state": state, "reason": "test"}
        now_ms = int(time.time() * 1000)
        await stores.set(GLOBAL, change, author="test", if_version=None, now_ms=now_ms)
    finally:
        await redis.aclose()
        await engine.dispose()
    return time.monotonic() - began


class Scrolling:
    """Users who scroll all the time, each in a cursor chain; what goes wrong is remembered."""

    def __init__(self, s: System) -> None:
        self.s = s
        self.pages = 0
        self.wrong: list[str] = []
        self.lengths: list[int] = []
        self._stop = asyncio.Event()

    async def run(self, users: int = 4) -> None:
        async with httpx.AsyncClient(base_url=self.s.base_url, timeout=10) as client:
            await asyncio.gather(*(self._scroll(client, f"u{n}") for n in range(users)))

    def stop(self) -> None:
        self._stop.set()

    async def _scroll(self, client: httpx.AsyncClient, user: str) -> None:
        headers = {"Authorization": f"Bearer {self.s.tenants[TENANT].publishable}", "Feed-User": self.s.user_id(user)}
        while not self._stop.is_set():
            cursor, had = None, []
            for _ in range(12):
                query: dict[str, Any] = {"limit": 20} | ({"cursor": cursor} if cursor else {})
                answer = await client.get("/v1/feed", params=query, headers=headers)
                self.pages += 1
                if answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code}: {answer.text[:200]}")
                    return
                page: Json = answer.json()
                if "cursor_restarted" in page["degraded"]:
                    self.wrong.append("a chain was cut")
                    break
                had += [item["id"] for item in page["items"]]
                cursor = page.get("next_cursor")
                if cursor is None or self._stop.is_set():
                    break
            if len(had) != len(set(had)):
                self.wrong.append(f"{len(had) - len(set(had))} repeats in a chain")
            self.lengths.append(len(had))


def test_twenty_flips_under_load(s: System) -> None:
    """Every page is 200, no chain is cut or repeats an item, and each worker follows each flip."""

    async def run() -> Scrolling:
        scrolling = Scrolling(s)
        load = asyncio.create_task(scrolling.run())
        for state in itertools.islice(itertools.cycle(("killed", "on")), 20):
            await flip(s, state)
            began = time.monotonic()
            while (s.feed(TENANT, "pia")["mode"] == "killed") != (state == "killed"):
                assert time.monotonic() - began < ALWAYS_S
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
        scrolling.stop()
        await load
        return scrolling

    scrolling = finished(run())
    assert scrolling.wrong == []
    assert scrolling.pages > 100
    assert max(scrolling.lengths) > 200, "no chain went past its first list"
    s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "personalised", within_s=2)


def test_with_sql_down(s: System) -> None:
    """SQL locked and then gone: the flip goes through Redis, and SQL is told when it is back."""
    path = s.place.folder / "feed.db"
    away = path.with_suffix(".away")
    path.rename(away)
    assert finished(flip(s, "killed", f"sqlite:///{s.place.folder}/gone.db")) < ALWAYS_S
    s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=2)
    away.rename(path)

    def in_sql() -> bool:
        with sqlite3.connect(path) as database:
            rows = database.execute("SELECT body FROM flags WHERE tenant_id = ''").fetchall()
        return any('"killed":true' in body for (body,) in rows)

    eventually(in_sql)
    finished(flip(s, "on"))
    s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "personalised", within_s=2)


def test_with_redis_down_and_with_both_down(s: System, redis_url: str) -> None:
    """Redis stopped: through SQL. SQL gone as well: a file. A restart in that state stays killed."""
    import psutil  # type: ignore[import-untyped]  # ships no types

    port = int(redis_url.rsplit(":", 1)[1].split("/")[0])
    [server] = [
        process
        for process in psutil.Process().children(recursive=True)
        if any(one.status == "LISTEN" and one.laddr.port == port for one in process.net_connections())
    ]
    server.send_signal(signal.SIGSTOP)  # black-holed, which is worse than refused
    try:
        assert finished(flip(s, "killed")) < ALWAYS_S
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=ALWAYS_S)
        finished(flip(s, "on"))
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] != "killed", within_s=ALWAYS_S)
        path = s.place.folder / "feed.db"
        path.rename(path.with_suffix(".away"))
        with pytest.raises(StoreUnavailable):
            finished(flip(s, "killed", f"sqlite:///{s.place.folder}/gone.db"))
        KillFiles(s.place.folder / "state").kill(GLOBAL, "fire")
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=ALWAYS_S)
        assert s.service is not None
        s.service.stop()
        s.start_service()
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=ALWAYS_S)
        path.with_suffix(".away").rename(path)
    finally:
        server.send_signal(signal.SIGCONT)
