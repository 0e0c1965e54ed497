"""POST /v1/events."""

from __future__ import annotations

import zlib
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
from pydantic import AwareDatetime, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from retrieval.errors import Problem
from service.auth import authenticate, user_key
from service.errors import InvalidRequest, PayloadTooLarge
from service.events import MAX_BYTES, MAX_EVENTS, record
from service.requests import body_of, header, json_of, list_of
from service.resources import Resources
from service.telemetry import observe_events

_MOMENT: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


async def events(request: Request) -> Response:
    """Store what users did. 207 with a result per event; the same ids may be sent again."""
    resources: Resources = request.app.state.resources
    principal = authenticate(request, resources.live, "pk", now_s=resources.now_s)
    view = resources.live.view(principal.tenant or "")
    key = user_key(request, view.tenant.pepper)
    resources.batches.charge(view.tenant.id, key, principal.key_id)
    value = json_of(inflated(await body_of(request, MAX_BYTES), header(request, b"content-encoding")))
    outcome = await record(
        list_of(value, "events", MAX_EVENTS),
        view,
        key,
        sent_at=_sent_at(value),
        now_s=resources.now_s,
        stream=resources.written,
    )
    observe_events(outcome)
    return Response(orjson.dumps(asdict(outcome)), 207, media_type="application/json")


def inflated(body: bytes, encoding: str) -> bytes:
    """The body without its gzip. Raises PayloadTooLarge above ten times the limit, InvalidRequest for a broken one."""
    if encoding.lower() in ("", "identity"):
        return body
    if encoding.lower() != "gzip":
        raise InvalidRequest([Problem("/headers/Content-Encoding", "must be gzip or absent")])
    try:
        unpacker = zlib.decompressobj(wbits=31)
        plain = unpacker.decompress(body, 10 * MAX_BYTES)
    except zlib.error as error:
        raise InvalidRequest([Problem("", "is not gzip, though Content-Encoding says so")]) from error
    if unpacker.unconsumed_tail:
        raise PayloadTooLarge(f"the unpacked body has more than the {10 * MAX_BYTES} bytes allowed")
    return plain


def _sent_at(value: Any) -> datetime | None:
    if value.get("sent_at") is None:
        return None
    try:
        return _MOMENT.validate_python(value["sent_at"])
    except ValidationError as error:
        raise InvalidRequest([Problem("/sent_at", "must be a time like 2026-11-22T12:00:00Z")]) from error
