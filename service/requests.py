"""Reading a request: bodies under a limit, JSON without surprises, numbers within their range."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request

from retrieval.errors import Problem
from service.errors import (
    InvalidRequest,
    PayloadTooLarge,
    PreconditionRequired,
    RequestTimeout,
    UnsupportedMediaType,
)

SHOWN_CHARS = 40
MISTAKEN = 10_000
"""A larger limit is refused, where one above the maximum is brought down to it."""
MAX_UNKNOWN = 50
TEXT_CHARS = 500
KEPT_QUERIES: Final = 256
"""Parsed queries that are remembered, at most 8 KiB each: the first pages of an app have nearly all the same few."""


_HEADERS: Final = "feed.headers"


def header(request: Request, name: bytes, default: str = "") -> str:
    """The value of a header (its name in lower case); of one that comes more than once, the first.

    Starlette looks through all headers each time it is asked, and raises and catches for one that is not there.
    """
    scope = request.scope
    found: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if found is None:
        found = scope[_HEADERS] = dict(reversed(scope["headers"]))
    value = found.get(name)
    return default if value is None else value.decode("latin-1")


def query_of(request: Request) -> Mapping[str, str]:
    """The query parameters by name; of one that comes more than once, the last."""
    return _parameters(request.scope["query_string"])


@lru_cache(KEPT_QUERIES)
def _parameters(query: bytes) -> Mapping[str, str]:
    return MappingProxyType(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))


async def body_of(request: Request, most_bytes: int) -> bytes:
    """The whole body. Raises PayloadTooLarge as soon as it is longer than allowed, UnsupportedMediaType,
    RequestTimeout."""
    if header(request, b"content-type").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("send Content-Type: application/json")
    declared = header(request, b"content-length")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise PayloadTooLarge(f"the body has {declared[:20]} bytes; {most_bytes} are allowed")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise PayloadTooLarge(f"the body has more than the {most_bytes} bytes allowed")
            chunks.append(chunk)
    except ClientDisconnect as error:  # nobody reads the answer; it is counted, and no fault of ours
        raise RequestTimeout("the rest of the body never came") from error
    return b"".join(chunks)


def json_of(body: bytes) -> Any:
    """The JSON value of a body. Raises InvalidRequest.

    What orjson refuses but a lenient reader accepts (a lone surrogate, NaN) is let through to the validation of each
    field: one poison item must not block the batch it came in.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest([Problem("", f"is not JSON: {str(error)[:100]}")]) from error


def object_of(value: Any, *known: str) -> dict[str, Any]:
    """The value if it is an object with no other keys than the known ones. Raises InvalidRequest with every problem."""
    if not isinstance(value, dict):
        raise InvalidRequest([Problem("", f"must be an object with {', '.join(known)}")])
    unknown = [key for key in value if key not in known]
    if unknown:
        allowed = f"is not a known field; allowed: {', '.join(known)}"
        raise InvalidRequest([Problem(f"/{pointer_token(key)}", allowed) for key in unknown[:MAX_UNKNOWN]])
    return value


def text_of(value: dict[str, Any], *names: str) -> tuple[str, ...]:
    """The values of mandatory text fields. Raises InvalidRequest with every one that is missing or not text."""
    problems = [
        Problem(f"/{name}", f"is required: 1 to {TEXT_CHARS} printable characters")
        for name in names
        if not isinstance(text := value.get(name), str) or not 1 <= len(text) <= TEXT_CHARS or not text.isprintable()
    ]
    if problems:
        raise InvalidRequest(problems)
    return tuple(value[name] for name in names)


def if_match(request: Request) -> str:
    """The only tag in If-Match, without its quotes. Raises PreconditionRequired."""
    given = header(request, b"if-match").strip().removeprefix("W/").strip('"')
    if not given:
        raise PreconditionRequired("send If-Match with the ETag you started from")
    return given


def versions_in(tag: str, count: int) -> tuple[int, ...]:
    """The numbers of a tag like 3.17; -1 for each when it is no tag of ours, so that it equals no version."""
    parts = tag.split(".")
    if len(parts) != count or not all(part.isascii() and part.isdecimal() and len(part) < 20 for part in parts):
        return (-1,) * count
    return tuple(int(part) for part in parts)


def pointer_token(key: object) -> str:
    """A key as one token of a JSON pointer, shortened."""
    return str(key)[:SHOWN_CHARS].replace("~", "~0").replace("/", "~1")


def list_of(value: Any, name: str, most: int) -> list[Any]:
    """The list under the only key `name` of an object. Raises InvalidRequest."""
    if not isinstance(value, dict) or not isinstance(value.get(name), list):
        raise InvalidRequest([Problem(f"/{name}", f'is required: a body like {{"{name}": [...]}}')])
    if not 1 <= len(value[name]) <= most:
        raise InvalidRequest([Problem(f"/{name}", f"has {len(value[name])} entries; 1 to {most} are allowed")])
    entries: list[Any] = value[name]
    return entries


def whole_number(request: Request, name: str, default: int, *, most: int) -> int:
    """A query parameter >= 1; larger ones are brought down to `most`. Raises InvalidRequest.

    Beyond MISTAKEN it is no wish for as much as there is, but a mistake that its maker wants to hear of.
    """
    given = query_of(request).get(name)
    if given is None:
        return default
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given[:20]) <= max(most, MISTAKEN):
        shown = given[:SHOWN_CHARS].encode("ascii", "replace").decode()
        raise InvalidRequest([Problem(f"/query/{name}", f"{shown!r} is not a whole number from 1 to {most}")])
    return min(int(given[:20]), most)
