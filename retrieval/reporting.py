"""What archive and catalogue say about a time: the sums that a report is made of.

A *slot* is one video on one page of the serve log. It was *shown* when the app reported anything about that video of
that page, *taken* when that was engagement (a like, share, bookmark, follow, a completed watch, or half of it watched),
and the fraction *watched* is the largest reported, 0 when none was. Only slots that were really served count, so what
an app makes up changes nothing. Pages that sampling left out (FEED_SERVE_LOG_SHARE) are missing with their events.

Importing this module loads deltalake; all functions block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.archive import Archive, quoted
from retrieval.database import reading
from retrieval.journal import Signal
from retrieval.keys import ANONYMOUS
from retrieval.tables import VIDEOS

TAKEN: Final = (Signal.COMPLETE, Signal.LIKE, Signal.SHARE, Signal.BOOKMARK, Signal.FOLLOW)
HALF: Final = 0.5
"""A watch of so much of a video is engagement."""

_TAKEN: Final = (
    f"(signal IN ({', '.join(str(int(one)) for one in TAKEN)}) "
    f"OR (signal = {int(Signal.WATCH)} AND coalesce(value, 1.0) >= {HALF}))"
)
_WATCHED: Final = (
    f"CASE signal WHEN {int(Signal.COMPLETE)} THEN 1.0 WHEN {int(Signal.WATCH)} THEN coalesce(value, 1.0) ELSE 0.0 END"
)
_SERVED: Final = (
    "tenant = {tenant} AND date >= '{first_day}' AND date <= '{last_day}' AND at_s >= {since_s} AND at_s < {until_s}"
)

_ARM: Final = "regexp_replace(policy_version, '^[0-9]+[.][0-9]+[.]?', '')"
"""EXPERIMENT.ARM that a page was served under, empty for none."""

SLOTS: Final = f"""
WITH pages AS (
  SELECT user_key, request_id, mode, {_ARM} AS arm, items,
    min(at_s) OVER (PARTITION BY user_key, coalesce(nullif(chain, ''), request_id)) AS began_s
  FROM serves WHERE {_SERVED}),
slots AS (
  SELECT user_key, request_id, mode, arm, began_s, unnest(items) AS slot FROM pages),
told AS (
  SELECT request_id, item, max(CASE WHEN {_TAKEN} THEN 1.0 ELSE 0.0 END) AS taken, max({_WATCHED}) AS watched
  FROM events WHERE tenant = {{tenant}} AND date >= '{{first_day}}' GROUP BY request_id, item),
known AS (
  SELECT user_key, min(at_s) AS since_s FROM events WHERE tenant = {{tenant}} AND {_TAKEN} GROUP BY user_key)
SELECT slots.mode AS mode, slots.arm AS arm, slots.user_key = '{ANONYMOUS}' AS anonymous,
  CASE slots.user_key WHEN '{ANONYMOUS}' THEN slots.request_id ELSE slots.user_key END AS who,
  slots.began_s <= coalesce(known.since_s, slots.began_s) AS newcomer,
  count(*) AS shown, sum(told.taken) AS taken, sum(told.watched) AS watched
FROM slots
JOIN told ON slots.request_id = told.request_id AND slots.slot['item'] = told.item
LEFT JOIN known ON slots.user_key = known.user_key
GROUP BY 1, 2, 3, 4, 5"""  # noqa: S608 - put together from the constants above
"""Who was shown how much, and what they made of it. An anonymous page stands for itself. A *newcomer* had not engaged
with anything when the chain of the page began: somebody whose pages are, or would be, a cold start."""

PAGES: Final = f"""
SELECT mode, {_ARM} AS arm, user_key = '{ANONYMOUS}' AS anonymous, user_key AS who, count(*) AS pages
FROM serves WHERE {_SERVED} GROUP BY 1, 2, 3, 4"""  # noqa: S608 - as above

FIRST_SERVED: Final = """
WITH slots AS (
  SELECT at_s, unnest(items) AS slot FROM serves WHERE tenant = {tenant} AND at_s < {until_s})
SELECT slot['item'] AS item, min(at_s) AS first_s FROM slots GROUP BY 1 HAVING max(at_s) >= {since_s}"""
"""When each video that was served in the time was in a feed for the first time."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Time:
    """From `since_s` to just before `until_s`, unix seconds."""

    since_s: int
    until_s: int


@dataclass(frozen=True)
class Activity:
    """What happened at one tenant: rows of SLOTS, PAGES and FIRST_SERVED."""

    slots: Rows
    pages: Rows
    first_served: Rows


@dataclass(frozen=True)
class Published:
    """A tenant's published videos: item numbers uint32[n], and when each was first stored, unix seconds int64[n]."""

    items: npt.NDArray[np.uint32]
    stored_s: npt.NDArray[np.int64]


def activity(archive: Archive, tenant: str, time: Time) -> Activity:
    """What the archive says about a tenant in a time. Raises StoreUnavailable."""
    told = {
        "tenant": quoted(tenant),
        "since_s": time.since_s,
        "until_s": time.until_s,
        "first_day": _day(time.since_s),
        "last_day": _day(time.until_s - 1),
    }
    return Activity(*(archive.query(sql.format(**told)) for sql in (SLOTS, PAGES, FIRST_SERVED)))


async def published(engine: AsyncEngine, tenant: str) -> Published:
    """What the catalogue offers now. Raises StoreUnavailable."""
    wanted = select(VIDEOS.c.item, VIDEOS.c.created_s).where(
        VIDEOS.c.tenant_id == tenant, VIDEOS.c.status == "published"
    )
    async with reading(engine) as connection:
        rows = (await connection.execute(wanted)).all()
    return Published(np.array([row[0] for row in rows], np.uint32), np.array([row[1] for row in rows], np.int64))


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()
