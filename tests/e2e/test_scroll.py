"""Scrolling to the end, whatever happens meanwhile: no repeat, no ineligible video, no early end.

Random tenants (none, one, three, a dozen, 250 and more than 1,000 videos, random rules, ratings, countries and
windows), random hints and page sizes, known and unknown users; between two pages videos are added, changed, closed and
taken down, Redis stands still, the cursor secret is rotated. The oracle judges each video by itself, in plain Python.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ranking.hints import AGE_BANDS
from service.cursor import Cursors
from tests.ranking.cases import TAGS, random_rules
from tests.support.running import System, system, video
from tests.support.served import Json, Served, served

SIZES = {"none": 0, "one": 1, "three": 3, "dozen": 12, "many": 250, "big": 1050}
SECRETS = [b"secret number %d of the operator" % n for n in range(4)]
MAX_PAGES = 2000
NUMBERS = itertools.count()
TALLY: Counter[str] = Counter()
"""What the scrolls of this run met with."""


def random_video(rng: random.Random, name: str, now_s: int) -> Json:
    """A video with any mix of limits."""
    more: Json = {
        "tags": rng.sample(TAGS, rng.randint(0, 2)),
        "creator": f"creator {rng.randint(0, 20)}",
        "ratings": [{"system": "FSK", "value": rng.choice(["0", "0", "6", "12", "16", "18"])}],
    }
    if rng.random() < 0.15:
        more["countries"] = rng.sample(["DE", "FR", "NZ"], rng.randint(1, 2))
    if rng.random() < 0.05:
        more["available_until"] = moment(now_s - 60)
    elif rng.random() < 0.05:
        more["available_from"] = moment(now_s + 86_400)
    if rng.random() < 0.05:
        more["status"] = "draft"
    return video(name, f"about {name} {' '.join(more['tags'])}", **more)


def moment(at_s: int) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(at_s, UTC).isoformat()


class Tenant:
    """What the test knows about one tenant: its videos as they were last sent, and its rules."""

    def __init__(self, name: str, size: int, rng: random.Random, now_s: int) -> None:
        self.name = name
        self.videos = {f"{name}-{n}": random_video(rng, f"{name}-{n}", now_s) for n in range(size)}
        self.added = 0
        self.rules: list[Json] = []
        eligible = 0
        while not self.rules or (size > 200 and eligible < 0.5 * size):  # rules that leave something to scroll
            self.rules = random_rules(np.random.default_rng(rng.randint(0, 2**32)), most=8)
            eligible = sum(self.eligible(one, {}, now_s) for one in self.videos.values())

    def eligible(self, one: Json, hints: Json, now_s: int) -> bool:
        """Whether a video may be shown to somebody with these hints; written without the product's code."""
        ceiling = AGE_BANDS.get(hints.get("age_band", ""), 18)
        countries = one.get("countries", [])
        if one.get("status") in ("draft", "removed") or int(one["ratings"][0]["value"]) > ceiling:
            return False
        if countries and hints.get("country") not in countries:
            return False
        opens, ends = one.get("available_from"), one.get("available_until")
        if (opens and datetime.fromisoformat(opens).timestamp() > now_s) or (
            ends and datetime.fromisoformat(ends).timestamp() <= now_s
        ):
            return False
        acting = [
            rule
            for rule in self.rules
            if rule["enabled"] and hints.get("surface", "") in rule["when"].get("surface", [hints.get("surface", "")])
        ]
        hit = {rule["id"] for rule in acting if rule["target"]["filter"]["tag"][0] in one["tags"]}
        blocked = any(rule["id"] in hit for rule in acting if rule["kind"] == "block")
        return not blocked and all(rule["id"] in hit for rule in acting if rule["kind"] == "require")

    def change(self, service: Served, rng: random.Random) -> set[str]:
        """Add, change or take down a few videos, and have it published; the ids it was about."""
        touched: set[str] = set()
        sent = []
        for _ in range(rng.randint(1, 3)):
            kind = rng.choice(["add", "edit", "remove", "remove"]) if self.videos else "add"
            if kind == "add":
                self.added += 1
                one = random_video(rng, f"{self.name}-new-{self.added}", service.now_s)
                sent.append(one)
            else:
                name = rng.choice(list(self.videos))
                if name in touched:
                    continue
                one = random_video(rng, name, service.now_s)
                if kind == "remove":
                    one = {**self.videos[name], "status": "removed"}
                    service.take_down(self.name, name, publish=False)
                else:
                    sent.append(one)
            self.videos[one["id"]] = one
            touched.add(one["id"])
        service.put(self.name, *sent)
        return touched


class World:
    """A running service and what the test knows about its tenants. No dataclass: hypothesis would print all of it."""

    def __init__(self, service: Served, tenants: dict[str, Tenant]) -> None:
        self.service = service
        self.tenants = tenants


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with tenants of every size, under random rules; a Redis answer may take its time on a busy machine."""
    rng, now_s = random.Random(7), int(datetime.now(UTC).timestamp())
    tenants = {name: Tenant(name, size, rng, now_s) for name, size in SIZES.items()}
    videos = {name: list(tenant.videos.values()) for name, tenant in tenants.items()}
    told = b",".join(SECRETS).decode()
    with served(tmp_path_factory.mktemp("scroll"), videos, redis_timeout_ms=150, cursor_secrets=told) as service:
        for name, tenant in tenants.items():
            service.set_policy(name, {"rules": tenant.rules})
            service.set_flag(name, state="on", holdout_percent=1)
        yield World(service, tenants)


scrolls = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["big", *SIZES, "many"]),
        "seed": st.integers(0, 2**32),
        "limit": st.sampled_from([1, 7, 20, 50, 50]),
        "user": st.sampled_from([None, "new", "fan"]),
        "hints": st.fixed_dictionaries(
            {},
            optional={
                "country": st.sampled_from(["DE", "NZ", "US"]),
                "age_band": st.sampled_from(["0-12", "12", "16-17", "18+"]),
                "surface": st.sampled_from(["home", "search"]),
                "language": st.sampled_from(["de", "en"]),
            },
        ),
        "turmoil": st.sampled_from([0.4, 0.1, 0.0]),
    }
)


@given(scrolls)
@settings(
    max_examples=35, deadline=None, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_scroll_is_complete(world: World, scroll: Json) -> None:
    """Each page is judged as it comes, and at the end everything that was eligible all the while was shown once."""
    Scroll(world.service, world.tenants[scroll["tenant"]], scroll).run()


def test_the_scrolls_were_worth_something() -> None:
    """Long chains, changes between pages, rotations, pages without user state: all of them were met with."""
    if not TALLY:
        pytest.skip("the scrolls did not run")
    for name, least in (("pages", 150), ("second lists", 20), ("changes", 15), ("rotations", 8)):
        assert TALLY[name] >= least, TALLY


class Scroll:
    """One chain, from its first page to its end."""

    def __init__(self, service: Served, tenant: Tenant, drawn: Json) -> None:
        self.service, self.tenant = service, tenant
        self.rng = random.Random(drawn["seed"])
        self.hints, self.turmoil = drawn["hints"], drawn["turmoil"]
        # A page of one would take a thousand requests.
        self.limit = drawn["limit"] if len(tenant.videos) < 300 else max(drawn["limit"], 20)
        self.user = drawn["user"] and self.newcomer(drawn["user"])
        self.shown: list[str] = []
        self.seen: set[str] = set()
        self.touched: set[str] = set()

    def newcomer(self, kind: str) -> str:
        """A user nobody has heard of, and who is not held out: a hold-out's chain may begin anew without Redis."""
        names = (f"{kind} {number}" for number in NUMBERS)
        return next(name for name in names if self.service.decision(self.tenant.name, name) == "personalised")

    def run(self) -> None:
        if self.user and self.user.startswith("fan"):
            known = self.rng.sample(list(self.tenant.videos), min(len(self.tenant.videos), 30))
            served_now = [
                name for name in known if self.service.resources.live.view(self.tenant.name).snapshot.find(name)
            ]
            self.service.events(self.tenant.name, self.user, *(("like", name) for name in served_now))
            self.seen = set(served_now)
        page = self.page(None)
        for _ in range(MAX_PAGES):
            self.judge(page)
            if "next_cursor" not in page:
                break
            self.between()
            page = self.page(page["next_cursor"])
        else:
            raise AssertionError("no end")
        must = {
            name
            for name, one in self.tenant.videos.items()
            if name not in self.touched | self.seen and self.tenant.eligible(one, self.hints, self.service.now_s)
        }
        assert must <= set(self.shown), f"never shown: {sorted(must - set(self.shown))[:10]}"

    def page(self, cursor: str | None) -> Json:
        query = {**self.hints, "limit": self.limit, **({"cursor": cursor} if cursor else {})}
        if cursor and self.rng.random() < self.turmoil / 2:
            with self.service.without_redis():
                return self.service.feed(self.tenant.name, self.user, **query)
        return self.service.feed(self.tenant.name, self.user, **query)

    def judge(self, page: Json) -> None:
        names = [item["id"] for item in page["items"]]
        assert "cursor_restarted" not in page["degraded"]
        assert page["mode"] != "fallback" or not self.shown or "fallback" in page["mode"]
        assert not set(names) & set(self.shown), "a video came twice"
        assert not set(names) & self.seen, "a seen video came"
        for name in names:
            assert self.tenant.eligible(self.tenant.videos[name], self.hints, self.service.now_s), name
        assert len(names) == self.limit or page["degraded"] or "next_cursor" not in page, "short without a reason"
        self.shown += names
        TALLY["pages"] += 1
        TALLY["videos"] += len(names)
        TALLY["second lists"] += bool(page["items"]) and page["items"][0]["position"] >= 200
        TALLY["without user state"] += "user_state_unavailable" in page["degraded"]

    def between(self) -> None:
        if self.rng.random() < self.turmoil:
            self.touched |= self.tenant.change(self.service, self.rng)
            TALLY["changes"] += 1
        if self.rng.random() < self.turmoil / 2:  # the newest in front, the one before it still good
            SECRETS.insert(0, SECRETS.pop())
            TALLY["rotations"] += 1
            self.service.app.state.resources = replace(self.service.resources, cursors=Cursors(SECRETS))


def test_under_a_daemon_that_publishes(tmp_path: Path, redis_url: str) -> None:
    """The real daemon and two real workers: chains of several users, while the catalogue never stands still."""
    videos = [video(f"v{n}", f"steady {n}") for n in range(300)]
    passing = [video(f"p{n}", f"passing {n}") for n in range(50)]
    with system(tmp_path, redis_url, {"acme": [*videos, *passing]}) as running:
        over = threading.Event()
        publishing = threading.Thread(target=restless, args=(running, over))
        publishing.start()
        try:
            chains = [whole_chain(running, user) for user in ("ann", "bob", None)]
        finally:
            over.set()
            publishing.join()
    for shown in chains:
        assert len(set(shown)) == len(shown), "a video came twice"
        assert {f"v{n}" for n in range(300)} <= set(shown), "an early end"


def restless(running: System, over: threading.Event) -> None:
    """Edit, add and take down until it is over; never the steady ones."""
    n = 0
    while not over.is_set():
        n += 1
        running.put("acme", video(f"p{n % 50}", f"passing again {n}"), video(f"new{n}", f"new {n}"))
        if n % 2:
            running.delete("acme", f"p{(n + 25) % 50}")
        over.wait(0.2)


def whole_chain(running: System, user: str | None) -> list[str]:
    """All ids of one chain."""
    shown: list[str] = []
    query: dict[str, Any] = {"limit": 40}
    while True:
        page = running.feed("acme", user, **query)
        shown += [item["id"] for item in page["items"]]
        if "next_cursor" not in page:
            return shown
        query["cursor"] = page["next_cursor"]
