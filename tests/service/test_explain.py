"""Explanations: of a page, of one that was answered, and of what is not there; from the same arrays as the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from retrieval.database import connect
from retrieval.policies import Policies
from tests.support.running import Json, System, eventually, finished, read, system, video

TENANT = "why"
POLICY: Json = {
    "weights": {"similarity": 2.0},
    "rules": [
        {"id": "top", "kind": "pin", "target": {"items": ["bread-19"]}, "effect": {"position": 2}, "reason": "sponsor"},
        {"id": "push", "kind": "boost", "target": {"filter": {"tag": ["chess"]}}, "effect": {"factor": 3}},
        {"id": "never", "kind": "block", "target": {"items": ["bread-0"]}},
        {"id": "quota", "kind": "promote", "target": {"filter": {"tag": ["trains"]}}, "effect": {"percent": 20}},
    ],
}


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose tenant has rules of several kinds."""
    topics = ("bread", "trains", "chess")
    videos = [
        video(
            f"{topic}-{n}",
            f"{topic} {topic} part {n}",
            tags=[topic],
            creator=f"{topic} {n % 9}",
            ratings=[{"system": "FSK", "value": "0"}],
            **({"available_until": "2020-01-01T00:00:00Z"} if (topic, n) == ("bread", 1) else {}),
        )
        for topic in topics
        for n in range(100)
    ]
    videos[2]["ratings"] = []
    with system(tmp_path_factory.mktemp("why"), redis_database, {TENANT: videos}) as running:

        async def publish() -> None:
            engine = connect(running.place.database_url)
            await Policies(engine).publish(TENANT, POLICY, "ada", "test", 0, 1)
            await engine.dispose()

        finished(publish())
        running.in_every_worker(lambda: running.ids(TENANT)[2] == "bread-19")
        yield running


def explained(s: System, user: str | None = None, **query: Any) -> Json:
    """GET /v1/feed?explain=1 with the secret key."""
    headers = {"Feed-User": s.user_id(user)} if user else {}
    asked = {"explain": "1", **query}
    return read(s.call("GET", "/v1/feed", s.tenants[TENANT].secret, params=asked, headers=headers), 200)


def missing(s: System, item: str, user: str | None = None, **query: Any) -> Json:
    """What is said about one item."""
    [said] = explained(s, user, item=item, **query)["asked_about"]
    found: Json = said
    return found


def test_it_explains_the_page_that_the_user_gets(s: System) -> None:
    """The same items in the same order under the same mode, for a cold and for a known user."""
    cold = explained(s)
    assert [one["id"] for one in cold["items"]] == s.ids(TENANT)
    assert cold["mode"] == "cold_start"
    s.events(TENANT, "pia", ("like", "trains-5"), ("like", "trains-7"), ("not_interested", "chess-3"))
    why = explained(s, "pia")
    assert [one["id"] for one in why["items"]] == s.ids(TENANT, "pia")
    assert why["mode"] == "personalised"


def test_the_numbers_add_up(s: System) -> None:
    """Feature x weight sums to the base; the base times the factor is the score; value x weight is what it adds."""
    s.events(TENANT, "tom", ("like", "bread-5"), ("like", "bread-7"))
    for one in explained(s, "tom")["items"]:
        assert sum(part["contribution"] for part in one["features"]) == pytest.approx(one["base"], abs=1e-4)
        assert one["score"] == pytest.approx(one["base"] * one["factor"], abs=1e-3)
        for part in one["features"]:
            if part["weight"]:
                assert part["value"] * part["weight"] == pytest.approx(part["contribution"], abs=1e-4)
                assert -1e-6 <= part["value"] <= 1 + 1e-6
        [similarity] = [part for part in one["features"] if part["feature"] == "similarity"]
        assert (similarity["weight"], similarity["weight_from"]) == (2.0, "tenant")
        assert one["sources"]
        for source in one["sources"]:
            assert source["rank"] is None or source["rank"] >= 1


def test_rules_say_what_they_did(s: System) -> None:
    """A pin from where to where, a boost with ranks and scores before and after, a promotion by its slot."""
    s.events(TENANT, "rob", ("like", "chess-5"), ("like", "chess-7"))
    page = explained(s, "rob")["items"]
    [pin] = page[2]["rules"]
    assert (page[2]["placed_by"], pin["rule"], pin["why"], pin["rank_after"]) == ("pin", "top", "sponsor", 3)
    assert pin["rank_before"] > 3
    boosted = next(one for one in page if any(rule["rule"] == "push" for rule in one["rules"]))
    [push] = boosted["rules"]
    assert push["factor"] == 3
    assert push["score_after"] == pytest.approx(3 * push["score_before"], abs=1e-3)
    assert push["rank_after"] <= push["rank_before"]
    assert sum(one["id"].startswith("trains") for one in page) >= 3


def test_why_something_is_not_there(s: System) -> None:
    """Each reason by name: blocked, over, too grown-up, seen, rejected, unknown, not brought, further down."""
    s.events(TENANT, "eva", ("complete", "bread-7"), ("not_interested", "bread-8"))
    assert missing(s, "bread-0")["missing"] == {"code": "blocked", "why": "a rule blocks it: never"}
    assert missing(s, "bread-1")["missing"]["code"] == "expired"
    assert missing(s, "bread-2", age_band="13-15")["missing"]["code"] == "maturity"
    assert missing(s, "bread-7", "eva")["missing"]["code"] == "seen"
    assert missing(s, "bread-8", "eva")["missing"]["code"] == "rejected"
    assert missing(s, "nobody")["missing"]["code"] == "not_indexed"
    asked = [explained(s, item=[f"{topic}-{n}" for n in range(20, 40)]) for topic in ("bread", "trains", "chess")]
    said = [one for answer in asked for one in answer["asked_about"]]
    codes = {one.get("missing", {}).get("code", "further down") for one in said}
    assert {"further down", "no_source"} <= codes <= {"further down", "no_source", "no_room", "capped"}


def test_an_answered_page_can_be_explained_later(s: System) -> None:
    """By its request id, with the journal as it was then: what the user did since changes nothing."""
    s.events(TENANT, "kim", ("like", "chess-5"), ("like", "chess-7"), ("complete", "trains-30"))
    page = s.feed(TENANT, "kim", limit=10)
    s.events(TENANT, "kim", ("complete", page["items"][0]["id"]), ("complete", "trains-31"))
    path, secret = f"/v1/explain/{page['request_id']}", s.tenants[TENANT].secret
    eventually(lambda: s.call("GET", path, secret).status_code == 200)
    why = read(s.call("GET", path, secret, params={"item": ["bread-0", "trains-30", "trains-31"]}), 200)
    assert [one["id"] for one in why["items"]] == [one["id"] for one in page["items"]]
    blocked, seen, seen_later = (one.get("missing", {}).get("code") for one in why["asked_about"])
    assert (blocked, seen) == ("blocked", "seen")
    assert seen_later != "seen"
    assert why["identical"]
    assert s.user_id("kim") not in str(why)


def test_only_the_tenants_own_servers_may_ask(s: System) -> None:
    """Not an app's key, and nobody's request ids but one's own."""
    page = s.feed(TENANT)
    assert s.call("GET", "/v1/feed?explain=1", s.tenants[TENANT].publishable).status_code == 403
    assert s.call("GET", f"/v1/explain/{page['request_id']}", s.tenants[TENANT].publishable).status_code == 403
    assert s.call("GET", "/v1/explain/0123", s.tenants[TENANT].secret).status_code == 404
    many = "&".join(f"item={n}" for n in range(21))
    assert s.call("GET", f"/v1/feed?explain=1&{many}", s.tenants[TENANT].secret).status_code == 400
