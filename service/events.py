"""One batch of events, start to finish. No HTTP here.

Each event is judged by itself. When the answer leaves, what is accepted is in the durable stream, from which it is
archived and counted, and in the user's journal, so the next feed already differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from retrieval.journal import LATE_S, Signal
from retrieval.stream import Answer, Event, Stream
from retrieval.view import View

MAX_EVENTS: Final = 100
MAX_BYTES: Final = 64 << 10
REQUEST_ID: Final = r"[0-9a-f-]{0,36}"
"""Ours, and nothing a host app might be tempted to put there: it is kept, and ids of people must not be."""

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


class SentEvent(BaseModel):
    """One event as the SDK sends it. Fields we do not know are dropped before anything is stored or logged."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: UUID = Field(description="made by the SDK, the same on every retry; UUIDv7 recommended")
    type: Type
    item_id: Annotated[str, Field(min_length=1, max_length=200)]
    request_id: str = Field("", pattern=rf"^{REQUEST_ID}$", description="of the feed answer that showed the item")
    position: Annotated[int, Field(ge=0, le=100_000)] | None = None
    occurred_at: AwareDatetime
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="fraction watched, for `watch`"
    )

    @model_validator(mode="after")
    def _watch_has_value(self) -> SentEvent:
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
    stream: Stream,
) -> Outcome:
    """Judge, deduplicate and store a batch of decoded JSON values.

    Raises StoreUnavailable when it cannot be made durable: nothing is acknowledged, and the SDK may send the same ids
    again.
    """
    outcome, events, indices = Outcome(), [], []
    find = cache(view.snapshot.find)  # a batch says several things of each video
    for index, value in enumerate(raw):
        judged = _judge(index, value, find, sent_at, now_s)
        if isinstance(judged, Rejected):
            outcome.rejected.append(judged)
        else:
            events.append(judged)
            indices.append(index)
    answers = await stream.record(view.tenant.id, user_key, events, now_s=now_s) if events else []
    outcome.accepted, outcome.duplicate = answers.count(Answer.ACCEPTED), answers.count(Answer.DUPLICATE)
    for index, event, answer in zip(indices, events, answers, strict=True):
        if answer is Answer.ERASED:
            outcome.rejected.append(Rejected(index, str(event.id), "erased", "happened before its user was erased"))
    return outcome


def _judge(
    index: int, value: Any, find: Callable[[str], int | None], sent_at: datetime | None, now_s: int
) -> Rejected | Event:
    if not isinstance(value, dict):
        return Rejected(index, None, "invalid", "must be an object")
    given_id = value.get("id")
    shown_id = given_id[:64] if isinstance(given_id, str) else None
    try:
        sent = SentEvent.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        return Rejected(index, shown_id, "invalid", f"{where}: {first['msg']}" if where else first["msg"])
    item = find(sent.item_id)
    if item is None:
        return Rejected(index, str(sent.id), "unknown_item", "item_id: no such video here")
    claimed_s = _claimed_s(sent, sent_at, now_s)
    return Event(
        id=sent.id,
        signal=SIGNALS[sent.type],
        item=item,
        at_s=max(claimed_s, now_s - LATE_S),
        claimed_s=claimed_s,
        value=sent.value if sent.type == "watch" else None,
        request_id=sent.request_id,
        position=sent.position,
    )


def _claimed_s(sent: SentEvent, sent_at: datetime | None, now_s: int) -> int:
    """When it happened by our clock: now, less what the SDK's own clock says has passed since. Never in the future, and
    never before the second of the page that showed it: what has passed is rounded down, as now was."""
    sent_s = now_s if sent_at is None else sent_at.timestamp()
    return now_s - int(max(sent_s - sent.occurred_at.timestamp(), 0.0))
