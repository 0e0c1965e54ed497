"""OPERATIONS: every operation of the API as the OpenAPI document tells it. A route missing here fails a test."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ranking.hints import AGE_BANDS
from service.openapi_schemas import number, record, ref, text
from service.operation import Answer, Operation, Parameter
from service.operations_admin import ADMIN_OPERATIONS, EXPLAINED

USER: Final = "5f2d1c0b9a8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a392817060504"
EVENT_ID: Final = "0190b6f2-7a5c-7c1e-9a6b-2f3d4c5b6a79"

FEED_USER: Final = Parameter(
    "Feed-User", "header", "a hash of the user's id, 32 to 128 characters of hex or base64url; absent = anonymous",
    text(pattern="^[A-Za-z0-9_-]{32,128}$"), USER,
)  # fmt: skip
IF_NONE_MATCH: Final = Parameter("If-None-Match", "header", "the ETag of the page the app has", example='W/"0"')
SURFACE: Final = Parameter("surface", "query", "the place in the app", text(maxLength=64), "home")
PAGING: Final = (
    Parameter(
        "limit", "query", "items wanted, 20 when absent; more than 50 means 50", number(minimum=1, maximum=10_000), 3
    ),
    Parameter("cursor", "query", "`next_cursor` of the page before; absent = a first page", text(maxLength=2048)),
)
HINTS: Final = (
    Parameter("language", "query", "ISO 639-1; what is on no list is dropped", example="en"),
    Parameter("country", "query", "ISO 3166-1 alpha-2; what is on no list is dropped", example="DE"),
    Parameter(
        "age_band", "query", f"one of {', '.join(AGE_BANDS)}; what is on no list counts as the youngest", example="18+"
    ),
)
EXPLAIN: Final = (
    Parameter(
        "explain", "query", "1, with a key `sk_…`: the first page as it would be now, and why each item is there",
        text(enum=["1"]),
    ),
    Parameter("item", "query", "with `explain=1`, also several times: a video that is not on the page, and why not"),
)  # fmt: skip
FEED_HEADERS: Final = ("ETag", "Cache-Control", "Server-Timing", "X-Request-Id")
VIDEO_ID: Final = Parameter("id", "path", "the video's id", text(minLength=1, maxLength=200), "talk-1")
VIDEO: Final = {
    "id": "talk-1",
    "title": "How bread rises",
    "description": "Yeast, time and warmth.",
    "tags": ["bread", "science"],
    "creator": "The Oven",
    "language": "en",
    "ratings": [{"system": "FSK", "value": "0"}],
    "media_url": "https://cdn.example/talk-1.m3u8",
    "duration_s": 61,
}

OPERATIONS: Final = (
    Operation(
        "GET", "/v1/feed", "A page of videos for the user in Feed-User, or for nobody in particular", "pk",
        {
            200: Answer(
                "a page; with `explain=1` an explanation of it",
                {"anyOf": [ref("Page"), record(EXPLAINED)]},
                (*FEED_HEADERS, "Vary"),
            ),
            304: Answer("the page with the presented tag is still right", None, ("ETag", "Cache-Control", "Vary")),
        },
        (
            *PAGING, SURFACE, *HINTS, FEED_USER, IF_NONE_MATCH, *EXPLAIN,
            Parameter("Feed-Reason", "header", "initial, refresh (another order), scroll or prefetch",
                      example="initial"),
            Parameter("Accept-Language", "header", "stands in for `language` when that is absent", example="de-CH, de"),
        ),
        ("invalid-cursor", "overloaded"),
        also=("sk",),
    ),
    Operation(
        "GET", "/v1/tenants/{tenant}/feed/default",
        "The feed of nobody: selected by its address alone, so that a CDN may keep it", "pk",
        {
            200: Answer("a page", ref("Page"), FEED_HEADERS),
            304: Answer("the page with the presented tag is still right", None, ("ETag", "Cache-Control")),
        },
        (
            Parameter("tenant", "path", "the tenant of the key; any other is not found", text(minLength=1), "acme"),
            *PAGING, SURFACE, *HINTS, IF_NONE_MATCH,
        ),
        ("invalid-cursor", "not-found", "overloaded"),
    ),
    Operation(
        "POST", "/v1/events",
        "What users did: at most 100 events and 64 KiB, also gzipped; the same ids may be sent again", "pk",
        {207: Answer("each event is accepted, known already, or rejected for a reason", ref("EventResults"))},
        (FEED_USER,),
        ("payload-too-large", "unsupported-media-type", "overloaded"),
        ref("EventBatch"),
        {
            "sent_at": "2026-11-22T12:00:05Z",
            "events": [
                {
                    "id": EVENT_ID, "type": "watch", "item_id": "talk-1", "request_id": "", "position": 0,
                    "occurred_at": "2026-11-22T12:00:00Z", "value": 0.8,
                }
            ],
        },
    ),
    Operation(
        "GET", "/v1/config", "What an SDK should know before errors tell it", "pk",
        {
            200: Answer("the configuration", ref("Config"), ("ETag", "Cache-Control")),
            304: Answer("unchanged", None, ("ETag", "Cache-Control")),
        },
        (IF_NONE_MATCH,),
    ),
    Operation(
        "PUT", "/v1/admin/videos", "Create or change up to 1,000 videos; visible within seconds", "sk",
        {
            200: Answer("all were taken", ref("VideoBatchResults")),
            207: Answer("some were taken", ref("VideoBatchResults")),
        },
        (),
        ("payload-too-large", "unsupported-media-type", "batch-limits", "invalid-config", "overloaded"),
        ref("VideoBatch"),
        {"videos": [VIDEO]},
    ),
    Operation(
        "GET", "/v1/admin/videos", "Videos by id, a page at a time", "sk",
        {200: Answer("a page", ref("StoredVideos"))},
        (
            Parameter("after", "query", "`next_after` of the page before", text(maxLength=200), "a"),
            Parameter("limit", "query", "100 when absent, 500 at most", number(minimum=1, maximum=10_000), 10),
            Parameter("status", "query", "only these",
                      text(enum=["published", "draft", "removed", "quarantined"]), "published"),
        ),
        ("invalid-config", "overloaded"),
    ),
    Operation(
        "GET", "/v1/admin/videos/{id}", "One video as it is stored", "sk",
        {200: Answer("the video", ref("StoredVideo"))},
        (VIDEO_ID,),
        ("not-found", "overloaded"),
    ),
    Operation(
        "DELETE", "/v1/admin/videos/{id}", "Take a video down", "sk",
        {204: Answer("it is down, or was already")},
        (replace(VIDEO_ID, example="talk-2"),),
        ("not-found", "overloaded"),
    ),
    *ADMIN_OPERATIONS,
)  # fmt: skip
