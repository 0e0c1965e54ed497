"""The whole product running for a test: database, Redis, the real daemon, the real service with two workers.

    def test_something(tmp_path: Path, redis_url: str) -> None:
        with system(tmp_path, redis_url, tenants={"acme": [video("a", "Bread"), video("b", "Trains")]}) as s:
            s.feed("acme", user="u1")["items"]
            s.events("acme", "u1", ("like", "a"))
            s.put("acme", video("c", "Sourdough"))
            s.visible("acme", "c")

The embeddings come from `TinyEncoder` (microseconds) unless `model` says otherwise. A system starts in about two
seconds; the session's own, the fixture `running`, is shared by tests that only add to it. HTTP calls are plain and
blocking, so tests with and without `async` may make them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
from numpy.typing import NDArray

from deploy.local.processes import Child, ended_error, spawn
from indexer.settings import IndexerSettings
from retrieval.catalogue import Catalogue
from retrieval.database import connect, migrate
from retrieval.erasure import rekeyed
from retrieval.flags import may_be_held_out
from retrieval.store import Store
from retrieval.tenants import Tenants
from retrieval.videos import parse_videos
from tests.support.redis_server import free_port
from tests.support.tiny_encoder import TinyEncoder

Json = dict[str, Any]
T = TypeVar("T")

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent.parent
TINY = "python:tests.support.tiny_encoder:TinyEncoder"
POISON = "skull-and-crossbones"
"""A text with this word is what the encoder of FRAIL cannot embed."""
FRAIL = "python:tests.support.running:frail_encoder"
SLOW = "python:tests.support.running:SlowEncoder"
PEPPER = bytes(range(32))
"""Of every tenant here, so that a test knows who is in a hold-out."""
START_LIMIT_S = 30.0
WITHIN_S = 30.0
CANARY = "canary.bird@example.com"
"""In every request of every test, in headers that name people; it must be in no file, log, metric or trace."""
TELLING = 20
"""Characters from which on an id or a key is long enough to be found by chance nowhere."""


KEPT = ("feed.db*", "snapshots", "state", "archive", "metrics", "logs")
"""Where a system keeps everything, in its folder."""


def frail_encoder() -> TinyEncoder:
    """The encoder that FRAIL names: one that fails on POISON."""
    return TinyEncoder(fails_on=POISON)


class SlowEncoder(TinyEncoder):
    """Takes `SLOW_S` (environment, seconds) for every call."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As TinyEncoder, later."""
        time.sleep(float(os.environ.get("SLOW_S", "0")))
        return super().encode(texts)


def video(video_id: str, title: str, **more: Any) -> Json:
    """A video as the CMS would PUT it; `more` are other fields of the API."""
    return {"id": video_id, "title": title, "media_url": f"https://cdn.example/{video_id}.mp4", **more}


def user_id(name: str) -> str:
    """What an SDK sends for a user: a hash of whatever the host app calls them. `System.user_id` is never held out."""
    return sha256(name.encode()).hexdigest()


@dataclass(frozen=True)
class Keys:
    """The keys of one tenant, in clear text."""

    publishable: str
    secret: str


@dataclass(frozen=True)
class Place:
    """Where one system keeps everything: its folder and how its programs are told so (`environment`)."""

    folder: Path
    redis_url: str
    model: str = TINY
    dim: int = TinyEncoder.dim
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder / 'feed.db'}"

    @property
    def store(self) -> Store:
        return Store(self.folder / "snapshots")

    @property
    def environment(self) -> dict[str, str]:
        told = {
            "FEED_DATABASE_URL": self.database_url,
            "FEED_REDIS_URL": self.redis_url,
            "FEED_SNAPSHOT_DIR": str(self.folder / "snapshots"),
            "FEED_STATE_DIR": str(self.folder / "state"),
            "FEED_ARCHIVE_URL": str(self.folder / "archive"),
            "FEED_METRICS_DIR": str(self.folder / "metrics"),
            "FEED_VECTOR_DIM": str(self.dim),
            "FEED_MODEL": self.model,
            "FEED_ENCODER_THREADS": "1",
            "FEED_POLL_S": "0.1",
            "FEED_SNAPSHOT_POLL_MS": "100",
            "FEED_CONFIG_POLL_MS": "200",
            "FEED_COUNTERS_POLL_MS": "500",
            "FEED_USER_BATCHES_PER_S": "0",  # a test may report a year's events in a second
            "FEED_METRICS_PORT": "0",  # see `start_daemon`
            "PYTHONPATH": str(ROOT),
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEED_")}
        return {**inherited, **told, **self.more}

    def indexer_settings(self, **more: Any) -> IndexerSettings:
        """The settings the daemon of this place reads from its environment."""
        return IndexerSettings(
            database_url=self.database_url, snapshot_dir=self.folder / "snapshots", vector_dim=self.dim, **more
        )

    def prepared(self, tenants: Mapping[str, Sequence[Json]]) -> dict[str, Keys]:
        """Make the database with these tenants and videos; their keys. Videos must be valid."""
        return finished(self._prepare(tenants))

    async def _prepare(self, tenants: Mapping[str, Sequence[Json]]) -> dict[str, Keys]:
        await migrate(self.database_url)
        engine = connect(self.database_url)
        keys, now_s = {}, int(time.time())
        try:
            for tenant in tenants:
                registry = Tenants(engine)
                await Tenants(engine, lambda n: PEPPER[:n]).create(tenant, tenant, now_s)
                publishable = await registry.create_key(tenant, "pk", "test", now_s)
                secret = await registry.create_key(tenant, "sk", "test", now_s)
                keys[tenant] = Keys(publishable.clear, secret.clear)
        finally:
            await engine.dispose()
        for tenant, videos in tenants.items():
            await self._store(tenant, videos)
        return keys

    def store_videos(self, tenant: str, videos: Sequence[Json]) -> None:
        """Store videos without the API. They must be valid."""
        finished(self._store(tenant, videos))

    async def _store(self, tenant: str, videos: Sequence[Json]) -> None:
        parsed = parse_videos(videos, self.dim)
        if parsed.rejected:
            raise ValueError(f"invalid test video: {parsed.rejected[0]}")
        engine = connect(self.database_url)
        try:
            await Catalogue(engine).upsert(tenant, [one.video for one in parsed.accepted], int(time.time()))
        finally:
            await engine.dispose()


@dataclass
class System:
    """A running system. Feeds and changes go over HTTP, as an SDK and a CMS would send them."""

    place: Place
    tenants: dict[str, Keys]
    port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    daemons: list[Child] = field(default_factory=list)
    daemon_ports: list[int] = field(default_factory=list)
    others: list[Child] = field(default_factory=list)
    service: Child | None = None
    said: set[str] = field(default_factory=lambda: {CANARY})
    """What was sent that names somebody or lets somebody in: see `leaks`."""

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    # --- programs

    def start_daemon(self, **more: str) -> Child:
        """One more `python -m indexer run`; `more` are environment variables."""
        number = len(self.daemons)
        self.daemon_ports.append(free_port())
        child = self._spawn(
            f"daemon-{number}", "indexer", "run", **{"FEED_METRICS_PORT": str(self.daemon_ports[-1]), **more}
        )
        self.daemons.append(child)
        return child

    def indexer(self, *arguments: str, **more: str) -> tuple[int, str]:
        """Run `python -m indexer ARGUMENTS` to its end: (exit status, everything it wrote)."""
        child = self._spawn("indexer", "indexer", *arguments, **more)
        before = child.log.stat().st_size
        status = child.process.wait(60)
        return status, child.log.read_bytes()[before:].decode()

    def start(self, name: str, *arguments: str, **more: str) -> Child:
        """Any other program of the product, which ends with this system: `python -m ARGUMENTS`."""
        child = self._spawn(name, *arguments, **more)
        self.others.append(child)
        return child

    def start_service(self, workers: int = 2, **more: str) -> Child:
        """`python -m service serve`, ready to answer."""
        ports = {"FEED_PORT": str(self.port), "FEED_HEALTH_PORT": str(self.health_port), "FEED_WORKERS": str(workers)}
        self.service = child = self._spawn("service", "service", "serve", **ports, **more)
        eventually(lambda: self._ready(child, workers), within_s=START_LIMIT_S)
        return child

    def workers(self) -> list[psutil.Process]:
        """The worker processes of the service; a single worker is the service's own process."""
        if self.service is None:
            return []
        service = psutil.Process(self.service.process.pid)
        return [one for one in service.children() if "spawn_main" in " ".join(one.cmdline())] or [service]

    @contextmanager
    def only(self, worker: psutil.Process) -> Iterator[None]:
        """While inside, every answer comes from this worker; for less than five seconds (then uvicorn replaces the
        ones that stand still)."""
        others = [one for one in self.workers() if one.pid != worker.pid]
        for one in others:
            one.suspend()
        try:
            yield
        finally:
            for one in others:
                one.resume()

    def stop(self) -> None:
        """End everything that was started here."""
        for child in (*self.others, *self.daemons, *([self.service] if self.service else [])):
            if not child.ended:
                child.process.send_signal(signal.SIGCONT)
            child.stop()

    # --- calls

    def user_id(self, name: str) -> str:
        """What an SDK sends for this user: one that no tenant here has in its hold-out."""
        tried = (user_id(f"{name}{n}") for n in count())
        keys = ((one, rekeyed(one, PEPPER)) for one in tried)
        found = next(one for one, key in keys if not any(may_be_held_out(tenant, key) for tenant in self.tenants))
        self.said.add(found)
        return found

    def call(self, method: str, path: str, key: str, **more: Any) -> httpx.Response:
        """Any request, on a connection of its own: whichever worker takes it."""
        named = dict.fromkeys(("User-Agent", "Referer", "Cookie", "From"), CANARY)
        headers = {"Authorization": f"Bearer {key}", **named, **more.pop("headers", {})}
        self.said |= {one for one in (key, headers.get("Feed-User", "")) if len(one) >= TELLING}
        return httpx.request(method, self.base_url + path, headers=headers, timeout=30, **more)

    def feed(self, tenant: str, user: str | None = None, **query: Any) -> Json:
        """GET /v1/feed of a user (any name; None is anonymous), which must succeed."""
        headers = {"Feed-User": self.user_id(user)} if user else {}
        answer = self.call("GET", "/v1/feed", self.tenants[tenant].publishable, params=query, headers=headers)
        return read(answer, 200)

    def ids(self, tenant: str, user: str | None = None, **query: Any) -> list[str]:
        """The video ids of a feed, in its order."""
        return [item["id"] for item in self.feed(tenant, user, **query)["items"]]

    def scrolled(self, tenant: str, pages: int = 4) -> list[str]:
        """The video ids of the first pages of somebody new; the first alone depends on the hour's seed."""
        page = self.feed(tenant, limit=50)
        shown = [item["id"] for item in page["items"]]
        while (pages := pages - 1) and "next_cursor" in page:
            page = self.feed(tenant, limit=50, cursor=page["next_cursor"])
            shown += [item["id"] for item in page["items"]]
        return shown

    def events(self, tenant: str, user: str, *events: tuple[str, str], **more: Any) -> Json:
        """POST /v1/events of (type, video id) pairs that happen now; `more` are other fields of each event."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        made = {"occurred_at": now, **more}
        sent = [{"id": str(uuid4()), "type": kind, "item_id": item, **made} for kind, item in events]
        headers = {"Feed-User": self.user_id(user)}
        body = {"sent_at": now, "events": sent}
        key = self.tenants[tenant].publishable
        return read(self.call("POST", "/v1/events", key, json=body, headers=headers), 207)

    def put(self, tenant: str, *videos: Json, expect: int = 200) -> Json:
        """PUT /v1/admin/videos of these videos."""
        content = json.dumps({"videos": videos}).encode()
        headers = {"Content-Type": "application/json"}
        key = self.tenants[tenant].secret
        return read(self.call("PUT", "/v1/admin/videos", key, content=content, headers=headers), expect)

    def delete(self, tenant: str, video_id: str) -> None:
        """DELETE a video, which must exist."""
        read(self.call("DELETE", f"/v1/admin/videos/{video_id}", self.tenants[tenant].secret), 204)

    def stored(self, tenant: str, video_id: str) -> Json:
        """GET one video as it is stored."""
        return read(self.call("GET", f"/v1/admin/videos/{video_id}", self.tenants[tenant].secret), 200)

    # --- what must not be kept

    def metrics(self) -> dict[str, bytes]:
        """What the programs that still run tell of themselves."""
        ports = [self.health_port] * (self.service is not None) + self.daemon_ports
        return {f"metrics on {port}": _metrics(port) for port in ports}

    def leaks(self, told: Mapping[str, bytes]) -> list[str]:
        """Which of `told`, and of the stores and logs in this place, hold something that was `said`."""
        wanted = re.compile(b"|".join(re.escape(one.encode()) for one in sorted(self.said)))
        kept = (path for name in KEPT for path in self.place.folder.glob(name))
        files = [file for path in kept for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
        everything = {**told, **{str(file): file.read_bytes() for file in files}}
        return [f"{place}: {found[0].decode()}" for place, text in everything.items() if (found := wanted.search(text))]

    # --- waiting

    def visible(self, tenant: str, video_id: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until every worker would show the video in the feed of somebody new."""
        self.in_every_worker(lambda: video_id in self.scrolled(tenant), within_s=within_s)

    def gone(self, tenant: str, video_id: str, *, within_s: float = WITHIN_S) -> None:
        """Wait until no worker shows the video any more."""
        self.in_every_worker(lambda: video_id not in self.scrolled(tenant), within_s=within_s)

    def in_every_worker(self, true: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
        """Wait until `true()` holds, asked of each worker by itself."""
        for worker in self.workers():
            deadline = time.monotonic() + within_s
            while True:
                with self.only(worker):
                    if true():
                        break
                if time.monotonic() > deadline:
                    raise AssertionError(f"not true in worker {worker.pid} within {within_s} s")
                time.sleep(0.05)

    def indexed(self, *, within_s: float = START_LIMIT_S) -> None:
        """Wait until every tenant's published snapshot is at its catalogue's version."""
        eventually(lambda: not finished(self._behind()), within_s=within_s)

    async def _behind(self) -> list[str]:
        engine = connect(self.place.database_url)
        try:
            versions = await Catalogue(engine).versions()
        finally:
            await engine.dispose()
        found = {tenant: self.place.store.current(tenant) for tenant in versions}
        return [tenant for tenant, one in found.items() if one is None or one.version < versions[tenant]]

    def _spawn(self, name: str, *arguments: str, **more: str) -> Child:
        command = [sys.executable, "-m", *arguments]
        environment = {**self.place.environment, **more}
        return spawn(name, command, self.place.folder / "logs" / f"{name}.log", env=environment, grace_s=12.0)

    def _ready(self, child: Child, workers: int) -> bool:
        if child.ended:
            raise ended_error(child)
        try:
            answer = httpx.get(f"http://{HOST}:{self.health_port}/metrics", timeout=5)
            httpx.get(self.base_url, timeout=5)  # a worker says that it is ready a moment before it listens
        except httpx.TransportError:
            return False
        refreshed = [line for line in answer.text.splitlines() if line.startswith("feed_worker_refreshed")]
        return sum(float(line.split()[-1]) > 0 for line in refreshed) >= workers


@contextmanager
def system(
    folder: Path,
    redis_url: str,
    tenants: Mapping[str, Sequence[Json]],
    *,
    model: str = TINY,
    dim: int = TinyEncoder.dim,
    daemons: int = 1,
    workers: int = 2,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[System]:
    """A system with these tenants and videos, indexed and answering; everything is stopped on leaving.

    0 daemons or workers: none is started, and nothing is waited for.
    """
    place = Place(folder, redis_url, model, dim, env)
    running = System(place, place.prepared(tenants))
    try:
        for _ in range(daemons):
            running.start_daemon()
        if daemons:
            running.indexed()
        if workers:
            running.start_service(workers)  # now, so that every worker has every snapshot when it is ready
        if daemons and workers:
            for tenant, videos in tenants.items():
                if any(one.get("status", "published") == "published" for one in videos):
                    eventually(lambda name=tenant: bool(running.ids(name)), within_s=WITHIN_S)  # type: ignore[misc]
        yield running
        told = running.metrics()
    finally:
        running.stop()
    leaks = running.leaks(told)
    assert not leaks, leaks


def _metrics(port: int) -> bytes:
    """What a program tells, nothing if it has ended."""
    try:
        return httpx.get(f"http://{HOST}:{port}/metrics", timeout=5).content
    except httpx.TransportError:
        return b""


@pytest.fixture(scope="session")
def running(redis_databases: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the session: tenants `news` and `talks`, 40 videos each. Add to it; do not break it. Texts with
    POISON are quarantined.

    Another test may empty its Redis, so a test must make its users within itself.
    """
    topics = ("bread", "trains", "chess", "gardens")
    tenants = {
        tenant: [
            video(f"{tenant}-{topic}-{n}", f"{topic} {topic} part {n}", tags=[topic])
            for topic in topics
            for n in range(10)
        ]
        for tenant in ("news", "talks")
    }
    with system(tmp_path_factory.mktemp("running"), next(redis_databases), tenants, model=FRAIL) as started:
        yield started


def read(answer: httpx.Response, expected: int) -> Json:
    """The JSON of an answer that must have this status."""
    if answer.status_code != expected:
        raise AssertionError(f"status {answer.status_code}, expected {expected}: {answer.text[:2000]}")
    body: Json = answer.json() if answer.content else {}
    return body


def eventually(true: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
    """Ask again and again until the answer is yes; an AssertionError when it never is."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {within_s} s")
        time.sleep(0.03)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, also inside a running event loop: it gets a thread and a loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
