"""One tenant's archive -> a model of behaviour -> published with its snapshot; and back to an older model.

A tenant with too little behaviour keeps texts alone. The model is a file of its own; what is in effect is named by the
generation, so that rows, model and calibrated weights change in one step and never apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from indexer.calibrate import calibrated
from indexer.daemon import Daemon
from indexer.held_out import held_out, without
from indexer.learn import Log, enough, factors, ridge
from indexer.rebuild import Tenant
from ranking.policy import resolve
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS
from retrieval.behaviour import RARE, Behaviour, Float32, text_of
from retrieval.errors import FeedError, NotFound
from retrieval.half import widened
from retrieval.keys import ANONYMOUS
from retrieval.models import Learned
from retrieval.snapshot import Snapshot

log = structlog.get_logger("indexer")

LOOK_EVERY_S: Final = 60.0
NO_EVENTS: Final = Log(
    np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.float32)
)


def learned(events: Log, items: npt.NDArray[np.uint32], text: Float32, *, number: int) -> Behaviour:
    """The model of a tenant's past. items uint32[n] ascending and their unit text float32[n, t].

    The weights are calibrated with a model of the past before what they are calibrated on; the model itself is then
    learned from everything.
    """
    before = _fitted(without(events, held_out(events)), items, text, number)
    document, near = calibrated(events, before, items, text, resolve())
    fitted = _fitted(events, items, text, number)
    return Behaviour(number, document, near, fitted.items, fitted.factors, fitted.ridge)


def _fitted(events: Log, items: npt.NDArray[np.uint32], text: Float32, number: int) -> Behaviour:
    known, vectors = factors(events)
    here = np.isin(known, items)  # what has left the catalogue has no text to learn from, and nobody is shown it
    texts = text[np.searchsorted(items, known[here])]
    return Behaviour(number, {}, np.zeros(len(RARE), np.float32), known, vectors, ridge(texts, vectors[here]))


@dataclass(frozen=True)
class Learning:
    """The work on behaviour. `archive` opens what is read, `daemon` publishes."""

    daemon: Daemon
    archive: Callable[[], Archive]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: learn for every tenant whose newest model is `learn_every_s` old. What goes wrong is logged and
        tried again when it is due the next time."""
        every_s = self.daemon.rebuild.settings.learn_every_s
        tried_s: dict[str, float] = {}
        while every_s and not stop.is_set():
            try:
                for tenant in await self.daemon.rebuild.catalogue.versions():
                    if time.time() - max(tried_s.get(tenant, 0.0), self._learned_s(tenant)) >= every_s:
                        tried_s[tenant] = time.time()
                        await self.learn(tenant)
            except (FeedError, OSError) as error:
                log.warning("learning_failed", error=str(error))
            except Exception as error:  # a loop that ended would leave every tenant with what was learned last
                log.error("learning_failed", exc_info=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)

    async def learn(self, tenant: str) -> int | None:
        """Learn from all that is archived of a tenant and publish it; the model's number, None where there is too
        little and nothing changes. Only publishing keeps other indexers away.

        Raises StoreUnavailable, StaleGeneration (another indexer was faster), OSError (disk full).
        """
        began, known = time.monotonic(), Tenant(tenant)
        rebuild = self.daemon.rebuild
        await asyncio.to_thread(rebuild.open, known)
        archive = await asyncio.to_thread(self.archive)
        events = await asyncio.to_thread(events_of, archive, tenant)
        if known.snapshot is None or not enough(events):
            log.info("too_little_to_learn", tenant=tenant, events=len(events))
            return None
        number = rebuild.store.models.next_number(tenant)
        made = await asyncio.to_thread(_learned_for, known.snapshot, events, number)
        await self._publish(tenant, await asyncio.to_thread(rebuild.store.models.write, tenant, made))
        took_s = round(time.monotonic() - began, 1)
        log.info("learned", tenant=tenant, model=number, events=len(events), took_s=took_s, chosen=dict(made.document))
        return number

    async def use(self, tenant: str, number: int) -> None:
        """Publish an older model again, 0: texts alone. Raises NotFound, and as `learn`."""
        found = {one[0]: one for one in self.daemon.rebuild.store.models.kept(tenant)}
        if number and number not in found:
            raise NotFound("model", str(number))
        await self._publish(tenant, found.get(number))

    async def _publish(self, tenant: str, model: Learned | None) -> None:
        rebuild = self.daemon.rebuild

        async def rejoin(known: Tenant) -> None:
            await rebuild.rejoin(known, model)

        await self.daemon.alone(tenant, rejoin)
        await asyncio.to_thread(self._sweep, tenant)

    def _sweep(self, tenant: str) -> None:
        store = self.daemon.rebuild.store
        named = {store.manifest(tenant, pointer).learned for pointer in store.kept(tenant)}
        store.models.sweep(tenant, in_use={one for one in named if one})

    def _learned_s(self, tenant: str) -> float:
        """When the newest model was written, unix seconds; 0 if there is none."""
        models = self.daemon.rebuild.store.models
        return max((models.path(tenant, one).stat().st_mtime for one in models.kept(tenant)[:1]), default=0.0)


def _learned_for(snapshot: Snapshot, events: Log, number: int) -> Behaviour:
    rows = snapshot.current_rows()
    order = np.argsort(rows.columns["item"])
    text = text_of(widened(rows.vectors, order), snapshot.text_dim)
    return learned(events, rows.columns["item"][order], text, number=number)


def events_of(archive: Archive, tenant: str) -> Log:
    """Every archived event of a tenant's users, oldest first. Raises StoreUnavailable."""
    quoted = tenant.replace("'", "''")
    sql = (
        f"SELECT user_key, item, at_s, signal, value FROM {EVENTS} "  # noqa: S608 - our own names, a checked tenant id
        f"WHERE tenant = '{quoted}' AND user_key <> '{ANONYMOUS}' ORDER BY at_s, user_key, item"
    )
    numbers: dict[str, int] = {}
    parts = [NO_EVENTS]
    for batch in archive.batches(sql):
        users, items, at_s, signals, values = (column.to_pylist() for column in batch.columns)
        parts.append(
            Log(
                np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64),
                np.array(items, np.uint32),
                np.array(at_s, np.int64),
                np.array(signals, np.uint8),
                np.array([1.0 if value is None else value for value in values], np.float32),
            )
        )
    return Log(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.at_s for part in parts]),
        np.concatenate([part.signal for part in parts]),
        np.concatenate([part.strength for part in parts]),
    )
