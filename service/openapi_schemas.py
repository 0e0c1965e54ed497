"""JSON schemas of what the API takes and gives. What pydantic checks comes from its models; the rest is here."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel

from ranking.maturity import LADDER
from ranking.rank import REASONS
from retrieval.videos import VideoIn
from service.errors import PROBLEMS
from service.events import MAX_EVENTS, SentEvent
from service.page import CAUSES, MODES
from service.routes.videos import MAX_BATCH

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A reference to an entry of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, about: str = "") -> Schema:
    """An object with these fields."""
    described = {"description": about} if about else {}
    return {
        "type": "object",
        **described,
        "required": list(required),
        "properties": required | (optional or {}),
    }


def listing(of: Schema, **limits: int) -> Schema:
    """An array."""
    return {"type": "array", "items": of, **limits}


def text(about: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": about} if about else {}), **more}


def number(kind: str = "integer", **more: Any) -> Schema:
    """An integer, or with kind "number" any number."""
    return {"type": kind, **more}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


MOMENT: Final = text(format="date-time")

ITEM: Final = record(
    {
        "id": text("the video's id in the catalogue"),
        "title": text(),
        "media_url": text(format="uri"),
        "poster_url": or_null(text(format="uri")),
        "duration_s": or_null(number(minimum=0)),
        "creator": or_null(text()),
        "tags": listing(text()),
        "not_after": or_null(text("do not start it after this moment", format="date-time")),
        "position": number(minimum=0, description="in the chain of pages, rising; goes back with events"),
        "reason": text("why it is here, to be shown or not", enum=list(REASONS)),
    }
)
PAGE: Final = record(
    {
        "request_id": text("goes back with every event about an item of this page", pattern="^[0-9a-f]{24}$"),
        "mode": text("how the page was made", enum=list(MODES)),
        "degraded": listing(text(examples=list(CAUSES))),
        "items": listing(ref("Item"), maxItems=50),
    },
    {"next_cursor": text("for the next page; absent = the end", maxLength=2048)},
)  # fmt: skip
STORED_VIDEO: Final = record(
    {
        **{name: text() for name in ("id", "title", "description", "transcript", "media_url")},
        **{name: listing(text()) for name in ("tags", "categories", "playlists", "countries")},
        **{name: or_null(text()) for name in ("creator", "language", "poster_url", "quarantine")},
        "duration_s": number(minimum=0),
        "status": text(enum=["published", "draft", "removed"]),
        "ratings": listing(record({"system": text(), "value": text()})),
        "min_age": number(enum=list(LADDER), description="what the ratings come to"),
        "rating_table": number(minimum=1, description="version of the table of rating systems that says so"),
        **dict.fromkeys(("published_at", "updated_at"), MOMENT),
        **{name: or_null(MOMENT) for name in ("available_from", "available_until")},
        "own_vector": {"type": "boolean"},
        "version": number(minimum=0),
    }
)
FAULTS: Final = listing(record({"pointer": text("JSON pointer"), "detail": text()}))

SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": record(
        {
            "type": text(enum=sorted(f"/problems/{kind}" for _, kind, _ in PROBLEMS.values())),
            "title": text(),
            "status": number(minimum=400, maximum=599),
            "detail": text(),
        },
        {"errors": FAULTS},
        "RFC 9457; `type` is what a program looks at",
    ),
    "Item": ITEM,
    "Page": PAGE,
    "EventBatch": record(
        {"events": listing(ref("Event"), minItems=1, maxItems=MAX_EVENTS)},
        {"sent_at": or_null(text("the device's clock when it sends; corrects `occurred_at`", format="date-time"))},
    ),
    "EventResults": record(
        {
            "accepted": number(minimum=0),
            "duplicate": number(minimum=0, description="known already: as good as accepted"),
            "rejected": listing(
                record(
                    {
                        "index": number(minimum=0, maximum=MAX_EVENTS - 1),
                        "id": or_null(text()),
                        "code": text(enum=["invalid", "unknown_item", "erased"]),
                        "detail": text(),
                    }
                )
            ),
        }
    ),
    "Config": record(
        {
            "personalisation": text(enum=["on", "off", "percentage", "killed"]),
            "poll_interval_s": number(minimum=1),
            "minimum_versions": {"type": "object", "additionalProperties": text()},
            "feed": record({name: number() for name in ("default_limit", "max_limit", "cursor_lifetime_s")}),
            "events": record({name: number() for name in ("max_events", "max_bytes")}),
        }
    ),
    "VideoBatch": record({"videos": listing(ref("Video"), minItems=1, maxItems=MAX_BATCH)}),
    "VideoBatchResults": record(
        {
            "version": number(minimum=0),
            "results": listing(
                record(
                    {
                        "id": or_null(text()),
                        "status": text(enum=["created", "updated", "unchanged", "rejected"]),
                    },
                    {"errors": FAULTS},
                )
            ),
        }
    ),
    "StoredVideo": STORED_VIDEO,
    "StoredVideos": record({"videos": listing(ref("StoredVideo"))}, {"next_after": text("for the next page")}),
}


def schemas() -> dict[str, Schema]:
    """All of them by name, with those of the models."""
    found = dict(SCHEMAS)
    models: dict[str, type[BaseModel]] = {"Event": SentEvent, "Video": VideoIn}
    for name, model in models.items():
        found |= _of_model(name, model)
    return dict(sorted(found.items()))


def _of_model(name: str, model: type[BaseModel]) -> dict[str, Schema]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    inner: dict[str, Schema] = schema.pop("$defs", {})
    return {name: schema, **inner}
