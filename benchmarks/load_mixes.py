"""What users do under load, as sessions of requests, and whether a sample of the answers is right.

    first     distinct users, page 1 only
    scroll    page 1, a refresh that finds nothing new (304), two cursor pages, a post of events, two more, a post

The refresh comes before the events: an app that comes back to the foreground. After them it would rightly be a new
first page. A post holds ten events: an impression and a watch of five videos of the page before it.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

import orjson

from benchmarks.load import Answer, Request, Session
from benchmarks.world_users import User

LIMIT: Final = 20
CHECK_EVERY: Final = 50
"""Every so many sessions, all pages of one are read and checked."""
WATCHED: Final = 5
FIRST, CURSOR, REFRESH, EVENTS = "first page", "cursor page", "refresh", "events"
INITIAL, PREFETCH = "initial", "prefetch"
"""First pages that are wanted now, and for later."""
FEED_KINDS: Final = (FIRST, CURSOR, REFRESH, INITIAL, PREFETCH)
CURSOR_MARK: Final = b'"next_cursor":"'
IDS: Final = re.compile(rb'\{"id":"([^"]+)"')
TAG: Final = re.compile(rb"etag: ([^\r]+)")
OVERLOADED: Final = "overloaded"
"""What a page says that was made without a taste because there was no time for one."""


@dataclass
class Checks:
    """What was found in the pages that were read: their number, modes and shortcomings, and what is wrong with any."""

    pages: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    """What pages said about themselves."""
    short: int = 0
    """Pages of fewer items than asked for that said why, or were the last of their chain."""
    problems: Counter[str] = field(default_factory=Counter)

    def page(self, user: User, body: bytes, shown: set[str]) -> None:
        """Check one page; `shown` are the ids the session had before, and is added to."""
        page = orjson.loads(body)
        ids = [item["id"] for item in page["items"]]
        may_be_plain = bool(shown) or OVERLOADED in page["degraded"]  # a chain goes on as it began
        self.pages += 1
        self.modes[page["mode"]] += 1
        self.degraded.update(page["degraded"])
        self.short += len(ids) != LIMIT
        wrong = {
            "not full, and does not say why": len(ids) < LIMIT and "next_cursor" in page and not page["degraded"],
            "more items than asked for": len(ids) > LIMIT,
            "an item of another tenant": any(not one.startswith(f"{user.tenant.id}-") for one in ids),
            "an item twice": len(set(ids) - shown) < len(ids),
            "not personalised": user.is_known and page["mode"] != "personalised" and not may_be_plain,
        }
        self.problems.update(what for what, is_so in wrong.items() if is_so)
        shown.update(ids)


class Mixes:
    """Sessions of the given users, each user's turn coming again when all others had theirs.

    `reason` is what the app says it asks a first page for (header Feed-Reason), "" for nothing.
    """

    def __init__(self, users: Sequence[User], checks: Checks) -> None:
        self.checks = checks
        self._users = cycle(users)
        self._heads = {user.number: head(user) for user in users}
        self._events = 0

    def first(self, kind: str = FIRST, reason: bytes = b"") -> Iterator[Session]:
        """Distinct users, page 1 only."""
        more = b"Feed-Reason: %b\r\n" % reason if reason else b""
        for number, user in enumerate(self._users):
            yield self._first(user, kind, more, is_checked=number % CHECK_EVERY == 0)

    def scroll(self) -> Iterator[Session]:
        """Sessions of page 1, a refresh, four cursor pages and two posts of events."""
        for number, user in enumerate(self._users):
            yield self._scroll(user, is_checked=number % CHECK_EVERY == 0)

    def _first(self, user: User, kind: str, more: bytes, *, is_checked: bool) -> Session:
        answer = yield Request(kind, b"GET %b%b%b\r\n" % (query(user), self._heads[user.number], more))
        if is_checked and answer.status == 200:
            self.checks.page(user, answer.body, set())

    def _scroll(self, user: User, *, is_checked: bool) -> Session:
        path, head_, shown = query(user), self._heads[user.number], set[str]()
        page = yield Request(FIRST, b"GET %b%b\r\n" % (path, head_))
        tag = TAG.search(page.head)
        if is_checked and page.status == 200:
            self.checks.page(user, page.body, shown)
        if tag:
            yield Request(REFRESH, b"GET %b%bIf-None-Match: %b\r\n\r\n" % (path, head_, tag[1]))
        for number in range(4):
            cursor = cursor_of(page)
            if not cursor:
                return
            page = yield Request(CURSOR, b"GET %b&cursor=%b%b\r\n" % (path, cursor, head_))
            if is_checked and page.status == 200:
                self.checks.page(user, page.body, shown)
            if number % 2 and page.status == 200 and IDS.search(page.body):  # a page may be empty, and says why
                yield Request(EVENTS, self._post(head_, page.body))

    def _post(self, head_: bytes, body: bytes) -> bytes:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
        events = []
        for video in IDS.findall(body)[:WATCHED]:
            self._events += 2
            events.append(EVENT % (self._events - 1, b"impression", video, now, b""))
            events.append(EVENT % (self._events, b"watch", video, now, b',"value":0.8'))
        content = b'{"sent_at":"%b","events":[%b]}' % (now, b",".join(events))
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
        return b"POST /v1/events%b%b%b" % (head_, length, content)


RUN: Final = time.time_ns() >> 16
"""Makes the event ids of this process its own."""
EVENT: Final = b'{"id":"%08x-%04x-7000-8000-%%012x","type":"%%b","item_id":"%%b","occurred_at":"%%b"%%b}' % (
    RUN >> 16 & 0xFFFFFFFF,
    RUN & 0xFFFF,
)


def query(user: User) -> bytes:
    """The path of a user's first page."""
    return f"/v1/feed?limit={LIMIT}&language=en&country={user.country}".encode()


def head(user: User) -> bytes:
    """What follows the path in every request of a user; the line that ends the head is missing."""
    key = user.tenant.publishable
    return f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nFeed-User: {user.id}\r\n".encode()


def cursor_of(page: Answer) -> bytes:
    """The cursor of a page, empty at the end of a chain."""
    at = page.body.rfind(CURSOR_MARK)
    return page.body[at + len(CURSOR_MARK) : page.body.index(b'"', at + len(CURSOR_MARK))] if at >= 0 else b""
