"""Whether the service answers, asked the way an app would ask: over HTTP, with a key."""

from __future__ import annotations

import http.client

import orjson

HOST = "127.0.0.1"
TIMEOUT_S = 2.0


def is_ready(health_port: int) -> bool:
    """Whether the service calls itself ready."""
    status, _ = _get(health_port, "/readyz", {})
    return status == 200


def gives_videos(port: int, publishable_key: str) -> bool:
    """Whether the key's tenant has a feed with something in it. Asked without a user: nobody's journal is touched."""
    status, body = _get(port, "/v1/feed?limit=1", {"Authorization": f"Bearer {publishable_key}"})
    return status == 200 and bool(orjson.loads(body)["items"])


def _get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """(status, body); status 0 when nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
