"""One table: exception -> status and problem type. Every error answer of the API is an RFC 9457 problem document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from ranking.errors import PolicyError
from ranking.errors import Problem as PolicyProblem
from retrieval import errors as stores
from retrieval.errors import FeedError, Problem
from retrieval.mirror import TooManyGone
from service.cursor import BadCursor
from service.governor import Overloaded
from service.past import Gone
from service.scopes import request_id, route_of

log = structlog.get_logger("service")


class Unauthenticated(FeedError):
    """No key, or one that is unknown, expired or revoked: the three look the same."""


class ForbiddenScope(FeedError):
    """A valid key that may not do this."""


class TenantSuspended(FeedError):
    """A valid key of a tenant that is not served at present."""


class InvalidRequest(stores.InvalidInput):
    """A parameter or header that breaks a stated limit."""


class RequestTimeout(FeedError):
    """A request that did not arrive in time."""


class PayloadTooLarge(FeedError):
    """A body above the stated limit."""


class UriTooLong(FeedError):
    """A path and query above the stated limit."""


class HeadersTooLarge(FeedError):
    """More headers, or longer ones, than the stated limit."""


class UnsupportedMediaType(FeedError):
    """A body that is not declared to be JSON."""


class BatchRefused(stores.InvalidInput):
    """A batch of which nothing could be accepted."""


class PreconditionRequired(FeedError):
    """A write that does not say which version it started from."""


RETRY_AFTER_S: Final = 2
"""In the header of a 429 or 503 that does not know better. Never 0: that would be an invitation to a stampede."""

PROBLEMS: Final[Mapping[type[Exception], tuple[int, str, str]]] = MappingProxyType(
    {
        InvalidRequest: (400, "invalid-request", "The request breaks a limit of the API"),
        BadCursor: (400, "invalid-cursor", "The cursor cannot be used"),
        Unauthenticated: (401, "unauthenticated", "The key is missing or not valid"),
        ForbiddenScope: (403, "forbidden-scope", "The key may not do this"),
        TenantSuspended: (403, "tenant-suspended", "The tenant is suspended"),
        stores.NotFound: (404, "not-found", "There is no such thing here"),
        RequestTimeout: (408, "request-timeout", "The request did not arrive in time"),
        Gone: (410, "gone", "The page cannot be made again"),
        stores.AlreadyExists: (409, "already-exists", "The id is taken"),
        stores.VersionMismatch: (412, "version-mismatch", "Somebody else changed it first"),
        PayloadTooLarge: (413, "payload-too-large", "The body is too large"),
        UriTooLong: (414, "uri-too-long", "The address is too long"),
        PreconditionRequired: (428, "precondition-required", "The header If-Match is missing"),
        UnsupportedMediaType: (415, "unsupported-media-type", "The body must be application/json"),
        PolicyError: (422, "invalid-config", "The configuration cannot be accepted"),
        BatchRefused: (422, "batch-limits", "Nothing of the batch can be accepted"),
        stores.InvalidInput: (422, "invalid-config", "The input cannot be accepted"),
        stores.RateLimited: (429, "rate-limited", "Too many requests"),
        HeadersTooLarge: (431, "headers-too-large", "There are too many headers"),
        Overloaded: (503, "overloaded", "More is asked than can be answered; try again"),
        stores.StoreUnavailable: (503, "overloaded", "A store cannot answer now; try again"),
        # These belong to loops in the background. Should one ever reach a request, trying again is right.
        stores.SnapshotCorrupt: (503, "overloaded", "The index cannot be read now; try again"),
        stores.StaleGeneration: (503, "overloaded", "The index is being replaced; try again"),
        TooManyGone: (422, "invalid-config", "Too much would vanish at once"),
        stores.LeaseLost: (503, "overloaded", "The work went to somebody else; try again"),
    }
)


def problem_of(error: Exception) -> tuple[int, str, str] | None:
    """(status, type, title) of the nearest class in PROBLEMS, None for an error nobody foresaw."""
    return next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)


def answer(error: Exception) -> Response:
    """The problem document of a foreseen error."""
    status, kind, title = problem_of(error) or (500, "internal", "Something went wrong on our side")
    problems: Sequence[Any] = getattr(error, "problems", ())
    retry_after_s = getattr(error, "retry_after_s", RETRY_AFTER_S)
    headers = {"Retry-After": str(min(max(retry_after_s, 1), 5))} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # The text of a store's error names hosts and files: it is for the log, not for a caller.
    detail = title if status >= 500 else str(error) or title
    return document(status, kind, title, detail, problems, headers)


def document(
    status: int,
    kind: str,
    title: str,
    detail: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {"type": f"/problems/{kind}", "title": title, "status": status, "detail": detail[:2000]}
    if problems:
        body["errors"] = [{"pointer": problem.pointer, "detail": worded(problem)} for problem in problems]
    return Response(orjson.dumps(body), status, dict(headers or {}), "application/problem+json")


def worded(problem: Problem | PolicyProblem) -> str:
    """A problem in words; those of a policy say apart what is allowed."""
    if isinstance(problem, PolicyProblem):
        return f"{problem.problem}; allowed: {problem.allowed}"
    return problem.message


async def on_error(request: Request, error: Exception) -> Response:
    """Starlette's handler for everything that is raised. Unforeseen errors are logged with their traceback."""
    if problem_of(error) is None:
        log.error("unforeseen", route=route_of(request.scope), request_id=request_id(request.scope), exc_info=error)
    elif isinstance(error, stores.StoreUnavailable):
        log.warning(
            "store_unavailable", route=route_of(request.scope), request_id=request_id(request.scope), error=str(error)
        )
    return _named(request, answer(error))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such route, method not allowed) in the same form."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {"Allow": ", ".join(_methods_of(request))} if status == 405 else None
    phrase = HTTPStatus(status).phrase
    return _named(request, document(status, phrase.lower().replace(" ", "-"), phrase, phrase, headers=headers))


def _methods_of(request: Request) -> list[str]:
    """What the address takes, on all its routes: Starlette itself would name those of the first."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    of_address = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in of_address for method in route.methods or ()})


def _named(request: Request, response: Response) -> Response:
    """The answer with the id under which the log has the rest of the story."""
    response.headers["X-Request-Id"] = request_id(request.scope)
    return response
