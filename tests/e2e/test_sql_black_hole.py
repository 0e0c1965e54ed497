"""PostgreSQL as a black hole: connections are taken, statements are not answered. Feeds and the kill switch go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import make_url

from retrieval.database import connect
from retrieval.flag_stores import FlagTable
from retrieval.tables import GLOBAL
from tests.e2e.test_kill_switch import ALWAYS_S, flip
from tests.support.black_hole import Proxy
from tests.support.running import HOST, Place, System, eventually, finished, video

TENANT = "hole"
PATIENCE_S = 1.0
"""No feed takes longer, whatever SQL does; a slow machine forgiven."""


@dataclass(frozen=True)
class PostgresPlace(Place):
    """A place whose database is PostgreSQL."""

    url: str = ""

    @property
    def database_url(self) -> str:
        return self.url


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """The proxy, letting everything through."""
    there = f"{make_url(postgres_url).query['host']}/.s.PGSQL.5432"
    with Proxy(lambda: asyncio.open_unix_connection(there)) as started:
        yield started


@pytest.fixture
def s(proxy: Proxy, postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[System]:
    """A daemon and two workers that reach their database through the proxy."""
    videos = [video(f"v{n}", f"{('bread', 'trains')[n % 2]} {n}") for n in range(120)]
    place = PostgresPlace(tmp_path, redis_url, more={"FEED_CONFIG_POLL_MS": "200"}, url=postgres_url)
    keys = place.prepared({TENANT: videos})
    name = make_url(postgres_url).database
    through = replace(place, url=f"postgresql://postgres@{HOST}:{proxy.port}/{name}")
    running = System(through, keys)
    try:
        running.start_daemon()
        running.start_service(2)
        running.indexed()
        eventually(lambda: len(running.ids(TENANT)) == 20)
        running.events(TENANT, "pia", ("like", "v1"))
        yield running
    finally:
        running.stop()


def test_feeds_events_and_the_switch_go_on(s: System, proxy: Proxy) -> None:
    """While SQL answers nothing: two flips and an operator's command, each in every worker within 5 s, and no feed
    slower than ever. Afterwards SQL knows, and content moves again."""
    slowest_s = 0.0

    def timed(true: Callable[[], bool]) -> bool:
        nonlocal slowest_s
        began_s = time.monotonic()
        answer = true()
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        return answer

    with proxy.hole():
        time.sleep(1.5)  # every loop is waiting for SQL by now
        for state, right in (("killed", ("killed",)), ("on", ("personalised",))):
            took_s = finished(flip(s, state))
            assert took_s < ALWAYS_S
            began_s = time.monotonic()
            s.in_every_worker(
                lambda right=right: timed(lambda: s.feed(TENANT, "pia")["mode"] in right),  # type: ignore[misc]
                within_s=ALWAYS_S,
            )
            assert took_s + time.monotonic() - began_s < 2 * ALWAYS_S  # both workers, one after the other
        assert s.events(TENANT, "pia", ("like", "v3"))["accepted"] == 1
        page = s.feed(TENANT, "pia", limit=50)
        assert len(s.feed(TENANT, "pia", limit=50, cursor=page["next_cursor"])["items"]) == 50
        began_s = time.monotonic()
        command = s._spawn("kill", "service", "kill", "--reason", "fire")
        assert command.process.wait(30) == 0, command.log.read_text()
        s.in_every_worker(lambda: s.feed(TENANT, "pia")["mode"] == "killed", within_s=ALWAYS_S)
        assert time.monotonic() - began_s < 20
    assert slowest_s < PATIENCE_S
    s.put(TENANT, video("after", "trains after the hole"))
    s.visible(TENANT, "after", within_s=20)
    assert finished(_killed_in(s.place.database_url))


async def _killed_in(database_url: str) -> bool:
    """Whether SQL has heard of the kill, within a while."""
    engine = connect(database_url)
    try:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            flag = (await FlagTable(engine).all()).get(GLOBAL)
            if flag is not None and flag.killed:
                return True
            await asyncio.sleep(0.1)
        return False
    finally:
        await engine.dispose()
