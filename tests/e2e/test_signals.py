"""The life of an event in the whole product: through kills into the archive, and out of every byte again."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
import redis

from deploy.local import valkey
from deploy.local.processes import Child, spawn
from retrieval import keys
from retrieval.archive import Archive
from retrieval.database import connect
from retrieval.erasure import rekeyed
from retrieval.tenants import Tenants
from tests.support.collector import Collector, collecting
from tests.support.redis_server import free_port
from tests.support.running import HOST, Json, System, eventually, finished, read, system, video

QUICK = {"FEED_SIGNALS_FLUSH_S": "0.3", "FEED_SIGNALS_PUBLISH_S": "0.5", "FEED_LEASE_S": "5"}
VIDEOS = [video(f"v{n}", f"bread part {n}") for n in range(45)]
LOAD_S = 15.0
WRITERS = 4


@dataclass
class Server:
    """A store with a log on disk, which can be killed and started again. `port` stays the same."""

    folder: Path
    port: int = field(default_factory=free_port)
    child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until its log is read."""
        self.folder.mkdir(exist_ok=True)
        # Strings lie as they are in its files, so that searching them for somebody means something.
        settings = {**valkey.DURABLE, "appendfsync": "always"}
        command = valkey.server_command(self.port, self.folder, settings)
        self.child = spawn("store", command, self.folder / "server.log", env={}, grace_s=5.0)
        eventually(lambda: valkey.answers(self.port))

    def kill(self) -> None:
        """SIGKILL: whatever is not on its way to the disk is lost."""
        if self.child is not None:
            self.child.process.kill()
            self.child.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running store of its own."""
    started = Server(tmp_path / "store")
    started.start()
    yield started
    if started.child is not None:
        started.child.stop()


@dataclass
class Phone:
    """An SDK that sends batch after batch, each again and again until it is acknowledged."""

    running: System
    name: str
    stop: threading.Event
    acknowledged: list[str] = field(default_factory=list)
    refusals: int = 0

    def use(self) -> None:
        """Send until told to stop; the last batch is acknowledged too."""
        while not self.stop.is_set():
            batch = [self.event() for _ in range(random.randint(1, 20))]
            while not self.send(batch):
                self.refusals += 1
                time.sleep(0.05)
            self.acknowledged += [one["id"] for one in batch]

    def event(self) -> Json:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {
            "id": str(uuid4()),
            "type": "impression",
            "item_id": f"v{random.randrange(len(VIDEOS))}",
            "occurred_at": now,
        }

    def send(self, batch: list[Json]) -> bool:
        """Whether every event of the batch was acknowledged: accepted now, or known from an earlier attempt."""
        key = self.running.tenants["acme"].publishable
        headers = {"Feed-User": self.name * 32, "Authorization": f"Bearer {key}"}
        try:
            answer = httpx.post(
                f"{self.running.base_url}/v1/events", json={"events": batch}, headers=headers, timeout=5
            )
        except httpx.TransportError:
            return False
        if answer.status_code == 503:
            assert 1 <= int(answer.headers["retry-after"]) <= 5
            return False
        body = read(answer, 207)
        assert body["accepted"] + body["duplicate"] == len(batch), body
        return True


@contextmanager
def phones(running: System) -> Iterator[list[Phone]]:
    """Some phones in use; leaving waits until each has had its last answer."""
    stop = threading.Event()
    used = [Phone(running, f"{n:x}", stop) for n in range(WRITERS)]
    threads = [threading.Thread(target=one.use, daemon=True) for one in used]
    for thread in threads:
        thread.start()
    yield used
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_every_acknowledged_event_is_archived_exactly_once(tmp_path: Path, server: Server) -> None:
    """Store, service and daemon are killed at random moments under load: nothing acknowledged is lost or doubled."""
    chance = random.Random(4)
    with system(tmp_path / "system", server.url, {"acme": VIDEOS}, env=QUICK) as running:
        running.visible("acme", "v1")
        with phones(running) as used:
            until = time.monotonic() + LOAD_S
            kills = 0
            while time.monotonic() < until:
                time.sleep(chance.uniform(0.2, 1.2))
                victim = ("store", "worker", "daemon")[kills % 3]
                kills += 1
                if victim == "store":
                    server.kill()
                    time.sleep(chance.uniform(0.0, 0.5))
                    server.start()
                elif victim == "worker":
                    with suppress(psutil.Error):  # the one killed before it may not be replaced yet
                        chance.choice(running.workers()).kill()
                else:
                    running.daemons[-1].process.kill()
                    running.daemons[-1].process.wait()
                    running.start_daemon()
        sent = [event_id.replace("-", "") for phone in used for event_id in phone.acknowledged]
        archive = Archive(str(tmp_path / "system" / "archive"))
        eventually(lambda: archive.count("events") >= len(sent), within_s=20)
        found = [row["event_id"] for row in archive.query("SELECT event_id FROM events")]
    assert kills >= 9
    assert len(sent) > 200
    assert sorted(found) == sorted(sent)


def holding(text: str, *folders: Path) -> list[str]:
    """Files below the folders that hold the text, in their contents or their name."""
    wanted = text.encode()
    return [
        str(path)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and (wanted in path.read_bytes() or text in path.name)
    ]


async def pepper(running: System) -> bytes:
    """The secret that makes user keys of the tenant's ids."""
    engine = connect(running.place.database_url)
    try:
        return (await Tenants(engine).get("acme")).pepper
    finally:
        await engine.dispose()


def canary_everywhere(running: System, user: str) -> str:
    """Use this user id wherever the API takes one, and try to put an address where none belongs. Returns an address."""
    keys, address = running.tenants["acme"], "canary.bird@example.com"
    me = {"Feed-User": user}
    page = read(running.call("GET", "/v1/feed", keys.publishable, headers=me, params={"surface": address}), 200)
    read(running.call("GET", "/v1/feed", keys.publishable, headers=me, params={"cursor": page["next_cursor"]}), 200)
    read(running.call("GET", "/v1/feed", keys.publishable, headers={"Feed-User": address}), 400)
    read(running.call("GET", f"/v1/feed?language={address}&country={address}&email={address}", keys.publishable), 200)
    good = {"type": "like", "item_id": page["items"][0]["id"], "occurred_at": "2026-01-01T00:00:00Z", "email": address}
    events: list[dict[str, Any]] = [
        {**good, "id": str(uuid4()), "request_id": page["request_id"]},
        {**good, "id": address},
        {**good, "id": str(uuid4()), "request_id": address},
        {**good, "id": str(uuid4()), "item_id": address},
        {**good, "id": str(uuid4()), "type": address},
    ]
    answer = running.call("POST", "/v1/events", keys.publishable, headers=me, json={"events": events, "user": address})
    assert read(answer, 207)["accepted"] == 1
    read(running.call("POST", "/v1/events", keys.publishable, headers={"Feed-User": address}, json={"events": []}), 400)
    read(running.call("GET", "/v1/feed", f"pk_{address}", headers=me), 401)
    read(running.call("DELETE", f"/v1/users/{address}", keys.secret), 400)
    said = dict.fromkeys(("User-Agent", "Referer", "Cookie", "X-Request-Id", "X-Forwarded-For", "traceparent"), address)
    read(running.call("GET", "/v1/feed", keys.publishable, headers={**me, **said, "If-None-Match": address}), 200)
    read(running.call("GET", f"/v1/feed?explain=1&item={address}", keys.secret, headers=me), 200)
    read(running.call("GET", f"/v1/explain/{address}", keys.secret), 404)
    read(running.call("GET", f"/v1/admin/videos/{address}", keys.secret), 404)
    read(running.call("GET", f"/v1/{address}", keys.publishable), 404)
    read(running.call("POST", f"/v1/webhooks/cms?tenant={address}", address, json={"to": address}, headers=said), 401)
    return address


def traced_to(collector: Collector) -> dict[str, str]:
    """Settings under which every request is traced."""
    return {**QUICK, "FEED_TRACE_SHARE": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def test_an_erased_user_is_in_no_byte_of_any_store_or_log(tmp_path: Path, server: Server) -> None:
    """A canary is used everywhere and erased; then neither what the app calls it nor our own key is in any file, log
    line, metric or span, and an address or a key in clear text never was."""
    canary = "CanaryCanary" * 4
    place = tmp_path / "system"
    with collecting() as collector, system(place, server.url, {"acme": VIDEOS}, env=traced_to(collector)) as running:
        keys = running.tenants["acme"]
        running.visible("acme", "v1")
        address = canary_everywhere(running, canary)
        user_key = rekeyed(canary, finished(pepper(running)))
        archive = Archive(str(place / "archive"))
        eventually(lambda: archive.count("events") == 1)
        assert len(holding(user_key, place, server.folder)) >= 3  # the search finds what is there

        asked = running.call("DELETE", f"/v1/users/{canary}", keys.secret)
        location = asked.headers["location"]
        assert asked.status_code == 202
        eventually(lambda: running.call("GET", location, keys.secret).json()["state"] == "done")
        receipt = running.call("GET", location, keys.secret).json()
        assert receipt["counts"]["archived_events"] == 1
        assert receipt["counts"]["archived_serves"] == 3
        assert receipt["counts"]["journal_entries"] == 61
        assert running.call("GET", location, keys.publishable).status_code == 403

        late = {"id": str(uuid4()), "type": "like", "item_id": "v1", "occurred_at": "2026-01-01T00:00:00Z"}
        me = {"Feed-User": canary}
        sent = {"sent_at": "2026-01-02T00:00:00Z", "events": [late]}
        refused = read(running.call("POST", "/v1/events", keys.publishable, headers=me, json=sent), 207)
        assert [one["code"] for one in refused["rejected"]] == ["erased"]

        forbidden = (canary, user_key, address, "canary.bird", keys.publishable, keys.secret)
        for port in (running.health_port, *running.daemon_ports):
            metrics = httpx.get(f"http://{HOST}:{port}/metrics").text
            assert "acme" in metrics
            assert not [text for text in forbidden if text in metrics]
        # The server removes the log it has written anew in the background.
        eventually(lambda: not [text for text in forbidden if holding(text, place, server.folder)])
    assert not [path for text in forbidden for path in holding(text, place, server.folder)]
    traces = b"".join(collector.bodies)
    assert b"/v1/events" in traces
    assert not [text for text in forbidden if text.encode() in traces]


def test_the_operator_erases_with_a_command(tmp_path: Path, server: Server) -> None:
    """The same without the API: the id is read from standard input, because an argument stays in a shell's history."""
    with system(tmp_path / "system", server.url, {"acme": VIDEOS}, env=QUICK) as running:
        running.visible("acme", "v1")
        running.feed("acme", "u1")
        running.events("acme", "u1", ("like", "v1"))
        command = [sys.executable, "-m", "indexer", "erase", "acme"]
        environment = running.place.environment
        erased = subprocess.run(
            command, input=running.user_id("u1") + "\n", env=environment, capture_output=True, text=True, timeout=30
        )
        assert erased.returncode == 0, erased.stderr
        said = json.loads(erased.stdout)
        assert said["state"] == "done"
        assert said["counts"] == {"journal_entries": 21, "known_ids": 1, "archived_events": 1, "archived_serves": 1}


def test_an_erasure_is_not_asked_of_another_deployments_redis(tmp_path: Path, server: Server) -> None:
    """Nobody would ever do it, so the command says so instead of waiting for it, and leaves nothing there."""
    with (
        system(tmp_path / "system", server.url, {"acme": []}, workers=0, daemons=0) as running,
        redis.Redis.from_url(server.url, protocol=2) as store,
    ):
        store.set(keys.DRAINED_BY, "another", ex=60)
        command = [sys.executable, "-m", "indexer", "erase", "acme"]
        environment = running.place.environment
        user = running.user_id("u1") + "\n"
        asked = subprocess.run(command, input=user, env=environment, capture_output=True, text=True, timeout=30)
        assert (asked.returncode, asked.stdout) == (2, "")
        assert "another archive" in asked.stderr
        assert user.strip() not in asked.stderr
        assert store.keys() == [keys.DRAINED_BY.encode()]


def pages(archive: Archive) -> int:
    """Archived pages of users that are not anonymous."""
    return int(archive.query("SELECT count(*) AS n FROM serves WHERE user_key <> '-'")[0]["n"])


def test_journals_come_back_with_a_command(tmp_path: Path, server: Server) -> None:
    """The store lost everything; one command beside the running service, and nothing seen is shown again."""
    with system(tmp_path / "system", server.url, {"acme": VIDEOS}, env=QUICK) as running:
        running.visible("acme", "v1")
        seen = running.ids("acme", "u1")
        running.events("acme", "u1", *[("impression", video_id) for video_id in seen])
        archive = Archive(str(tmp_path / "system" / "archive"))
        eventually(lambda: archive.count("events") == len(seen) and pages(archive) == 1)
        with redis.Redis.from_url(server.url, protocol=2) as store:
            store.flushall()
        assert set(running.ids("acme", "u1")) & set(seen)
        eventually(lambda: pages(archive) == 2)
        assert running.indexer("rebuild-journals") == (0, '{"journals":1}\n')
        assert not set(running.ids("acme", "u1")) & set(seen)
