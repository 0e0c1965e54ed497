"""Journals made again from the archive, after Redis has lost them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from retrieval.archive import Archive
from retrieval.journal import DAY_S, ENTRY, RETENTION_S, Journal, Journals, Signal

ATTEMPTS: Final = 5
ENTRIES_SQL: Final = f"""
SELECT tenant, user_key, item, at_s, signal, value FROM events
WHERE user_key <> '-' AND at_s >= {{since_s}}
UNION ALL
SELECT tenant, user_key, each['item'], at_s, {int(Signal.SERVED)}, CAST(NULL AS FLOAT)
FROM (SELECT tenant, user_key, at_s, unnest(items) AS each FROM serves WHERE user_key <> '-' AND at_s >= {{since_s}})
ORDER BY tenant, user_key, at_s
"""  # noqa: S608 - our own columns and a number


async def rebuild_journals(archive: Archive, journals: Journals, *, cap: int, now_s: float) -> int:
    """Merge what is archived of each user into their journal; how many journals were changed.

    Safe beside a running service, and twice: what a journal holds already is not added again, what arrives meanwhile
    stays behind it. Raises StoreUnavailable.
    """
    users = _users(archive, since_s=int(now_s) - RETENTION_S + DAY_S)
    changed = 0
    while (one := await asyncio.to_thread(next, users, None)) is not None:
        tenant, user_key, archived = one
        changed += await _merge(journals, tenant, user_key, archived, cap)
    return changed


async def _merge(journals: Journals, tenant: str, user_key: str, archived: Journal, cap: int) -> bool:
    for _ in range(ATTEMPTS):
        (there,) = await journals.read_many([(tenant, user_key)])
        merged = merge(archived, there, cap)
        if np.array_equal(merged, there):
            return False
        if await journals.replace(tenant, user_key, there, merged):
            return True
    return False


def merge(archived: Journal, there: Journal, cap: int) -> Journal:
    """Both, each entry once, by time; the newest `cap` of them."""
    entries = np.unique(np.concatenate([archived, there]))
    return entries[np.argsort(entries["at_s"], kind="stable")][-cap:]


def _users(archive: Archive, *, since_s: int) -> Iterator[tuple[str, str, Journal]]:
    """(tenant, user key, entries by time) of everybody in the archive."""
    user: tuple[str, str] | None = None
    parts: list[Journal] = []
    for batch in archive.batches(ENTRIES_SQL.format(since_s=since_s)):
        for one, entries in _runs(batch):
            if user is not None and one != user:
                yield *user, np.concatenate(parts)
                parts = []
            user = one
            parts.append(entries)
    if user is not None:
        yield *user, np.concatenate(parts)


def _runs(batch: Any) -> Iterator[tuple[tuple[str, str], Journal]]:
    """The consecutive rows of each user in a record batch."""
    tenants, users, items, at_s, signals, values = (column.to_pylist() for column in batch.columns)
    entries = np.zeros(len(tenants), ENTRY)
    entries["item"], entries["at_s"], entries["signal"] = items, at_s, signals
    strengths = np.array([1.0 if value is None else value for value in values])
    entries["strength"] = np.round(255 * strengths).astype(np.uint8)
    starts = [i for i in range(len(tenants)) if i == 0 or (tenants[i], users[i]) != (tenants[i - 1], users[i - 1])]
    for start, end in zip(starts, [*starts[1:], len(tenants)], strict=True):
        yield (tenants[start], users[start]), entries[start:end]
