"""What a request is called in its answer, in log lines, metrics and spans: its id and its route, never its path."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from starlette.types import Scope

NO_ROUTE: Final = "(none)"
_ID: Final = "feed.request_id"
_paths: dict[Callable[..., Any] | None, str] = {None: NO_ROUTE}


def request_id(scope: Scope) -> str:
    """24 hex digits, made when first asked for and the same until the request ends."""
    known: str | None = scope.get(_ID)
    if known is None:
        known = scope[_ID] = f"{random.getrandbits(96):024x}"
    return known


def route_of(scope: Scope) -> str:
    """The pattern that matched, like /v1/admin/videos/{id:path}: a path itself holds ids."""
    endpoint = scope.get("endpoint")
    path = _paths.get(endpoint)
    if path is None:
        of_endpoint = {route.endpoint: route.path for route in scope["app"].routes}
        path = _paths[endpoint] = of_endpoint.get(endpoint, NO_ROUTE)
    return path
