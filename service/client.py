"""The reference client: what a mobile SDK does, in Python. docs/sdk.md tells the same in words.

    async with FeedClient("https://feeds.example", "pk_…", queue=Path("events.jsonl")) as client:
        client.log_in(user_id)
        async for item in client.scroll(language="en"):
            client.track("watch", item, value=0.8)
        await client.flush()

It keeps the first page and asks only whether it is still right, shows the kept one when the service cannot be reached,
retries within a budget, and forgets a user's pages at log-out. Events survive a restart: see `service.event_queue`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx

from service.event_queue import EventQueue, Waiting

Json = dict[str, Any]
Reason = Literal["initial", "refresh", "scroll", "prefetch"]

ATTEMPTS: Final = 3
BACK_OFF_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0
RETRIED: Final = frozenset({429, 502, 503, 504})
KEPT: Final = frozenset({401, 403, *RETRIED})
"""Answers to events after which the same ids are sent again later: the key may be good again then."""
EMPTY_PAGES: Final = 5
"""A page may be empty and still have a cursor, while user state is away. So often is it asked for again."""


class Refused(Exception):
    """The service said no, and saying it again would not help. `kind` is the problem type without its path."""

    def __init__(self, answer: httpx.Response) -> None:
        problem: Json = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        self.status = answer.status_code
        self.kind = str(problem.get("type", "")).removeprefix("/problems/")
        super().__init__(f"{self.status} {self.kind}: {problem.get('detail', '')}")


class Unreachable(Exception):
    """No answer, or none but "later", within the attempts and the budget, and nothing kept to show instead."""


@dataclass
class Budget:
    """Retries are at most a tenth of the requests, after a few to begin with: a service in trouble is not buried by
    its own clients."""

    left: float = 5.0
    most: float = 10.0
    earned_per_request: float = 0.1

    def earn(self) -> None:
        self.left = min(self.most, self.left + self.earned_per_request)

    def spend(self) -> bool:
        """Whether one more retry may be made; if so it is counted."""
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(frozen=True)
class Page:
    """One answer of the feed. `stale`: it is a kept one, because the service could not be reached."""

    body: Json
    tag: str | None
    fresh_until_s: float
    query: Mapping[str, Any]
    stale: bool = False

    @property
    def items(self) -> list[Json]:
        """The items, each with the request id that goes back with its events."""
        return [{**item, "request_id": self.body["request_id"]} for item in self.body["items"]]

    @property
    def cursor(self) -> str | None:
        cursor: str | None = self.body.get("next_cursor")
        return cursor


@dataclass
class FeedClient:
    """One app's connection. `clock` (unix seconds), `sleep` and `chance` (0 to 1) are there to be replaced by tests."""

    base_url: str
    key: str
    queue: Path
    http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=10))
    budget: Budget = field(default_factory=Budget)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    user: str | None = None

    def __post_init__(self) -> None:
        self._pages: dict[tuple[tuple[str, Any], ...], Page] = {}
        self._events = EventQueue(self.queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        await self.http.aclose()

    # --- identity

    def log_in(self, user: str) -> None:
        """From here on this is the user: a hash of 32 to 128 characters. Another one's pages are forgotten first."""
        if user != self.user:
            self._pages.clear()
        self.user = user

    async def log_out(self) -> None:
        """Send what can be sent, then be nobody. Events that could not be sent stay with the user they belong to."""
        await self.flush()
        self._pages.clear()
        self.user = None

    # --- the feed

    async def feed(self, reason: Reason = "initial", **query: Any) -> Page:
        """A first page. Raises Refused, Unreachable."""
        key = tuple(sorted(query.items()))
        kept = self._pages.get(key)
        if kept and reason != "refresh" and self.clock() < kept.fresh_until_s:
            return kept
        headers: dict[str, str] = {"Feed-Reason": reason}
        if kept and kept.tag and reason != "refresh":
            headers["If-None-Match"] = kept.tag
        try:
            answer = await self._ask("GET", "/v1/feed", headers, params=query)
        except Unreachable:
            if kept is None:
                raise
            return Page(kept.body, kept.tag, 0.0, query, stale=True)
        if answer.status_code == 304 and kept:
            page = Page(kept.body, kept.tag, self.clock() + _max_age_s(answer), query)
        else:
            page = self._page(answer, query)
        if page.tag:  # a fallback has none: it is shown, and not kept
            self._pages[key] = page
        return page

    async def more(self, page: Page) -> Page | None:
        """The page after `page`, None at the end. Raises Refused, Unreachable."""
        if page.cursor is None:
            return None
        query = {**page.query, "cursor": page.cursor}
        answer = await self._ask("GET", "/v1/feed", {"Feed-Reason": "scroll"}, params=query)
        return self._page(answer, page.query)

    async def default_feed(self, tenant: str, **query: Any) -> Page:
        """The first page of the feed that is nobody's in particular. Raises Refused, Unreachable."""
        answer = await self._ask("GET", f"/v1/tenants/{tenant}/feed/default", {}, user=None, params=query)
        return self._page(answer, query)

    async def scroll(self, **query: Any) -> AsyncIterator[Json]:
        """Every item of one chain, to its end. Raises Refused, Unreachable."""
        page: Page | None = await self.feed("initial", **query)
        empty = 0
        while page is not None:
            for item in page.items:
                yield item
            empty = 0 if page.items else empty + 1
            if page.cursor and empty:
                if empty > EMPTY_PAGES:
                    raise Unreachable("user state is away: the cursor is still good later")
                await self.sleep(self._jittered_s(empty))
            page = await self.more(page)

    # --- events

    def track(self, kind: str, item: Mapping[str, Any], value: float | None = None) -> str:
        """Note that something happened to an item of a page; on disk when this returns. Its id."""
        return self._events.add(
            self.user,
            kind,
            item_id=item["id"],
            request_id=item.get("request_id", ""),
            position=item.get("position"),
            value=value,
            at_s=self.clock(),
        )

    async def flush(self) -> int:
        """Send what waits, oldest first, in batches; how many were taken. What cannot be sent now stays. Never raises
        for the network."""
        done = 0
        most = EventQueue.BATCH
        while batch := self._events.batch(most):
            try:
                answer = await self._send(batch)
            except Unreachable:
                break
            if answer.status_code == 413 and len(batch) > 1:
                most = len(batch) // 2
                continue
            if answer.status_code in KEPT:
                break
            # 207: taken, known, or refused one by one. Any other refusal is of the batch as a whole and would be the
            # same tomorrow: kept, it would block everything behind it.
            self._events.done(batch)
            done += len(batch) if answer.status_code == 207 else 0
        return done

    async def _send(self, batch: list[Waiting]) -> httpx.Response:
        body = {"sent_at": _moment(self.clock()), "events": [one.event for one in batch]}
        try:
            return await self._ask("POST", "/v1/events", {}, user=batch[0].user, json=body)
        except Refused as refused:
            return httpx.Response(refused.status)

    # --- HTTP

    async def _ask(
        self, method: str, path: str, headers: Json, *, user: str | None = "", **more: Any
    ) -> httpx.Response:
        """An answer below 400. Raises Refused, Unreachable."""
        whose = self.user if user == "" else user
        sent = {"Authorization": f"Bearer {self.key}", **headers, **({"Feed-User": whose} if whose else {})}
        self.budget.earn()
        said = ""
        for attempt in range(1, ATTEMPTS + 1):
            wait_s = self._jittered_s(attempt)
            try:
                answer = await self.http.request(method, self.base_url + path, headers=sent, **more)
                if answer.status_code < 400:
                    return answer
                if answer.status_code not in RETRIED:
                    raise Refused(answer)
                wait_s = max(wait_s, float(answer.headers.get("retry-after", 0)))
                said = f"status {answer.status_code}"
            except httpx.TransportError as error:
                said = type(error).__name__
            if attempt == ATTEMPTS or not self.budget.spend():
                break
            await self.sleep(wait_s)
        raise Unreachable(said)

    def _page(self, answer: httpx.Response, query: Mapping[str, Any]) -> Page:
        return Page(answer.json(), answer.headers.get("etag"), self.clock() + _max_age_s(answer), query)

    def _jittered_s(self, attempt: int) -> float:
        """Anything from 0 to twice as much each time: clients that failed together do not come back together."""
        return float(min(LONGEST_WAIT_S, BACK_OFF_S * 2**attempt) * self.chance())


def _max_age_s(answer: httpx.Response) -> float:
    directives = answer.headers.get("cache-control", "").split(",")
    ages = [one.partition("=")[2] for one in directives if one.strip().startswith("max-age=")]
    return float(ages[0]) if ages else 0.0


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s * 1000) % 1000:03d}Z"
