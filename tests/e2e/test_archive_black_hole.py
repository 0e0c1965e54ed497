"""Object storage that takes connections and answers nothing: feeds go on, and who asks the archive is told in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from retrieval.archive import Archive
from retrieval.serve_log import LIMIT_S
from tests.support.black_hole import Proxy
from tests.support.object_store import object_store
from tests.support.running import HOST, System, eventually, read, system, video

TENANT = "hole"
PATIENCE_S = 1.0
"""No feed takes longer, whatever object storage does; a slow machine forgiven."""
URL = "s3://archive/hole"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Object storage, reached directly."""
    with object_store(tmp_path) as options:
        yield options


@pytest.fixture
def proxy(bucket: dict[str, str]) -> Iterator[Proxy]:
    """What the programs reach it through. In its hole they can still list and read the log of a table, and no data:
    the moment at which a query is under way."""
    there = urlsplit(bucket["AWS_ENDPOINT_URL"])

    def asks_for_data(sent: bytes) -> bool:
        return sent.startswith(b"GET ") and b"/date%3D" in sent.split(b"\r\n", 1)[0]

    with Proxy(lambda: asyncio.open_connection(there.hostname, there.port), asks_for_data) as started:
        yield started


@pytest.fixture
def s(proxy: Proxy, bucket: dict[str, str], redis_url: str, tmp_path: Path) -> Iterator[System]:
    """A daemon and one worker whose archive is behind the proxy."""
    env = {**bucket, "AWS_ENDPOINT_URL": f"http://{HOST}:{proxy.port}", "FEED_ARCHIVE_URL": URL}
    videos = [video(f"v{n}", f"{('bread', 'trains')[n % 2]} {n}") for n in range(60)]
    more = {"FEED_SIGNALS_FLUSH_S": "0.2"}
    with system(tmp_path / "system", redis_url, {TENANT: videos}, workers=1, env={**env, **more}) as running:
        yield running


def explain(s: System, request_id: str) -> httpx.Response:
    """What an operator's tool asks."""
    return s.call("GET", f"/v1/explain/{request_id}", s.tenants[TENANT].secret)


def test_feeds_go_on_and_the_question_ends_in_time(s: System, proxy: Proxy, bucket: dict[str, str]) -> None:
    """One worker, asked to explain an archived page while no data comes: 503 within its limit, no feed waits for it,
    events and erasures are taken, content moves; and the same question is answered when the storage is back."""
    page = s.feed(TENANT, "pia")
    archive = Archive(URL, bucket)
    eventually(lambda: archive.count("serves") > 0)
    assert read(explain(s, page["request_id"]), 200)["identical"]
    with proxy.hole(), ThreadPoolExecutor(1) as other:
        began_s = time.monotonic()
        asked = other.submit(explain, s, page["request_id"])
        slowest_s = 0.0
        while not asked.done():
            sent_s = time.monotonic()
            assert len(s.ids(TENANT, "pia")) == 20
            slowest_s = max(slowest_s, time.monotonic() - sent_s)
            time.sleep(0.05)
        took_s = time.monotonic() - began_s
        refused = asked.result()
        assert refused.status_code == 503, refused.text
        assert refused.json()["type"].endswith("overloaded") and int(refused.headers["Retry-After"]) >= 1
        assert f"no answer within {LIMIT_S:g} s" in (s.place.folder / "logs" / "service.log").read_text()
        assert s.events(TENANT, "pia", ("like", "v1"))["accepted"] == 1
        erased = s.call("DELETE", f"/v1/users/{s.user_id('max')}", s.tenants[TENANT].secret)
        assert erased.status_code == 202, erased.text
        s.put(TENANT, video("after", "trains in the hole"))
        s.visible(TENANT, "after", within_s=20)
    assert slowest_s < PATIENCE_S
    assert LIMIT_S <= took_s < LIMIT_S + 5
    eventually(lambda: explain(s, page["request_id"]).status_code == 200, within_s=3 * LIMIT_S)
