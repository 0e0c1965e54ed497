"""The catalogue for its owner: PUT, GET and DELETE under /v1/admin/videos."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, get_args

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ranking.maturity import TABLE_VERSION, minimum_age
from retrieval.catalogue import Listing
from retrieval.errors import NotFound, Problem
from retrieval.videos import OPEN_END_S, OPEN_START_S, Rejected, Video, parse_videos
from service.auth import authenticate
from service.errors import BatchRefused, InvalidRequest
from service.requests import body_of, json_of, list_of, whole_number
from service.resources import Resources

MAX_BATCH: Final = 1000
MAX_PAGE: Final = 500
FIELDS: Final = (
    "id", "title", "description", "transcript", "tags", "categories", "creator", "playlists", "language", "countries",
    "media_url", "poster_url", "duration_s", "status",
)  # fmt: skip


async def put_videos(request: Request) -> Response:
    """Create or change up to 1,000 videos: 200 if all were taken, 207 if some, 422 if none.

    Visible in the feed within seconds of the answer.
    """
    resources, tenant = _owner(request)
    raw = list_of(json_of(await body_of(request, resources.settings.admin_body_bytes)), "videos", MAX_BATCH)
    parsed = parse_videos(raw, resources.settings.vector_dim)
    if not parsed.accepted:
        raise BatchRefused([_placed(one, problem) for one in parsed.rejected for problem in one.problems])
    stored = await resources.catalogue.upsert(tenant, [one.video for one in parsed.accepted], resources.now_s)
    results: list[dict[str, Any]] = [{}] * len(raw)
    for one, outcome in zip(parsed.accepted, stored.outcomes, strict=True):
        results[one.index] = {"id": one.video.id, "status": outcome}
    for rejected in parsed.rejected:
        results[rejected.index] = _refusal(rejected)
    body = {"version": stored.version, "results": results}
    return _json(body, 207 if parsed.rejected else 200)


async def get_videos(request: Request) -> Response:
    """Videos by id, a page at a time: `after`, `limit`, `status` = published, draft, removed or quarantined."""
    resources, tenant = _owner(request)
    status = request.query_params.get("status")
    if status is not None and status not in get_args(Listing):
        raise InvalidRequest([Problem("/query/status", f"must be one of {', '.join(get_args(Listing))}")])
    limit = whole_number(request, "limit", 100, most=MAX_PAGE)
    after = request.query_params.get("after", "")
    page = await resources.catalogue.page(tenant, after, limit, status)  # type: ignore[arg-type]  # checked above
    body: dict[str, Any] = {"videos": [shape(video) for video in page]}
    if len(page) == limit:
        body["next_after"] = page[-1].id
    return _json(body)


async def get_video(request: Request) -> Response:
    """One video as it is stored."""
    resources, tenant = _owner(request)
    return _json(shape(await resources.catalogue.get(tenant, request.path_params["id"])))


async def delete_video(request: Request) -> Response:
    """Take a video down: 204, also if it is down already."""
    resources, tenant = _owner(request)
    video_id = request.path_params["id"]
    removed = await resources.catalogue.remove(tenant, [video_id], resources.now_s)
    if removed.outcomes == ["not_found"]:
        raise NotFound("video", video_id)
    return Response(status_code=204)


def shape(video: Video) -> dict[str, Any]:
    """A stored video as JSON: the fields of a PUT, and what we know beside them."""
    return {name: getattr(video, name) for name in FIELDS} | {
        "ratings": [{"system": rating.system, "value": rating.value} for rating in video.ratings],
        "min_age": minimum_age((rating.system, rating.value) for rating in video.ratings),
        "rating_table": TABLE_VERSION,
        "published_at": _instant(video.published_s),
        "available_from": None if video.available_from_s == OPEN_START_S else _instant(video.available_from_s),
        "available_until": None if video.available_until_s == OPEN_END_S else _instant(video.available_until_s),
        "own_vector": video.vector is not None,
        "version": video.version,
        "quarantine": video.quarantine,
        "updated_at": _instant(video.updated_s),
    }


def _owner(request: Request) -> tuple[Resources, str]:
    resources: Resources = request.app.state.resources
    principal = authenticate(request, resources.live, "sk", now_s=resources.now_s)
    return resources, principal.tenant or ""


def _placed(rejected: Rejected, problem: Problem) -> Problem:
    return Problem(f"/videos/{rejected.index}{problem.pointer}", problem.message)


def _refusal(rejected: Rejected) -> dict[str, Any]:
    problems = [_placed(rejected, problem) for problem in rejected.problems]
    errors = [{"pointer": problem.pointer, "detail": problem.message} for problem in problems]
    return {"id": rejected.id, "status": "rejected", "errors": errors}


def _instant(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
