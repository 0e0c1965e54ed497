"""One batch of events, start to finish. No HTTP here.

Each event is judged by itself; what is accepted is in the user's journal when the answer leaves, so the next feed
already differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from retrieval.counters import Counters
from retrieval.errors import StoreUnavailable
from retrieval.journal import Journals, Signal, entries
from retrieval.view import View

MAX_EVENTS: Final = 100
MAX_BYTES: Final = 64 << 10
OLDEST_S: Final = 7 * 86_400
"""An event that claims to be older is dated back no further."""
ANONYMOUS: Final = "-"
"""In place of a user key: anonymous events are counted, and belong to nobody's journal."""

Type = Literal[
    "impression",
    "watch",
    "complete",
    "like",
    "unlike",
    "share",
    "bookmark",
    "follow",
    "skip",
    "not_interested",
    "report",
]
SIGNALS: Final[Mapping[str, Signal]] = MappingProxyType({s.name.lower(): s for s in Signal if s is not Signal.SERVED})


class Event(BaseModel):
    """One event as the SDK sends it. Fields we do not know are dropped before anything is stored or logged."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: UUID = Field(description="made by the SDK, the same on every retry; UUIDv7 recommended")
    type: Type
    item_id: Annotated[str, Field(min_length=1, max_length=200)]
    request_id: Annotated[str, Field(max_length=64)] = Field("", description="of the feed answer that showed the item")
    position: Annotated[int, Field(ge=0, le=100_000)] | None = None
    occurred_at: AwareDatetime
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="fraction watched, for `watch`"
    )

    @model_validator(mode="after")
    def _watch_has_value(self) -> Event:
        if self.type == "watch" and self.value is None:
            raise ValueError("value is required for type watch: the fraction watched, 0 to 1")
        return self


@dataclass(frozen=True)
class Rejected:
    """An event that is not stored: where in the batch, its id if it has one, and why."""

    index: int
    id: str | None
    code: str
    detail: str


@dataclass
class Outcome:
    """What became of a batch: every event is in exactly one of the three."""

    accepted: int = 0
    duplicate: int = 0
    rejected: list[Rejected] = field(default_factory=list)


async def record(
    raw: Sequence[Any],
    view: View,
    user_key: str | None,
    *,
    sent_at: datetime | None,
    now_s: int,
    journals: Journals,
    counters: Counters,
) -> Outcome:
    """Judge, deduplicate and store a batch of decoded JSON values.

    Raises StoreUnavailable when the journal cannot be written: nothing is acknowledged, and the SDK may send the same
    ids again.
    """
    outcome, rows, ids = Outcome(), [], []
    for index, value in enumerate(raw):
        judged = _judge(index, value, view, sent_at, now_s)
        if isinstance(judged, Rejected):
            outcome.rejected.append(judged)
        else:
            event_id, row = judged
            ids.append(event_id)
            rows.append(row)
    if rows:
        new = await journals.record(view.tenant.id, user_key or ANONYMOUS, ids, entries(rows))
        outcome.accepted, outcome.duplicate = sum(new), len(new) - sum(new)
        taken = [row for row, is_new in zip(rows, new, strict=True) if is_new]
        await _count(taken, view, counters, now_s)
    return outcome


async def _count(rows: Sequence[tuple[int, int, Signal, float]], view: View, counters: Counters, now_s: int) -> None:
    """Popularity is a statistic: missing one batch while Redis is away is no reason to refuse it."""
    counted = [(item, signal, strength) for item, _, signal, strength in rows]
    try:
        await counters.add(view.tenant.id, counted, now_s=now_s)
    except StoreUnavailable:
        return


def _judge(
    index: int, value: Any, view: View, sent_at: datetime | None, now_s: int
) -> Rejected | tuple[str, tuple[int, int, Signal, float]]:
    given_id = value.get("id") if isinstance(value, dict) else None
    shown_id = given_id[:64] if isinstance(given_id, str) else None
    try:
        event = Event.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        return Rejected(index, shown_id, "invalid", f"{where}: {first['msg']}" if where else first["msg"])
    item = view.snapshot.find(event.item_id)
    if item is None:
        return Rejected(index, str(event.id), "unknown_item", "item_id: no such video here")
    strength = 1.0 if event.value is None else event.value
    return str(event.id), (item, _moment_s(event, sent_at, now_s), SIGNALS[event.type], strength)


def _moment_s(event: Event, sent_at: datetime | None, now_s: int) -> int:
    """When it happened by our clock: now, less what the SDK's own clock says has passed since."""
    sent_s = now_s if sent_at is None else sent_at.timestamp()
    passed_s = sent_s - event.occurred_at.timestamp()
    return int(now_s - min(max(passed_s, 0.0), OLDEST_S))
