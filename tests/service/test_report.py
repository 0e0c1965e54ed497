"""`report` against an archive filled by a running system, whose truth the test knows because it was the users."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from ranking.policy import Layer, resolve
from retrieval.arms import arm_of
from retrieval.erasure import rekeyed
from retrieval.flags import DEFAULT_HOLDOUT_PERCENT, HOLDOUT, bucket
from tests.service.test_operator import answer, command, policy_file
from tests.support.running import PEPPER, WITHIN_S, Json, Place, System, eventually, read, system, user_id, video

TENANT = "watchers"
QUICK = {"FEED_SIGNALS_FLUSH_S": "0.2"}
VIDEOS = [video(f"v{n}", f"bread part {n}", tags=["bread"]) for n in range(40)]
SHOWN = 4
ARMS: list[Json] = [{"name": name, "percent": 50, "policy": {}} for name in ("a", "b")]
POLICY = {"experiment": {"name": "nothing", "arms": ARMS}}
LATER = "hold-out, later"
"""A page of somebody held out who has engaged before: a personalised one, had they not been held out."""


@dataclass
class Truth:
    """What happened: pages by mode; of each (kind of page, user) the shown, the taken, the watched. A kind is a mode,
    or LATER."""

    pages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sums: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0, 0.0]))
    served: set[str] = field(default_factory=set)

    def ctr(self, *kinds: str) -> float:
        """Taken of shown."""
        mine = [sums for (kind, _), sums in self.sums.items() if kind in kinds]
        return sum(one[1] for one in mine) / sum(one[0] for one in mine)

    def watch_through(self, *kinds: str) -> float:
        """Watched of shown."""
        mine = [sums for (kind, _), sums in self.sums.items() if kind in kinds]
        return sum(one[2] for one in mine) / sum(one[0] for one in mine)


def arm(given: str) -> str:
    """The arm of a user who is not held out."""
    experiment = resolve([Layer("tenant", POLICY)]).experiment
    assert experiment is not None
    return arm_of(experiment, TENANT, rekeyed(given, PEPPER))


def in_holdout(given: str) -> bool:
    """Whether the tenant's flag holds this user out."""
    return bucket(TENANT, HOLDOUT, rekeyed(given, PEPPER)) < 100 * DEFAULT_HOLDOUT_PERCENT


def page_of(s: System, user: str, truth: Truth) -> Json:
    """A first page of a user (their id as the app sends it), noted."""
    headers = {"Feed-User": user, "Feed-Reason": "refresh"}
    page = read(s.call("GET", "/v1/feed", s.tenants[TENANT].publishable, params={"limit": 10}, headers=headers), 200)
    truth.pages[page["mode"]] += 1
    truth.served |= {item["id"] for item in page["items"]}
    return page


def react(
    s: System, user: str, page: Json, truth: Truth, *, likes: int, watches: dict[int, float], kind: str = ""
) -> None:
    """See the first SHOWN items, like the first `likes`, watch some (place -> fraction): sent, and noted."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    happened: list[tuple[str, int, float | None]] = [("impression", n, None) for n in range(SHOWN)]
    happened += [("like", n, None) for n in range(likes)]
    happened += [("watch", n, fraction) for n, fraction in watches.items()]
    events = [
        {"id": f"{page['request_id'][:8]}-0000-7000-8000-{n:012x}", "type": kind, "occurred_at": now,
         "item_id": page["items"][place]["id"], "request_id": page["request_id"], "position": place,
         **({} if value is None else {"value": value})}
        for n, (kind, place, value) in enumerate(happened)
    ]  # fmt: skip
    body = {"sent_at": now, "events": events}
    call = s.call("POST", "/v1/events", s.tenants[TENANT].publishable, json=body, headers={"Feed-User": user})
    assert read(call, 207)["accepted"] == len(events)
    mine = truth.sums[kind or page["mode"], user]
    mine[0] += SHOWN
    mine[1] += len(set(range(likes)) | {n for n, fraction in watches.items() if fraction >= 0.5})
    mine[2] += sum(watches.values())


@dataclass(frozen=True)
class Week:
    """A system, what its users did, and the moment it began."""

    s: System
    truth: Truth


@pytest.fixture(scope="module")
def week(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    """Six users with a cold start and then a taste, three held out, somebody anonymous, one made-up event; an
    experiment of two arms that differ in nothing."""
    truth, folder = Truth(), tmp_path_factory.mktemp("report")
    with system(folder, redis_database, {TENANT: VIDEOS}, env=QUICK) as s:
        words = "policy", "publish", policy_file(folder, POLICY), "--scope", TENANT, "--reason", "to see"
        version = answer(s.place, *words)["version"]
        secret = s.tenants[TENANT].secret
        told = {"explain": "1"}
        s.in_every_worker(
            lambda: s.call("GET", "/v1/feed", secret, params=told).json()["policy_version"] == f"0.{version}"
        )
        apart = (user_id(f"watcher{n}") for n in count())
        held_out = (user_id(f"held{n}") for n in count())
        for n, user in enumerate(islice((one for one in apart if not in_holdout(one)), 6)):
            react(s, user, page_of(s, user, truth), truth, likes=1 + n % 2, watches={0: 0.8, 3: 0.3})
            react(s, user, page_of(s, user, truth), truth, likes=2, watches={2: 0.5 + n / 20})
        for n, user in enumerate(islice((one for one in held_out if in_holdout(one)), 3)):
            react(s, user, page_of(s, user, truth), truth, likes=n, watches={1: 0.25})
        time.sleep(1.1)  # pages and events are dated in whole seconds
        react(s, user, page_of(s, user, truth), truth, likes=4, watches={}, kind=LATER)
        nobody = {
            "id": "00000000-0000-7000-8000-000000000001",
            "type": "like",
            "item_id": "v1",
            "request_id": "made-up",
        }
        made_up = {"events": [nobody | {"occurred_at": "2026-01-01T00:00:00Z"}]}
        headers = {"Feed-User": s.user_id("liar")}
        read(s.call("POST", "/v1/events", s.tenants[TENANT].publishable, json=made_up, headers=headers), 207)
        s.feed(TENANT)  # anonymous; the start of the system asked for some as well
        yield Week(s, truth)


def complete(week: Week) -> Json:
    """The report once everything is archived."""

    def all_there() -> bool:
        modes = {one["mode"]: one for one in report_of(week.s.place)["modes"]}
        seen = {mode: modes[mode]["ctr"]["n"] for mode in ("personalised", "cold_start", "holdout")}
        return seen == {"personalised": 6 * SHOWN, "cold_start": 6 * SHOWN, "holdout": 4 * SHOWN}

    eventually(all_there, within_s=WITHIN_S)
    return report_of(week.s.place)


def report_of(place: Place, *words: str) -> Json:
    """The only tenant's report."""
    [one] = answer(place, "report", *words)["tenants"]
    return dict(one)


def test_every_figure_is_what_happened(week: Week) -> None:
    """Adoption, pages, CTR and watch-through by mode, cold start against newcomers held out: as the users remember."""
    found = complete(week)
    modes = {one["mode"]: one for one in found["modes"]}
    for mode in ("personalised", "cold_start", "holdout"):
        kinds = (mode, LATER) if mode == "holdout" else (mode,)
        assert modes[mode]["ctr"]["value"] == pytest.approx(week.truth.ctr(*kinds))
        assert modes[mode]["watch_through"]["value"] == pytest.approx(week.truth.watch_through(*kinds), abs=1e-6)
        for figure in (modes[mode]["ctr"], modes[mode]["watch_through"]):
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert (modes["personalised"]["pages"], modes["personalised"]["users"]) == (6, 6)
    assert (modes["holdout"]["pages"], modes["holdout"]["users"]) == (4, 3)
    assert found["users"] == 9
    assert found["adoption"]["value"] == pytest.approx(6 / 9)
    gap = found["cold_start_minus_holdout"]
    assert gap["value"] == pytest.approx(week.truth.ctr("cold_start") - week.truth.ctr("holdout"))
    assert gap["low"] < gap["value"] < gap["high"]


def test_each_arm_has_the_figures_of_its_users(week: Week) -> None:
    """Those held out and the anonymous are in none; the second arm is held against the first, the control."""
    found = complete(week)["arms"]
    users = {user: arm(user) for kind, user in week.truth.sums if kind == "personalised"}
    assert [one["arm"] for one in found] == ["nothing.a", "nothing.b"]
    assert set(users.values()) == {"a", "b"}
    ctrs = {}
    for one in found:
        mine = [sums for (kind, user), sums in week.truth.sums.items() if users.get(user) == one["arm"][-1]]
        shown, taken, watched = (sum(column) for column in zip(*mine, strict=True))
        ctrs[one["arm"]] = taken / shown
        assert (one["users"], one["pages"], one["ctr"]["n"]) == (len(mine) / 2, len(mine), shown)
        assert one["ctr"]["value"] == pytest.approx(taken / shown)
        assert one["watch_through"]["value"] == pytest.approx(watched / shown, abs=1e-6)
    control, tried = (one["ctr_minus_control"] for one in found)
    assert control["value"] is None
    assert tried["value"] == pytest.approx(ctrs["nothing.b"] - ctrs["nothing.a"])
    assert tried["low"] < tried["value"] < tried["high"]
    out = command(week.s.place, "report", "--tenant", TENANT, env={"COLUMNS": "200"})[1]
    assert "nothing.a" in out and "minus control" in out


def test_the_catalogue_and_what_is_new(week: Week) -> None:
    """Coverage holds what was served; every video is new here, and the wait until its first page is in seconds."""
    found = complete(week)
    assert found["published"] == len(VIDEOS)
    assert found["coverage"] >= len(week.truth.served) / len(VIDEOS)
    assert (found["new_videos"], found["new_served"]) == (len(VIDEOS), round(found["coverage"] * len(VIDEOS)))
    assert 0 <= found["first_served_median_s"]["value"] <= found["first_served_p95_s"] < 120


def test_a_time_without_anybody(week: Week) -> None:
    """Last year there was nothing: every figure is absent, none is zero or a crash, and the table says so too."""
    found = report_of(week.s.place, "--until", "2025-11-01")
    assert (found["pages"], found["users"], found["adoption"]["value"], found["coverage"]) == (0, 0, None, 0)
    assert all(one["ctr"]["value"] is None and one["watch_through"]["value"] is None for one in found["modes"])
    assert found["cold_start_minus_holdout"]["value"] is None
    status, out, _ = command(week.s.place, "report", "--until", "2025-11-01")
    assert (status, TENANT in out) == (0, True)


def test_the_table_says_the_same(week: Week) -> None:
    """What a person reads are the figures of --json."""
    found = complete(week)
    ctr = next(one["ctr"] for one in found["modes"] if one["mode"] == "cold_start")
    status, out, errors = command(week.s.place, "report", "--tenant", TENANT, env={"COLUMNS": "200"})
    assert status == 0, errors
    assert f"{ctr['value']:.1%} ({ctr['low']:.1%} to {ctr['high']:.1%})" in out
    assert "6 of" not in out and f"of {len(VIDEOS)}" in out


def test_a_tenant_nobody_knows(week: Week) -> None:
    """One line that names those there are, and status 2."""
    status, _, errors = command(week.s.place, "report", "--tenant", "atlantis")
    assert (status, "atlantis" in errors, TENANT in errors) == (2, True, True)


def test_an_archive_that_was_never_written(week: Week, tmp_path: Path) -> None:
    """The first day: no events, no pages, an answer."""
    found: Any = json.loads(command(week.s.place, "report", "--json", env={"FEED_ARCHIVE_URL": str(tmp_path / "a")})[1])
    assert [one["pages"] for one in found["tenants"]] == [0]
