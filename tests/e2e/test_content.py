"""From the CMS to the feed and back: the real daemon, the real service with two workers, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.running import POISON, Json, System, eventually, read, system, video
from tests.support.tiny_encoder import TinyEncoder

WITHIN_S = 5.0
"""How soon a change must be in every worker's feed."""


def test_a_new_video_is_visible_in_every_worker(running: System) -> None:
    """Within seconds of the answer of the PUT, and its card is what was put."""
    running.put(
        "news", video("new-1", "volcano eruption filmed from above", duration_s=41, creator="Ada", tags=["lava"])
    )
    running.visible("news", "new-1", within_s=WITHIN_S)
    [card] = [item for item in running.feed("news", limit=50)["items"] if item["id"] == "new-1"]
    expected = {"title": "volcano eruption filmed from above", "duration_s": 41, "creator": "Ada", "tags": ["lava"]}
    assert {name: card[name] for name in expected} == expected


def test_a_changed_video_is_changed_in_every_worker(running: System) -> None:
    """Its new title is shown, and its old one by nobody."""
    running.put("news", video("edited", "before the edit"))
    running.visible("news", "edited", within_s=WITHIN_S)
    running.put("news", video("edited", "after the edit"))

    def changed() -> bool:
        titles = {item["id"]: item["title"] for item in running.feed("news", limit=50)["items"]}
        return titles.get("edited") == "after the edit"

    running.in_every_worker(changed, within_s=WITHIN_S)


def test_a_take_down_is_gone_from_every_worker(running: System) -> None:
    """Deleted, or made a draft again: nobody is shown it, and putting it again brings it back."""
    running.put("news", video("away", "soon away"), video("hidden", "soon hidden"))
    for name in ("away", "hidden"):
        running.visible("news", name, within_s=WITHIN_S)
    running.delete("news", "away")
    running.put("news", video("hidden", "soon hidden", status="draft"))
    for name in ("away", "hidden"):
        running.gone("news", name, within_s=WITHIN_S)
    running.put("news", video("away", "soon away"))
    running.visible("news", "away", within_s=WITHIN_S)


def test_likes_turn_the_next_feed(running: System) -> None:
    """A few likes on one topic: the very next page is mostly about it, for this user and for nobody else."""
    cold = running.feed("talks", user="before")
    assert cold["mode"] == "cold_start"
    chess = [f"talks-chess-{n}" for n in range(4)]
    assert running.events("talks", "fan", *(("like", each) for each in chess))["accepted"] == 4
    page = running.feed("talks", user="fan", limit=6)
    assert page["mode"] == "personalised"
    topics = [item["tags"][0] for item in page["items"]]
    assert topics.count("chess") >= 3, topics
    assert topics[0] == "chess"
    assert not {item["id"] for item in page["items"]} & set(chess), "what was liked was seen"
    assert running.feed("talks", user="somebody else")["mode"] == "cold_start"


def test_everything_allowed_is_shown_before_the_feed_ends(running: System) -> None:
    """Page after page of what a user has not seen, each video once."""
    seen: set[str] = set()
    while page := running.ids("talks", "reader", limit=15):
        assert not seen & set(page)
        running.events("talks", "reader", *(("impression", each) for each in page))
        seen |= set(page)
    assert len(seen) == 40
    assert running.feed("talks", "reader")["degraded"] == ["all_seen"]


# --- bad input

GOOD = video("good-neighbour", "nothing wrong here")
POISONED: dict[str, tuple[Json, str]] = {
    "empty title": (video("bad", ""), "/title"),
    "5 MB text": (video("bad", "long", description="x" * 5_000_000), "/description"),
    "lone surrogate": (video("bad", "a \ud800 b"), "/title"),
    "NUL": (video("bad", "a \x00 b"), "/title"),
    "zero vector": (video("bad", "v", vector=[0.0] * TinyEncoder.dim), "/vector"),
    "NaN in a vector": (video("bad", "v", vector=[float("nan")] * TinyEncoder.dim), "/vector/0"),
    "infinity in a vector": (video("bad", "v", vector=[float("inf")] * TinyEncoder.dim), "/vector/0"),
    "wrong dimension": (video("bad", "v", vector=[1.0] * 7), "/vector"),
    "no title": ({"id": "bad", "media_url": "https://cdn.example/a.mp4"}, "/title"),
    "no object": ("bad", ""),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("what", POISONED)
def test_a_bad_video_is_refused_by_name_and_its_neighbour_taken(running: System, what: str) -> None:
    """Alone it is a 422 that names the field; in a batch a 207, and the good one is stored and shown."""
    bad, pointer = POISONED[what]
    problem = running.put("news", bad, expect=422)
    assert problem["errors"][0]["pointer"] == f"/videos/0{pointer}"
    good = GOOD | {"id": f"beside {what}"}
    answer = running.put("news", bad, good, expect=207)
    assert [one["status"] for one in answer["results"]] == ["rejected", "created"]
    assert answer["results"][0]["errors"][0]["pointer"] == f"/videos/0{pointer}"
    assert running.stored("news", good["id"])["title"] == GOOD["title"]
    running.delete("news", good["id"])


def test_an_id_twice_in_one_batch_is_refused_both_times(running: System) -> None:
    """Nobody knows which one was meant; the third video is taken."""
    answer = running.put("news", video("twice", "a"), video("once", "b"), video("twice", "c"), expect=207)
    assert [one["status"] for one in answer["results"]] == ["rejected", "created", "rejected"]
    assert "2 times" in answer["results"][0]["errors"][0]["detail"]
    running.delete("news", "once")


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "", "1e9", "٣", "1000000000"])
def test_a_limit_that_is_no_number_is_a_400_that_names_it(running: System, limit: str) -> None:
    """The next request is answered as ever."""
    key = running.tenants["news"].publishable
    problem = read(running.call("GET", "/v1/feed", key, params={"limit": limit}), 400)
    assert problem["errors"][0]["pointer"] == "/query/limit"
    assert running.ids("news")


def test_a_large_limit_is_brought_down(running: System) -> None:
    """A thousand is a wish for as much as there is; the page is as long as pages get."""
    assert len(running.ids("news", limit=1000)) == len(running.ids("news", limit=50))


def test_a_wrong_key_is_a_401(running: System) -> None:
    """Nonsense, a key cut short, one never given out; a key of the wrong kind is a 403."""
    keys = running.tenants["news"]
    for key in ("nonsense", keys.publishable[:-1], "pk_" + "A" * 43):
        assert running.call("GET", "/v1/feed", key).status_code == 401
    assert running.call("GET", "/v1/feed", keys.secret).status_code == 403
    assert running.call("PUT", "/v1/admin/videos", keys.publishable, json={"videos": [GOOD]}).status_code == 403


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'{"videos": []}', 400),
        (b'{"videos": "all"}', 400),
        (b"[" * 100_000, 400),
        (b'{"videos": [%s]}' % b",".join([b"{}"] * 1001), 400),
        (b'{"videos": ["' + b"x" * (17 << 20) + b'"]}', 413),
    ],
    ids=["empty", "cut", "a list", "no videos", "no list", "deep", "too many", "too large"],
)
def test_a_body_that_is_no_batch_is_refused(running: System, content: bytes, status: int) -> None:
    """A problem document, and nothing stored."""
    headers = {"Content-Type": "application/json"}
    key = running.tenants["news"].secret
    answer = running.call("PUT", "/v1/admin/videos", key, content=content, headers=headers)
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert running.ids("news")


BAD_EVENTS: dict[str, Any] = {
    "no object": 7,
    "no id": {"type": "like", "item_id": "talks-chess-1"},
    "unknown type": {"type": "adore"},
    "unknown item": {"item_id": "no-such-video"},
    "surrogate": {"item_id": "\ud800"},
    "no time": {"occurred_at": "yesterday"},
    "watch without value": {"type": "watch"},
    "value beyond 1": {"type": "watch", "value": 7},
    "NaN": {"type": "watch", "value": float("nan")},
}


def test_bad_events_are_refused_one_by_one(running: System) -> None:
    """Each with its place in the batch and a reason; the good one among them is accepted, and counts."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    good = {"id": str(uuid4()), "type": "like", "item_id": "talks-chess-1", "occurred_at": now}
    sent = [good | {"id": str(uuid4())} | one if isinstance(one, dict) else one for one in BAD_EVENTS.values()]
    sent[1] = BAD_EVENTS["no id"]
    body = json.dumps({"events": [*sent, good]}).encode()
    headers = {"Feed-User": running.user_id("odd"), "Content-Type": "application/json"}
    key = running.tenants["talks"].publishable
    outcome = read(running.call("POST", "/v1/events", key, content=body, headers=headers), 207)
    assert outcome["accepted"] == 1
    assert [one["index"] for one in outcome["rejected"]] == list(range(len(BAD_EVENTS)))
    assert all(one["detail"] for one in outcome["rejected"])
    assert running.feed("talks", "odd")["mode"] == "personalised"


# --- poison, and the real model


def test_a_text_that_cannot_be_embedded_is_listed_and_mended(running: System) -> None:
    """Its neighbours are shown; the CMS finds it under `quarantined`; with other words it is shown as well."""
    running.put("news", video("healthy", "bread"), video("poisoned", POISON))
    running.visible("news", "healthy")
    key = running.tenants["news"].secret

    def listed() -> list[str]:
        answer = running.call("GET", "/v1/admin/videos", key, params={"status": "quarantined"})
        return [one["id"] for one in read(answer, 200)["videos"]]

    assert "poisoned" not in running.ids("news", limit=50)
    assert listed() == ["poisoned"]
    assert POISON in running.stored("news", "poisoned")["quarantine"]
    running.put("news", video("poisoned", "mended"))
    running.visible("news", "poisoned")
    assert listed() == []


TOPICS = {
    "baking": ["Sourdough bread at home", "Baguettes with a crisp crust", "Kneading dough by hand", "Rye loaf recipe",
               "How yeast makes bread rise", "Baking focaccia with olive oil", "Oven tricks for better buns"],
    "astronomy": ["The rings of Saturn", "How stars are born", "A telescope for beginners", "Black holes explained",
                  "Mapping the Milky Way", "Meteor showers this year", "The moons of Jupiter"],
    "football": ["Best goals of the season", "How to take a penalty kick", "Goalkeeper training drills",
                 "World cup final highlights", "Offside rule explained", "Dribbling past defenders",
                 "Corner kick tactics"],
}  # fmt: skip


@pytest.fixture
def with_minilm(tmp_path: Path, redis_url: str) -> Iterator[System]:
    """The default model, as it is shipped."""
    videos = [video(f"{topic}-{n}", title) for topic, titles in TOPICS.items() for n, title in enumerate(titles)]
    with system(tmp_path, redis_url, {"acme": videos}, model="all-MiniLM-L6-v2", dim=384) as s:
        yield s


def test_with_the_real_model_likes_find_what_is_alike_in_meaning(with_minilm: System) -> None:
    """Three liked videos on one topic: the others on it come first, although they share no words."""
    s = with_minilm
    for topic, titles in TOPICS.items():
        s.events("acme", f"fan of {topic}", *(("like", f"{topic}-{n}") for n in range(3)))
        page = s.ids("acme", f"fan of {topic}", limit=20)
        first = page[: len(titles) - 3]
        assert sum(one.startswith(topic) for one in first) >= 3, (topic, page)
    s.put("acme", video("late", "Shaping and scoring a country loaf"))
    s.visible("acme", "late")
    page = s.ids("acme", "fan of baking")
    assert page.index("late") < len(page) / 2


def test_the_service_lives_through_all_of_it(running: System) -> None:
    """Same workers as at the start, no traceback in any log, and the indexer up to date."""
    eventually(lambda: running.indexer("status")[0] == 0)
    assert len(running.workers()) == 2
    for child in (*running.daemons, *([running.service] if running.service else [])):
        assert not child.ended
        assert b"Traceback" not in child.log.read_bytes()
    assert httpx.get(f"http://127.0.0.1:{running.health_port}/readyz").status_code == 200
