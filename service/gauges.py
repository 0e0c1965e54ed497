"""What a worker knows and how it is, told to Prometheus from a loop: nothing of this costs a request anything.

Redis and SQL are asked something small each second, so that their latency is known without traffic, and that they are
away is known before a user is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from retrieval.database import config_version
from retrieval.errors import StoreUnavailable
from retrieval.flags import Flags, is_killed
from retrieval.live import Live
from retrieval.loops import uncancelled
from retrieval.tables import GLOBAL
from retrieval.tenants import EVERYWHERE
from service import telemetry
from service.resources import Resources

EVERY_S: Final = 1.0
TENANTS_EVERY: Final = 5
"""What there is one gauge per tenant of is told every so many rounds."""
PATIENCE_S: Final = 2.0


async def keep_telling(resources: Resources) -> None:
    """Tell how this worker is each second, until cancelled."""
    rounds, due_s = 0, time.monotonic()
    while uncancelled():
        tell_worker(resources)
        if rounds % TENANTS_EVERY == 0:
            tell_tenants(resources.live, resources.flags.flags)
        await asyncio.gather(
            probe("redis", resources.journals.redis.ping),  # within the time limit of a feed
            probe("sql", lambda: config_version(resources.engine)),
        )
        rounds, due_s = rounds + 1, max(due_s + EVERY_S, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())
        telemetry.LATE.set(max(time.monotonic() - due_s, 0.0))


def tell_worker(resources: Resources) -> None:
    """What there is one of in each worker."""
    live, flags = resources.live, resources.flags.flags
    telemetry.ALIVE.set(live.refreshed_s if live.ready else 0)
    telemetry.COUNTED.set(live.counted_s)
    telemetry.CONFIG.set(live.config.version)
    telemetry.REFUSED_SNAPSHOTS.set(len(live.refused))
    telemetry.REFUSED_POLICIES.set(len(live.config.refused))
    telemetry.BACKLOG.set(resources.governor.wait_s)
    for kind, seconds in resources.governor.usual_s.items():
        telemetry.USUAL.labels(kind).set(seconds)
    telemetry.KILLED.set(sum(_killed(flags, tenant) for tenant in live.config.tenants))


def tell_tenants(live: Live, flags: Flags) -> None:
    """Index, policy and flag of each tenant."""
    for tenant in live.config.tenants:
        label = telemetry.tenant_label[tenant]
        telemetry.PERSONALISED.labels(label).set(personalised_ratio(flags, tenant))
        view = live.shown(tenant)
        if view is None:
            continue
        telemetry.GENERATION.labels(label).set(view.snapshot.generation)
        telemetry.ITEMS.labels(label).set(view.snapshot.n_items)
        for scope, version in zip((EVERYWHERE, label), view.policy_version.split("."), strict=True):
            telemetry.POLICY_MIN.labels(scope).set(int(version))
            telemetry.POLICY_MAX.labels(scope).set(int(version))


def personalised_ratio(flags: Flags, tenant: str) -> float:
    """The share of a tenant's users, 0 to 1, that the flags let have a personalised feed; the hold-out not counted."""
    own, everywhere = flags.by_scope.get(tenant), flags.by_scope.get(GLOBAL)
    if own is None or _killed(flags, tenant) or (everywhere is not None and everywhere.state == "off"):
        return 0.0
    return {"on": 1.0, "off": 0.0, "percentage": own.percentage / 100}[own.state]


async def probe(store: str, ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask a store, and tell how long that took; a store that does not answer took PATIENCE_S or less."""
    began, answered = time.perf_counter(), False
    with suppress(RedisError, StoreUnavailable, OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await ask()
        answered = True
    telemetry.STORE.labels(store).observe(time.perf_counter() - began)
    telemetry.STORE_UP.labels(store).set(answered)


def _killed(flags: Flags, tenant: str) -> bool:
    return is_killed(flags, GLOBAL) or is_killed(flags, tenant)
