"""What became of the pages of the last minutes, by mode: for a dashboard, as `retrieval/reporting.py` is for a report.

The words mean what they mean there, but all tenants are together and nobody looks whether an item was on its page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from retrieval.archive import PAGE_LIFE_S, Archive
from retrieval.journal import Signal
from retrieval.reporting import HALF, TAKEN

NO_PAGE: Final = "(no page)"
"""The mode of events whose page is not in the serve log."""
_RECENT: Final = f"""
WITH told AS (
  SELECT request_id, item, count(*) AS events, max(CASE
    WHEN signal IN ({", ".join(str(int(one)) for one in TAKEN)}) THEN 1
    WHEN signal = {int(Signal.WATCH)} AND coalesce(value, 1.0) >= {HALF} THEN 1 ELSE 0 END) AS taken
  FROM events WHERE date >= '{{first_day}}' AND at_s >= {{since_s}} GROUP BY request_id, item),
pages AS (
  SELECT DISTINCT request_id, mode FROM serves WHERE date >= '{{first_day}}' AND at_s >= {{first_s}})
SELECT coalesce(pages.mode, '{NO_PAGE}') AS mode,
  sum(told.events) AS events, count(*) AS shown, sum(told.taken) AS taken
FROM told LEFT JOIN pages ON told.request_id = pages.request_id GROUP BY 1"""  # noqa: S608 - of the constants above


@dataclass(frozen=True)
class Recent:
    """Of one mode: events, the videos on pages they are about (`shown`), and how many of those were `taken`."""

    mode: str
    events: int
    shown: int
    taken: int


def recent(archive: Archive, *, since_s: int) -> Sequence[Recent]:
    """What happened since then, by mode. Raises StoreUnavailable; blocks."""
    first_s = int(since_s) - PAGE_LIFE_S
    first_day = datetime.fromtimestamp(first_s, UTC).date().isoformat()
    rows = archive.query(_RECENT.format(since_s=int(since_s), first_s=first_s, first_day=first_day))
    return [Recent(row["mode"], int(row["events"]), int(row["shown"]), int(row["taken"])) for row in rows]
