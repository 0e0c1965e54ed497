"""Fetching a listing from a CMS: an address somebody typed, so nothing about it or about what answers is trusted.

Every address a name resolves to must be public, also behind a redirect, and the connection goes to the one that was
looked at: an operator's typing error, or a CMS that was taken over, must not read what only this network can reach
(server-side request forgery, CWE-918). Size, lines, redirects and time have limits.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import orjson

from retrieval.cms_listings import shown
from retrieval.errors import FeedError

MAX_BYTES: Final = 2 << 30
"""Unpacked; a million videos with descriptions."""
MAX_LINE_BYTES: Final = 4 << 20
MAX_REDIRECTS: Final = 3
WHOLE_S: Final = 900.0
TIMEOUTS: Final = httpx.Timeout(connect=10, read=30, write=10, pool=10)


class FetchFailed(FeedError):
    """The listing could not be fetched, or is not one; the text says why, for the tenant's people to read."""


@dataclass(frozen=True)
class Fetched:
    """An answer being read. `etag` "" when it has none; `made_s` when the CMS made it, by its own clock, None unknown.

    unchanged: the listing is what it was when its ETag was taken, and nothing else here is filled.
    """

    unchanged: bool
    etag: str
    made_s: int | None
    lines: AsyncIterator[tuple[int, Any]]


@asynccontextmanager
async def fetched(url: str, etag: str, *, private_allowed: bool) -> AsyncIterator[Fetched]:
    """The listing at `url`, unless it still has this ETag. `lines` are (number, decoded value; None: not JSON).

    private_allowed: also plain http, and addresses of this network. Raises FetchFailed, also while lines are read.
    """
    try:
        async with asyncio.timeout(WHOLE_S), httpx.AsyncClient(timeout=TIMEOUTS, trust_env=False) as client:
            for _ in range(MAX_REDIRECTS + 1):
                request = await _request(client, url, etag, private_allowed=private_allowed)
                response = await client.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        yield _read(response)
                        return
                    url = str(httpx.URL(url).join(response.headers["location"]))
                finally:
                    await response.aclose()
            raise FetchFailed(f"more than {MAX_REDIRECTS} redirects")
    except TimeoutError as error:
        raise FetchFailed(f"took longer than {WHOLE_S:.0f} s") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(f"{shown(url)}: {type(error).__name__}") from error


async def _request(client: httpx.AsyncClient, url: str, etag: str, *, private_allowed: bool) -> httpx.Request:
    """A request to the address that was looked at, with the name where it belongs: Host and TLS."""
    parsed = httpx.URL(url)
    if parsed.scheme != "https" and not (parsed.scheme == "http" and private_allowed):
        raise FetchFailed(f"{shown(url)}: must be https")
    address = await _address_of(parsed.host, parsed.port or 443, private_allowed=private_allowed)
    headers = {"Host": parsed.netloc.decode("ascii"), "Accept": "application/x-ndjson", "User-Agent": "verticalfeed"}
    if etag:
        headers["If-None-Match"] = etag
    extensions = {"sni_hostname": parsed.host} if parsed.scheme == "https" else {}
    return client.build_request("GET", parsed.copy_with(host=address), headers=headers, extensions=extensions)


async def _address_of(host: str, port: int, *, private_allowed: bool) -> str:
    """One address of a name, after all of them were looked at. Raises FetchFailed."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"{host}: no such name") from error
    addresses = [str(address[0]) for *_, address in found]
    for one in addresses:
        address = ipaddress.ip_address(one.partition("%")[0])
        inner = getattr(address, "ipv4_mapped", None) or address
        if not private_allowed and (not inner.is_global or inner.is_multicast):
            raise FetchFailed(f"{host}: not a public address")
    return addresses[0]


def _read(response: httpx.Response) -> Fetched:
    if response.status_code == httpx.codes.NOT_MODIFIED:
        return Fetched(True, "", None, _lines(response))
    if response.status_code != httpx.codes.OK:
        raise FetchFailed(f"status {response.status_code}")
    declared = response.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BYTES:
        raise FetchFailed(f"has {declared[:20]} bytes; {MAX_BYTES} are allowed")
    made = response.headers.get("last-modified") or response.headers.get("date")
    return Fetched(False, response.headers.get("etag", "")[:200], _seconds(made), _lines(response))


async def _lines(response: httpx.Response) -> AsyncIterator[tuple[int, Any]]:
    """Lines that are not empty. Not `response.aiter_lines()`: that collects a line of any length."""
    size, number, rest = 0, 0, b""
    async for piece in response.aiter_bytes():
        size += len(piece)
        *whole, rest = (rest + piece).split(b"\n")
        if size > MAX_BYTES or len(rest) > MAX_LINE_BYTES:
            raise FetchFailed(f"more than {MAX_BYTES} bytes, or than {MAX_LINE_BYTES} in one line")
        for line in whole:
            number += 1
            if line.strip():
                yield number, _decoded(line)
    if rest.strip():
        yield number + 1, _decoded(rest)


def _decoded(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def _seconds(date: str | None) -> int | None:
    try:
        return None if date is None else int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
