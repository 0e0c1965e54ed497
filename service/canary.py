"""The canary: a customer of our own, who measures what customers would notice.

    change a video -> it is in the feed -> like it -> the feed is personal -> remove it -> it is gone

once a minute, over HTTP like everybody else, each time on a new connection: whichever worker takes it. Its tenant is
called `canary`, and the keys it is given are checked to be that tenant's: it is in no customer's feed.

The titles repeat after a day, so the cache of vectors stays small. Each round has a user of its own, whose few entries
go after 90 days like everybody's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import httpx
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

log = structlog.get_logger("canary")

TENANT: Final = "canary"
VIDEO: Final = "canary"
TITLES: Final = 1440
LIMIT_S: Final = 120.0
"""What takes longer counts as never."""
POLL_S: Final = 0.1
TIMEOUT_S: Final = 10.0
USERS_TRIED: Final = 5
"""Some users are in the hold-out, and their feed never becomes personal."""

METRICS: Final = CollectorRegistry()
SECONDS = Histogram(
    "canary_seconds",
    "From a change to its effect in the feed: a video visible, an event counted, a video gone",
    ["what"],
    buckets=(0.25, 0.6, 1, 2, 5, 10, 60),
    registry=METRICS,
)
LAST = Gauge("canary_last_seconds", "The same, as it was measured last", ["what"], registry=METRICS)
ROUNDS = Counter("canary_rounds_total", "Rounds by how they ended", ["result"], registry=METRICS)
DONE = Gauge("canary_done_timestamp_seconds", "When a round last went through", registry=METRICS)


class Misplaced(Exception):
    """The canary's keys are not of a tenant of its own."""


class Late(Exception):
    """Something was not in the feed within LIMIT_S."""


class Canary:
    """Sings at one API. `client` has its base URL, and keeps no connection open."""

    def __init__(self, client: httpx.AsyncClient, publishable: str, secret: str) -> None:
        self.client = client
        self._publishable = {"Authorization": f"Bearer {publishable}"}
        self._secret = {"Authorization": f"Bearer {secret}"}

    async def check(self) -> None:
        """Make sure that the tenant is the canary's own. Raises Misplaced, httpx.HTTPError."""
        found = await self.client.get(f"/v1/tenants/{TENANT}/feed/default", headers=self._publishable)
        if found.status_code in (401, 403, 404):
            raise Misplaced(f"FEED_CANARY_KEYS: the pk_ key is not of an active tenant called {TENANT!r}")
        listed = await self.client.get("/v1/admin/videos", headers=self._secret)
        if listed.status_code in (401, 403):
            raise Misplaced(f"FEED_CANARY_KEYS: the sk_ key is not of an active tenant called {TENANT!r}")
        listed.raise_for_status()
        if {one["id"] for one in listed.json()["videos"]} - {VIDEO}:
            raise Misplaced(f"FEED_CANARY_KEYS: the sk_ key is of a tenant with other videos than {VIDEO!r}")

    async def sing(self, number: int) -> None:
        """One round. Raises Late, httpx.HTTPError, and Misplaced."""
        title = f"Canary {number % TITLES}"
        video = {"id": VIDEO, "title": title, "media_url": "https://example.com/canary.mp4"}
        await self._done("PUT", "/v1/admin/videos", self._secret, json={"videos": [video]})
        await self._measured("visible", lambda: self._shows(title))
        user = await self._newcomer()
        if user is not None:
            await self._like(user)
            await self._measured("event", lambda: self._mode_is("personalised", user))
        await self._done("DELETE", f"/v1/admin/videos/{VIDEO}", self._secret)
        await self._measured("gone", lambda: self._lacks())

    async def _measured(self, what: str, true: Callable[[], Awaitable[bool]]) -> None:
        """Wait until `true()`; how long it took is what is measured. Raises Late."""
        began, came = time.monotonic(), await _in_time(true)
        took_s = time.monotonic() - began if came else LIMIT_S
        SECONDS.labels(what).observe(took_s)
        LAST.labels(what).set(took_s)
        if not came:
            raise Late(f"{what}: not within {LIMIT_S:.0f} s")

    async def _newcomer(self) -> str | None:
        """A user whose feed will be personal once something is known of them; None where nobody's is."""
        for _ in range(USERS_TRIED):
            user = secrets.token_hex(16)
            if await self._mode_is("cold_start", user):
                return user
        return None

    async def _like(self, user: str) -> None:
        now = datetime.now(UTC).isoformat()
        event = {"id": str(uuid4()), "type": "like", "item_id": VIDEO, "occurred_at": now}
        headers = {**self._publishable, "Feed-User": user}

        async def accepted() -> bool:
            answer = await self._done("POST", "/v1/events", headers, json={"sent_at": now, "events": [event]})
            return bool(answer["accepted"])

        # Another worker than the one that showed the video may not have it yet.
        if not await _in_time(accepted):
            raise Late("event: the like was not accepted")

    async def _shows(self, title: str) -> bool:
        return any(item["title"] == title for item in (await self._feed())["items"])

    async def _lacks(self) -> bool:
        return not (await self._feed())["items"]

    async def _mode_is(self, mode: str, user: str) -> bool:
        return bool((await self._feed(user))["mode"] == mode)

    async def _feed(self, user: str | None = None) -> dict[str, Any]:
        headers = {**self._publishable, **({"Feed-User": user} if user else {})}
        return await self._done("GET", "/v1/feed", headers)

    async def _done(self, method: str, path: str, headers: dict[str, str], **more: Any) -> dict[str, Any]:
        answer = await self.client.request(method, path, headers=headers, **more)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json() if answer.content else {}
        return body


async def _in_time(true: Callable[[], Awaitable[bool]]) -> bool:
    """Ask again and again until `true()`; False when it is not within LIMIT_S."""
    began = time.monotonic()
    while not await true():
        if time.monotonic() - began > LIMIT_S:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def keep_singing(url: str, keys: str, *, every_s: float) -> None:
    """Round after round, for ever. Raises Misplaced when the keys are not those of a canary."""
    publishable, _, secret = (part.strip() for part in keys.partition(","))
    if not (publishable.startswith("pk_") and secret.startswith("sk_")):
        raise Misplaced(f"FEED_CANARY_KEYS: a pk_ and an sk_ key of the tenant {TENANT!r}, comma between")
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as client:
        canary, checked = Canary(client, publishable, secret), False
        while True:
            began = time.monotonic()
            try:
                if not checked:
                    await canary.check()
                    checked = True
                await canary.sing(int(time.time() / every_s))
            except (httpx.HTTPError, Late) as error:
                ROUNDS.labels("late" if isinstance(error, Late) else "failed").inc()
                log.warning("canary_round_failed", error=f"{type(error).__name__}: {error}"[:200])
            else:
                ROUNDS.labels("done").inc()
                DONE.set_to_current_time()
            await asyncio.sleep(max(began + every_s - time.monotonic(), 0.0))
