"""Webhooks of a CMS, after Standard Webhooks 1.0: checked, stored, answered, then applied by one worker at a time.

    webhook-id         names the delivery: the same one again changes nothing
    webhook-timestamp  unix seconds of the sending, at most 300 s from now: an old recording is worthless
    webhook-signature  "v1,BASE64", several apart by spaces: HMAC-SHA256 over ID.TIMESTAMP.BODY, the raw bytes

    {"type": "video.upserted", "timestamp": "2026-11-22T12:00:00.123Z", "data": {"id": "a", "title": "…", …}}
    {"type": "video.removed",  "timestamp": "2026-11-22T12:00:01.456Z", "data": {"id": "a"}}

`timestamp` is when the CMS changed the video, so deliveries may arrive in any order: an older change is ignored. Other
types are taken and ignored. A sweep applies what is stored; what a crash or an outage left behind is applied then.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog

from retrieval.catalogue import Catalogue
from retrieval.deliveries import Deliveries, Delivery
from retrieval.errors import FeedError, Problem
from retrieval.leases import Leases
from retrieval.loops import uncancelled
from retrieval.videos import parse_videos
from service.errors import InvalidRequest, Unauthenticated

log = structlog.get_logger("service")

TOLERANCE_S: Final = 300
MAX_SIGNATURES: Final = 10
MAX_ID_CHARS: Final = 200
UPSERTED: Final = "video.upserted"
REMOVED: Final = "video.removed"
BATCH: Final = 500
LEASE: Final = "webhooks"
LEASE_S: Final = 60
LOOK_EVERY_S: Final = 1.0
FORGET_EVERY: Final = 3600


def verify(headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], *, now_s: float) -> str:
    """The delivery's id, if one of `keys` signed it a moment ago. Raises Unauthenticated, always with the same words.

    `headers` have lower-case names.
    """
    delivery_id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = [part[3:] for part in headers.get("webhook-signature", "").split()[:MAX_SIGNATURES] if part[:3] == "v1,"]
    named = 1 <= len(delivery_id) <= MAX_ID_CHARS and delivery_id.isprintable() and delivery_id.isascii()
    recent = sent.isascii() and sent.isdecimal() and len(sent) < 12 and abs(int(sent) - now_s) <= TOLERANCE_S
    signed = f"{delivery_id}.{sent}.".encode() + body
    expected = [hmac.digest(key, signed, "sha256") for key in keys] if named and recent else []
    if not any(hmac.compare_digest(one, _decoded(other)) for one in expected for other in given):
        raise Unauthenticated("the delivery is not signed by a secret of this tenant, or not just now")
    return delivery_id


@dataclass(frozen=True, slots=True)
class Change:
    """What a delivery says: `video` None is a removal; both None is a type that does not concern us."""

    video_id: str | None
    changed_us: int
    video: Mapping[str, Any] | None


def read_change(body: bytes) -> Change:
    """A delivery's body. Raises InvalidRequest with every problem; the video itself is checked when it is applied."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest([Problem("", f"is not JSON: {str(error)[:100]}")]) from error
    if not isinstance(value, dict):
        raise InvalidRequest([Problem("", "must be an object with type, timestamp and data")])
    kind, data = value.get("type"), value.get("data")
    changed_us = _microseconds(value.get("timestamp"))
    problems = []
    if not isinstance(kind, str) or not kind:
        problems.append(Problem("/type", f"must be {UPSERTED} or {REMOVED}; others are ignored"))
    if changed_us is None:
        problems.append(Problem("/timestamp", "must be a time with an offset, like 2026-11-22T12:00:00.123Z"))
    concerns_us = kind in (UPSERTED, REMOVED)
    video_id = data.get("id") if isinstance(data, dict) else None
    if concerns_us and (not isinstance(video_id, str) or not 1 <= len(video_id) <= MAX_ID_CHARS):
        problems.append(Problem("/data/id", f"must be the video's id, 1 to {MAX_ID_CHARS} characters"))
    if problems or changed_us is None:
        raise InvalidRequest(problems)
    return Change(video_id if concerns_us else None, changed_us, data if kind == UPSERTED else None)


class Sweep:
    """Applies stored deliveries. Every worker has one; a lease lets one of them work at a time, so that two changes of
    one video cannot overtake each other."""

    def __init__(
        self,
        deliveries: Deliveries,
        catalogue: Catalogue,
        leases: Leases,
        *,
        dim: int,
        clock: Callable[[], float],
    ) -> None:
        self.deliveries = deliveries
        self.catalogue = catalogue
        self.leases = leases
        self.dim = dim
        self.clock = clock
        self.wake = asyncio.Event()
        self._holder = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._forgot_s = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for deliveries every second, and at once when `wake` is set."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the loop; what is half done is done again by the next sweep."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def once(self) -> int:
        """Apply everything that waits, unless somebody else is at it: how many deliveries. Raises StoreUnavailable."""
        if not await self.deliveries.any_waiting():
            return 0
        now_s = int(self.clock())
        token = await self.leases.acquire(LEASE, self._holder, LEASE_S, now_s)
        if token is None:
            return 0
        done = 0
        try:
            while waiting := await self.deliveries.waiting(BATCH):
                by_tenant: dict[str, list[Delivery]] = defaultdict(list)
                for delivery in waiting:
                    by_tenant[delivery.tenant_id].append(delivery)
                for tenant, some in by_tenant.items():
                    await self._apply(tenant, some)
                done += len(waiting)
                await self.leases.renew(LEASE, self._holder, token, LEASE_S, int(self.clock()))
        finally:
            await self.leases.release(LEASE, self._holder, token)
        log.info("webhooks_applied", deliveries=done)
        return done

    async def _apply(self, tenant: str, deliveries: Sequence[Delivery]) -> None:
        now_s = int(self.clock())
        newest, outcomes = _newest([(one.id, read_change(one.body)) for one in deliveries])
        applied = await self.deliveries.changed_us(tenant, list(newest))
        for video_id, (delivery_id, change) in list(newest.items()):
            if change.changed_us < applied.get(video_id, 0):
                outcomes[delivery_id] = "ignored: an older change"
                del newest[video_id]
        videos = [(name, one, change.video) for name, (one, change) in newest.items() if change.video is not None]
        parsed = parse_videos([video for _, _, video in videos], self.dim)
        for rejected in parsed.rejected:
            name, delivery_id, _ = videos[rejected.index]
            said = "; ".join(f"{problem.pointer} {problem.message}" for problem in rejected.problems)
            outcomes[delivery_id] = f"refused: {said[:1000]}"
            del newest[name]
        if parsed.accepted:
            await self.catalogue.upsert(tenant, [one.video for one in parsed.accepted], now_s)
        gone = [name for name, (_, change) in newest.items() if change.video is None]
        if gone:
            await self.catalogue.remove(tenant, gone, now_s)
        outcomes |= {one: "removed" if change.video is None else "stored" for one, change in newest.values()}
        await self.deliveries.settle(
            tenant, outcomes, {name: change.changed_us for name, (_, change) in newest.items()}, now_s
        )

    async def _run(self) -> None:
        while uncancelled():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), LOOK_EVERY_S)
            self.wake.clear()
            try:
                await self.once()
                await self._forget()
            except FeedError as error:
                log.warning("webhooks_not_applied", error=str(error))
            except Exception as error:  # a loop that ended would leave deliveries lying until a restart
                log.error("webhooks_not_applied", exc_info=error)

    async def _forget(self) -> None:
        now_s = int(self.clock())
        if now_s - self._forgot_s >= FORGET_EVERY:
            self._forgot_s = now_s
            await self.deliveries.forget(now_s)


def _newest(changes: Sequence[tuple[str, Change]]) -> tuple[dict[str, tuple[str, Change]], dict[str, str]]:
    """(video id -> the delivery with its latest change, delivery id -> outcome of all the others)."""
    newest: dict[str, tuple[str, Change]] = {}
    outcomes: dict[str, str] = {}
    for delivery_id, change in changes:
        if change.video_id is None:
            outcomes[delivery_id] = "ignored: not about videos"
            continue
        other = newest.get(change.video_id)
        if other is not None and other[1].changed_us > change.changed_us:
            outcomes[delivery_id] = "ignored: an older change"
            continue
        if other is not None:
            outcomes[other[0]] = "ignored: an older change"
        newest[change.video_id] = delivery_id, change
    return newest, outcomes


def _microseconds(value: object) -> int | None:
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _decoded(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return b""
