"""The real service inside the test's process: its own Redis that can be stopped, and a clock that can be set.

    with served(tmp_path, {"acme": [video("a", "Bread")]}) as s:
        s.get("/v1/feed", "acme", user="u1").json()
        s.now_s += 3600

For what `tests.support.running` cannot do: moving time, looking at what a worker holds, a Redis that stands still.
Content is published by the indexer's own code, without its daemon, so a test knows when it is out.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis

from deploy.local.processes import Child
from indexer.embedding import Embedder
from indexer.rebuild import Rebuild, Tenant
from indexer.signals import Signals
from retrieval.archive import Archive
from retrieval.catalogue import Catalogue
from retrieval.counters import version_of
from retrieval.database import connect
from retrieval.errors import NotFound
from retrieval.policies import Policies
from retrieval.store import Store
from retrieval.tenants import Tenants
from retrieval.vectors import VectorCache
from retrieval.videos import parse_videos
from service.app import application, asgi
from service.auth import rekeyed
from service.resources import Resources
from service.settings import ServiceSettings
from service.wire import Wire
from tests.support.redis_server import free_port, own_redis
from tests.support.running import HOST, Keys, Place, eventually, finished, user_id
from tests.support.tiny_encoder import TinyEncoder

Json = dict[str, Any]


@dataclass
class Served:
    """A service that answers on `base_url`, with its tenants' keys and the place its data is in."""

    place: Place
    keys: dict[str, Keys]
    redis: Child
    app: FastAPI
    port: int
    client: httpx.Client
    ahead_s: float = 0.0
    numbers: dict[str, Tenant] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def resources(self) -> Resources:
        found: Resources = self.app.state.resources
        return found

    # --- time and Redis

    @property
    def now_s(self) -> int:
        """The service's time; setting it moves the service's clock, which keeps running."""
        return int(time.time() + self.ahead_s)

    @now_s.setter
    def now_s(self, value: int) -> None:
        self.ahead_s = value - time.time()

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """While inside, Redis takes connections and answers nothing."""
        self.redis.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.redis.process.send_signal(signal.SIGCONT)

    def empty_redis(self) -> None:
        """Lose everything that is in Redis, flags too."""

        async def flush() -> None:
            async with Redis.from_url(self.place.redis_url, protocol=2) as redis:
                await redis.flushall()

        finished(flush())

    # --- calls

    def get(self, path: str, tenant: str, *, user: str | None = None, scope: str = "pk", **more: Any) -> httpx.Response:
        """A GET with the tenant's key; `user` is any name."""
        return self.call("GET", path, tenant, user=user, scope=scope, **more)

    def call(
        self, method: str, path: str, tenant: str, *, user: str | None = None, scope: str = "pk", **more: Any
    ) -> httpx.Response:
        keys = self.keys[tenant]
        headers = {"Authorization": f"Bearer {keys.publishable if scope == 'pk' else keys.secret}"}
        if user is not None:
            headers["Feed-User"] = user_id(user)
        return self.client.request(method, path, headers=headers | more.pop("headers", {}), **more)

    def feed(
        self, tenant: str, user: str | None = None, *, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Json:
        """A page, which must be a 200."""
        answer = self.get("/v1/feed", tenant, user=user, params=query, headers=dict(headers or {}))
        if answer.status_code != 200:
            raise AssertionError(f"status {answer.status_code}: {answer.text[:2000]}")
        page: Json = answer.json()
        return page

    def events(self, tenant: str, user: str | None, *events: tuple[str, str], **more: Any) -> Json:
        """POST /v1/events of (type, video id) pairs that happen now, in batches of 100; the last answer."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now_s))
        body: Json = {}
        for start in range(0, len(events), 100):
            sent = [
                {"id": str(event_id()), "type": kind, "item_id": item, "occurred_at": now, **more}
                for kind, item in events[start : start + 100]
            ]
            answer = self.call("POST", "/v1/events", tenant, user=user, json={"sent_at": now, "events": sent})
            if answer.status_code != 207:
                raise AssertionError(f"status {answer.status_code}: {answer.text[:2000]}")
            body = answer.json()
        return body

    # --- flags

    def decision(self, tenant: str, user: str) -> str:
        """What the flags say for a user by now."""
        pepper = self.resources.live.view(tenant).tenant.pepper
        return self.resources.flags.decide(tenant, rekeyed(user_id(user), pepper, ""))

    def set_flag(self, tenant: str, **change: Any) -> None:
        """Change a tenant's flag as an operator does."""
        answer = self.client.put(
            "/v1/admin/flags/personalisation",
            params={"scope": tenant},
            headers={"Authorization": f"Bearer {self.admin_key}", "If-Match": "*"},
            json={"reason": "a test", **change},
        )
        if answer.status_code != 200:
            raise AssertionError(f"status {answer.status_code}: {answer.text[:2000]}")

    @cached_property
    def admin_key(self) -> str:
        """A key of scope adm that the service knows."""
        before = self.resources.live.config.version
        made = finished(self._make_admin_key())
        self.configured(before)
        return made

    async def _make_admin_key(self) -> str:
        engine = connect(self.place.database_url)
        try:
            return (await Tenants(engine).create_key(None, "adm", "test", self.now_s)).clear
        finally:
            await engine.dispose()

    # --- the archive

    def archive(self) -> None:
        """Archive and count everything that happened, publish popularity, and wait until the service ranks by it."""
        published = finished(self._archive())
        for tenant, version in published.items():
            eventually(lambda one=tenant, to=version: self.resources.live.view(one).popularity.version == to)  # type: ignore[misc]

    async def _archive(self) -> dict[str, str]:
        settings = self.place.indexer_settings(archive_url=str(self.place.folder / "archive"))
        async with Redis.from_url(self.place.redis_url, protocol=2) as redis:
            signals = Signals(redis, Archive(settings.archive_url), settings, clock=lambda: float(self.now_s))
            await signals.start()
            await signals.drain()
            await signals.flush()
            await signals.publish()
            return {tenant: version_of(await signals.counters.windows(tenant)) for tenant in self.keys}

    # --- content and configuration

    def put(self, tenant: str, *videos: Json) -> None:
        """Store videos and publish them; every request from here on sees them."""
        if videos:
            finished(self._put(tenant, videos))
        self.publish(tenant)

    def take_down(self, tenant: str, *video_ids: str, publish: bool = True) -> None:
        """Remove videos; `publish`: and have the index follow."""
        finished(self._remove(tenant, video_ids))
        if publish:
            self.publish(tenant)

    def publish(self, tenant: str) -> None:
        """Bring the tenant's snapshot up to date and wait until the service serves it."""
        generation = finished(self._publish(tenant))
        eventually(lambda: self.resources.live.view(tenant).snapshot.generation >= generation)

    def set_policy(self, tenant: str | None, body: Json) -> None:
        """Publish a policy and wait until it acts."""
        before = self.resources.live.config.version
        finished(self._set_policy(tenant, body))
        self.configured(before)

    def configured(self, version_before: int) -> None:
        """Wait until a change of tenants, keys or policies after that version has arrived everywhere."""
        live = self.resources.live
        eventually(lambda: live.config.version > version_before)
        eventually(lambda: all(self._shows_policy(name) for name in live.config.tenants))

    def _shows_policy(self, tenant: str) -> bool:
        live = self.resources.live
        try:
            return live.view(tenant).policy_version == live.config.policy_versions[tenant]
        except NotFound:  # new, and not yet loaded
            return False

    async def _put(self, tenant: str, videos: Sequence[Json]) -> None:
        engine = connect(self.place.database_url)
        try:
            parsed = parse_videos(list(videos), self.place.dim)
            if parsed.rejected:
                raise ValueError(f"invalid test video: {parsed.rejected[0]}")
            await Catalogue(engine).upsert(tenant, [one.video for one in parsed.accepted], int(time.time()))
        finally:
            await engine.dispose()

    async def _remove(self, tenant: str, video_ids: Sequence[str]) -> None:
        engine = connect(self.place.database_url)
        try:
            await Catalogue(engine).remove(tenant, video_ids, int(time.time()))
        finally:
            await engine.dispose()

    async def _publish(self, tenant: str) -> int:
        return await publish(self.place, self.numbers.setdefault(tenant, Tenant(tenant)))

    async def _set_policy(self, tenant: str | None, body: Json) -> None:
        engine = connect(self.place.database_url)
        try:
            live = (await Policies(engine).live()).get(tenant or "")
            await Policies(engine).publish(tenant, body, "test", "a test", live.version if live else 0, self.now_s)
        finally:
            await engine.dispose()


async def publish(place: Place, tenant: Tenant) -> int:
    """Catch up one tenant as the daemon does; the generation that is newest then."""
    engine = connect(place.database_url)
    try:
        embedder = Embedder(TinyEncoder(), VectorCache(engine))
        rebuild = Rebuild(Catalogue(engine), Store(place.folder / "snapshots"), embedder, place.indexer_settings())
        while await rebuild.catch_up(tenant):
            pass
        if tenant.fold is not None:
            await tenant.fold
    finally:
        await engine.dispose()
    return Store(place.folder / "snapshots").newest_generation(tenant.id)


@contextmanager
def served(folder: Path, tenants: Mapping[str, Sequence[Json]], **settings: Any) -> Iterator[Served]:
    """A service with these tenants, their videos published; everything is stopped on leaving."""
    with own_redis(folder / "redis") as (redis_url, redis):
        place = Place(folder, redis_url)
        keys = place.prepared(tenants)
        known = {tenant: Tenant(tenant) for tenant in tenants}
        for tenant in known.values():
            finished(publish(place, tenant))
        port = free_port()
        app = application(service_settings(place, port, **settings))
        server = uvicorn.Server(uvicorn.Config(asgi(app), HOST, port, http=Wire, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, name="service")
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive())
            with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=30) as client:
                running = Served(place, keys, redis, app, port, client, numbers=known)
                app.state.resources = replace(running.resources, clock=lambda: time.time() + running.ahead_s)
                yield running
        finally:
            server.should_exit = True
            thread.join(20)


def service_settings(place: Place, port: int, **more: Any) -> ServiceSettings:
    """The settings of a service of this place that notices every change at once."""
    told: Json = {
        "database_url": place.database_url,
        "redis_url": place.redis_url,
        "snapshot_dir": place.folder / "snapshots",
        "state_dir": place.folder / "state",
        "archive_url": str(place.folder / "archive"),
        "vector_dim": place.dim,
        "port": port,
        "config_poll_ms": 50,
        "snapshot_poll_ms": 50,
        "counters_poll_ms": 500,
        "redis_timeout_ms": 500,  # a page of a busy test machine is no fallback
        "user_batches_per_s": 0,  # a test may report a year's events in a second
    }
    return ServiceSettings(**{**told, **more})


def event_id() -> str:
    """An event id as an SDK makes it: a UUIDv7."""
    at_ms = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    number = at_ms << 80 | 7 << 76 | (chance & 0xFFF) << 64 | 0b10 << 62 | (chance >> 18 & (1 << 62) - 1)
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
