"""POST /v1/events: each event judged by itself, times corrected, bodies bounded, nothing acknowledged twice."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from retrieval.journal import Journal, Signal, parse
from service.events import MAX_BYTES, MAX_EVENTS, SIGNALS, SentEvent, _claimed_s
from tests.support.running import Json, System

TENANT, VIDEO = "news", "news-bread-1"


@pytest.fixture
def user(running: System) -> str:
    """Somebody nobody has seen yet, as an app would send them."""
    return running.user_id(str(uuid4()))


@pytest.fixture
def store(running: System) -> Iterator[redis.Redis]:
    """The store behind the running system."""
    client = redis.Redis.from_url(running.place.redis_url, protocol=2)
    yield client
    client.close()


def at(moment: datetime) -> str:
    """A time as an SDK writes it."""
    return moment.isoformat().replace("+00:00", "Z")


def now() -> datetime:
    return datetime.now(UTC)


def event(**more: Any) -> Json:
    """A like of a video that exists, just now."""
    return {"id": str(uuid4()), "type": "like", "item_id": VIDEO, "occurred_at": at(now()), **more}


def post(running: System, user: str | None, body: Any, **more: Any) -> httpx.Response:
    """Send a body as it is; `more` are headers."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Feed-User": user} if user else {}), **more}
    return running.call("POST", "/v1/events", running.tenants[TENANT].publishable, content=content, headers=headers)


def newest_journal(store: redis.Redis, before: set[bytes]) -> Journal:
    """The one journal that was not there before."""
    (name,) = set(journals(store)) - before
    content: Any = store.get(name)
    return parse(content)


def journals(store: redis.Redis) -> set[bytes]:
    """Names of the tenant's journals; the canary tenant's own viewers come and go beside it."""
    found: Any = store.keys(f"j:*:{TENANT}:*")
    return set(found)


@pytest.mark.parametrize("kind", sorted(SIGNALS))
def test_every_type_is_taken(running: System, store: redis.Redis, user: str, kind: str) -> None:
    """Each word of the contract is stored as its signal; a watch with how much was watched."""
    before = journals(store)
    answer = post(running, user, {"events": [event(type=kind, value=0.5)]})
    assert (answer.status_code, answer.json()) == (207, {"accepted": 1, "duplicate": 0, "rejected": []})
    (entry,) = newest_journal(store, before)
    assert entry["signal"] == Signal[kind.upper()]
    assert entry["strength"] == (128 if kind == "watch" else 255)


def test_each_event_is_judged_by_itself(running: System, user: str) -> None:
    """One bad event does not take the good ones with it, and says where it is and what is wrong."""
    bad: list[tuple[Any, str]] = [
        (event(type="stare"), "invalid"),
        (event(type="watch"), "invalid"),
        (event(type="watch", value=1.5), "invalid"),
        (event(id="42"), "invalid"),
        (event(item_id="no such video"), "unknown_item"),
        (event(occurred_at="yesterday"), "invalid"),
        (event(occurred_at="2026-01-01T00:00:00"), "invalid"),
        (event(position=-1), "invalid"),
        (event(request_id="somebody@example.com"), "invalid"),
        ("not an object", "invalid"),
        (None, "invalid"),
    ]
    good = event()
    answer = post(running, user, {"events": [good, *(value for value, _ in bad), good]})
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["duplicate"]) == (207, 1, 1)
    assert [(one["index"], one["code"]) for one in body["rejected"]] == [
        (index, code) for index, (_, code) in enumerate(bad, start=1)
    ]


def test_a_retry_is_a_duplicate(running: System, store: redis.Redis, user: str) -> None:
    """Sent three times, counted once."""
    before, batch = journals(store), {"events": [event(), event(type="share")]}
    found = [post(running, user, batch).json() for _ in range(3)]
    assert [(one["accepted"], one["duplicate"]) for one in found] == [(2, 0), (0, 2), (0, 2)]
    assert len(newest_journal(store, before)) == 2


@pytest.mark.parametrize(
    ("phone_is_ahead", "passed", "expected"),
    [
        (timedelta(0), timedelta(hours=1), timedelta(hours=1)),
        (timedelta(days=400), timedelta(hours=1), timedelta(hours=1)),
        (timedelta(days=-400), timedelta(minutes=5), timedelta(minutes=5)),
        (timedelta(0), timedelta(days=30), timedelta(days=7)),
        (timedelta(0), timedelta(days=-3), timedelta(0)),
    ],
)
def test_times_are_by_our_clock(
    running: System,
    store: redis.Redis,
    user: str,
    phone_is_ahead: timedelta,
    passed: timedelta,
    expected: timedelta,
) -> None:
    """What counts is how long ago the phone says it was, at most seven days and never in the future."""
    before, sent = journals(store), now() + phone_is_ahead
    post(running, user, {"sent_at": at(sent), "events": [event(occurred_at=at(sent - passed))]})
    at_s = newest_journal(store, before)["at_s"].astype(np.int64)
    assert abs(at_s[0] - (now() - expected).timestamp()) < 5


@given(
    page_ms=st.integers(1_700_000_000_000, 1_800_000_000_000),
    watched_ms=st.integers(0, 60_000),
    waited_ms=st.integers(0, 60_000),
    travelled_ms=st.integers(0, 2_000),
    wrong_s=st.integers(-1_000_000, 1_000_000),
)
def test_nothing_happens_before_the_page_that_showed_it(
    page_ms: int, watched_ms: int, waited_ms: int, travelled_ms: int, wrong_s: int
) -> None:
    """Whatever the device's clock says: by ours an event is no earlier than its page, in whole seconds, nor later than
    its arrival."""
    occurred_ms = page_ms + watched_ms
    sent_ms = occurred_ms + waited_ms
    arrived_s = (sent_ms + travelled_ms) // 1000
    occurred_at, sent_at = (datetime.fromtimestamp(ms / 1000 + wrong_s, UTC) for ms in (occurred_ms, sent_ms))
    sent = SentEvent.model_validate(event(occurred_at=at(occurred_at)))
    assert page_ms // 1000 <= _claimed_s(sent, sent_at, arrived_s) <= arrived_s


def test_bodies_are_bounded(running: System, user: str) -> None:
    """Too many, too long, packed too well, not packed at all, not JSON: each its own refusal, and nothing is taken."""
    padding = {"events": [event(padding="x" * 5000)] * 10}
    packed = gzip.compress(json.dumps(padding).encode())
    assert post(running, user, packed, **{"Content-Encoding": "gzip"}).json()["accepted"] == 1
    bomb = gzip.compress(b" " * (11 * MAX_BYTES))
    assert post(running, user, {"events": [event()] * (MAX_EVENTS + 1)}).status_code == 400
    assert post(running, user, {"events": []}).status_code == 400
    assert post(running, user, b" " * (MAX_BYTES + 1)).status_code == 413
    assert post(running, user, bomb, **{"Content-Encoding": "gzip"}).status_code == 413
    assert post(running, user, b"{}", **{"Content-Encoding": "gzip"}).status_code == 400
    assert post(running, user, b"{}", **{"Content-Encoding": "br"}).status_code == 400
    assert post(running, user, b"{").status_code == 400
    assert post(running, user, b"{}", **{"Content-Type": "text/plain"}).status_code == 415
    assert post(running, user, {"sent_at": "now", "events": [event()]}).status_code == 400


def test_addresses_are_refused_and_not_repeated(running: System) -> None:
    """Something that looks like a person in Feed-User is answered 400 without saying it again."""
    for name in ("somebody@example.com", "+49 171 5550123", "x" * 31):
        answer = post(running, name, {"events": [event()]})
        assert answer.status_code == 400
        assert name not in answer.text


def test_nobody_in_particular_may_send_events(running: System, store: redis.Redis) -> None:
    """Anonymous events are taken, and no journal comes of them."""
    before = journals(store)
    assert post(running, None, {"events": [event()]}).json()["accepted"] == 1
    assert journals(store) == before


def test_a_like_changes_the_next_feed(running: System, user: str) -> None:
    """An event counts at the next request, not after a batch job."""
    key, me = running.tenants[TENANT].publishable, {"Feed-User": user}
    before = running.call("GET", "/v1/feed", key, headers=me).json()
    item = before["items"][0]["id"]
    answer = post(running, user, {"events": [event(item_id=item, request_id=before["request_id"])]})
    assert answer.json()["accepted"] == 1
    after = running.call("GET", "/v1/feed", key, headers=me).json()
    assert after["mode"] == "personalised"
    assert item not in [one["id"] for one in after["items"]]


def test_without_a_store_nothing_is_acknowledged(running: System, store: redis.Redis, user: str) -> None:
    """503 with Retry-After, and the same ids are good afterwards."""
    batch = {"events": [event()]}
    store.config_set("maxmemory", 1)
    try:
        answer = post(running, user, batch)
    finally:
        store.config_set("maxmemory", 0)
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert post(running, user, batch).json()["accepted"] == 1


def test_a_key_of_a_tenant_reaches_its_own_videos_only(running: System, user: str) -> None:
    """Another tenant's video is unknown here."""
    answer = post(running, user, {"events": [event(item_id="talks-bread-1")]})
    assert [one["code"] for one in answer.json()["rejected"]] == ["unknown_item"]
