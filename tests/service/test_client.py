"""The reference client against the real service, and the moments in which it earns its keep."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import ATTEMPTS, Budget, FeedClient, Refused, Unreachable
from service.event_queue import EventQueue, event_id
from tests.support.running import user_id, video
from tests.support.served import Served, served

NOW_S = 1_800_000_000.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tenant of 250 videos: more than one frozen list."""
    tenants = {"acme": [video(f"v{n}", f"part {n}") for n in range(250)]}
    with served(tmp_path_factory.mktemp("client"), tenants) as started:
        yield started


@pytest.fixture
async def client(service: Served, tmp_path: Path) -> AsyncIterator[FeedClient]:
    """A client of that tenant."""
    async with FeedClient(service.base_url, service.keys["acme"].publishable, tmp_path / "events.jsonl") as started:
        yield started


class Scripted(httpx.AsyncBaseTransport):
    """Answers from a list, the last one for ever; None is a connection that breaks. Notes what it was asked."""

    def __init__(self, *answers: httpx.Response | None) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise httpx.ConnectError("away")
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def scripted(folder: Path, *answers: httpx.Response | None) -> tuple[FeedClient, Scripted, list[float]]:
    """A client of a script, the script, and the waits it made. Its clock stands still, its chance is 1."""
    script, waits = Scripted(*answers), list[float]()

    async def note(wait_s: float) -> None:
        waits.append(wait_s)

    client = FeedClient(
        "http://script", "pk_x", folder / "events.jsonl", httpx.AsyncClient(transport=script),
        clock=lambda: NOW_S, sleep=note, chance=lambda: 1.0,
    )  # fmt: skip
    return client, script, waits


def page(**more: str) -> httpx.Response:
    """An answer with one item."""
    body = {"request_id": "0" * 24, "mode": "personalised", "degraded": [], "items": [{"id": "a", "position": 0}]}
    headers = {"etag": 'W/"1"', "cache-control": "private, max-age=10"} | more
    return httpx.Response(200, headers=headers, json=body)


async def test_it_scrolls_to_the_end(client: FeedClient) -> None:
    """All 250 videos, each once, over more than one frozen list."""
    client.log_in(user_id("scroller"))
    shown = [item["id"] async for item in client.scroll(limit=40)]
    assert sorted(shown) == sorted(f"v{n}" for n in range(250))


async def test_it_gets_the_feed_that_is_nobodys_in_particular(client: FeedClient, service: Served) -> None:
    """Also while somebody is logged in: no user goes with it."""
    page = await client.default_feed("acme", limit=5)
    public = service.get("/v1/tenants/acme/feed/default", "acme", params={"limit": 5}).json()
    assert [item["id"] for item in page.items] == [item["id"] for item in public["items"]]
    assert page.body["mode"] == "fallback"


async def test_it_asks_whether_its_page_is_still_right(client: FeedClient, service: Served) -> None:
    """Within max-age nothing is asked, after it a 304 comes, after a like a new page, on refresh always."""
    client.log_in(user_id("cacher"))
    now_s = [NOW_S]
    client.clock = lambda: now_s[0]
    first = await client.feed()
    assert (await client.feed()).body is first.body
    now_s[0] += 11
    confirmed = await client.feed()
    assert confirmed.body is first.body
    assert confirmed.fresh_until_s > first.fresh_until_s
    client.clock = lambda: service.now_s
    client.track("like", first.items[0])
    assert await client.flush() == 1
    now_s[0] += 11
    client.clock = lambda: now_s[0]
    changed = await client.feed()
    assert changed.body["request_id"] != first.body["request_id"]
    assert first.items[0]["id"] not in {item["id"] for item in changed.items}
    assert (await client.feed("refresh")).body["request_id"] != changed.body["request_id"]


async def test_what_it_reports_counts(client: FeedClient, service: Served) -> None:
    """Events of 250 items go out in batches and are all taken: the user has seen everything then."""
    client.log_in(user_id("watcher"))
    client.clock = lambda: service.now_s
    async for item in client.scroll(limit=50):
        client.track("impression", item)
    assert await client.flush() == 250
    assert (await client.feed("refresh")).body["degraded"] == ["all_seen"]


async def test_events_survive_a_restart_with_their_ids(service: Served, tmp_path: Path) -> None:
    """A client that never got its answer sends the same ids after its restart, and nothing counts twice."""
    path = tmp_path / "events.jsonl"
    away, _, _ = scripted(tmp_path, None)
    away.user = user_id("restarter")
    sent = [away.track("like", {"id": f"v{n}"}) for n in range(3)]
    assert await away.flush() == 0
    async with FeedClient(service.base_url, service.keys["acme"].publishable, path, user=away.user) as again:
        assert [one.event["id"] for one in again._events.batch()] == sent
        copy = path.read_bytes()
        assert await again.flush() == 3
    assert path.read_bytes() == b""
    path.write_bytes(copy)  # killed after the answer and before it was noted
    async with FeedClient(service.base_url, service.keys["acme"].publishable, path, user=away.user) as third:
        body = {"events": [one.event for one in third._events.batch()]}
        answer = service.call("POST", "/v1/events", "acme", user="restarter", json=body)
        assert answer.json() == {"accepted": 0, "duplicate": 3, "rejected": []}


async def test_log_out_forgets_and_keeps_events_with_their_user(tmp_path: Path) -> None:
    """The next user gets none of the pages, and what could not be sent goes out under the name it happened under."""
    client, script, _ = scripted(tmp_path, page())
    client.log_in(user_id("first"))
    await client.feed()
    client.track("like", {"id": "a"})
    script.answers = [httpx.Response(503, headers={"retry-after": "1"})]
    await client.log_out()
    client.log_in(user_id("second"))
    client.track("like", {"id": "b"})
    script.answers, script.asked = [httpx.Response(207, json={})], []
    assert await client.flush() == 2
    assert [request.headers["feed-user"] for request in script.asked] == [user_id("first"), user_id("second")]
    script.answers, script.asked = [page()], []
    await client.feed()
    assert "if-none-match" not in script.asked[0].headers


async def test_it_shows_what_it_has_when_nobody_answers(tmp_path: Path) -> None:
    """The kept page, marked as stale; without one the caller is told."""
    client, script, _ = scripted(tmp_path, page())
    await client.feed()
    client.clock = lambda: NOW_S + 60
    script.answers = [None]
    kept = await client.feed()
    assert (kept.stale, [item["id"] for item in kept.items]) == (True, ["a"])
    with pytest.raises(Unreachable):
        await client.feed(language="de")


async def test_a_fallback_is_not_kept(tmp_path: Path) -> None:
    """A page without a tag is shown once."""
    answer = page()
    del answer.headers["etag"]
    client, script, _ = scripted(tmp_path, answer)
    await client.feed()
    client.clock = lambda: NOW_S + 60
    script.answers = [None]
    with pytest.raises(Unreachable):
        await client.feed()


@pytest.mark.parametrize("answer", [None, httpx.Response(503), httpx.Response(429)])
async def test_it_tries_again_a_little(tmp_path: Path, answer: httpx.Response | None) -> None:
    """Three attempts in all, waiting longer each time."""
    client, script, waits = scripted(tmp_path, answer)
    with pytest.raises(Unreachable):
        await client.feed()
    assert len(script.asked) == ATTEMPTS
    assert waits == sorted(waits) == [0.4, 0.8]


async def test_it_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    """Retry-After counts when it is longer than its own back-off."""
    client, _, waits = scripted(tmp_path, httpx.Response(429, headers={"retry-after": "4"}), page())
    assert (await client.feed()).items
    assert waits == [4.0]


async def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    """400 to 404: asked once, with the problem's type for whoever wrote the app."""
    problem = {"type": "/problems/unauthenticated", "detail": "no"}
    answer = httpx.Response(401, headers={"content-type": "application/problem+json"}, json=problem)
    client, script, waits = scripted(tmp_path, answer)
    with pytest.raises(Refused) as refused:
        await client.feed()
    assert (refused.value.status, refused.value.kind) == (401, "unauthenticated")
    assert (len(script.asked), waits) == (1, [])


async def test_retries_end_with_the_budget(tmp_path: Path) -> None:
    """In a long outage the requests themselves are all there is, and a tenth of them once more."""
    client, script, _ = scripted(tmp_path, None)
    for _ in range(100):
        with pytest.raises(Unreachable):
            await client.feed()
    assert len(script.asked) <= 100 + 5 + 10


async def test_a_poisoned_batch_does_not_block_the_queue(tmp_path: Path) -> None:
    """A batch refused as a whole is given up, one that is too large is halved, a bad key waits for a better one."""
    client, script, _ = scripted(tmp_path, httpx.Response(400))
    client.track("like", {"id": "a"})
    assert (await client.flush(), len(client._events)) == (0, 0)
    for n in range(4):
        client.track("like", {"id": f"{n}"})
    script.answers = [httpx.Response(413), httpx.Response(207, json={})]
    assert (await client.flush(), len(client._events)) == (4, 0)
    client.track("like", {"id": "a"})
    script.answers = [httpx.Response(401)]
    assert (await client.flush(), len(client._events)) == (0, 1)


async def test_it_waits_for_user_state_that_is_away(service: Served, client: FeedClient) -> None:
    """Redis stands still in the middle of a scroll and comes back: the scroll goes on, nothing twice, nothing lost."""
    client.log_in(user_id("patient"))
    shown: list[str] = []
    with service.without_redis():
        loop = asyncio.get_running_loop()
        async for item in client.scroll(limit=50):
            shown.append(item["id"])
            if len(shown) == 200:
                loop.call_later(0.3, lambda: service.redis.process.send_signal(18))  # SIGCONT
    assert sorted(shown) == sorted(f"v{n}" for n in range(250))


def test_the_budget_is_earned() -> None:
    """Ten requests buy a retry, and no more than ten are ever saved up."""
    budget = Budget(left=0)
    assert not budget.spend()
    for _ in range(10):
        budget.earn()
    budget.left = round(budget.left, 9)
    assert budget.spend()
    assert not budget.spend()
    for _ in range(1000):
        budget.earn()
    assert budget.left == budget.most


@given(st.data())
def test_whatever_was_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut the file anywhere: what was added and not done before the cut is there, in order, with its ids."""
    path = tmp_path_factory.mktemp("queue") / "events.jsonl"
    queue = EventQueue(path)
    states: list[tuple[int, list[str]]] = [(0, [])]
    keep = queue.add(None, "like", item_id="keep", request_id="", position=None, value=None, at_s=NOW_S)
    waiting = [keep]
    states.append((path.stat().st_size, list(waiting)))
    for step in data.draw(st.lists(st.booleans(), max_size=12)):
        if step:
            waiting.append(queue.add("u", "watch", item_id="é", request_id="r", position=1, value=0.5, at_s=NOW_S))
        elif len(waiting) > 1:
            gone = next(one for one in queue._waiting if one.event["id"] == waiting[1])
            queue.done([gone])
            del waiting[1]
        states.append((path.stat().st_size, list(waiting)))
    cut = data.draw(st.integers(0, path.stat().st_size))
    path.write_bytes(path.read_bytes()[:cut])
    again = EventQueue(path)
    expected = [state for size, state in states if size <= cut][-1]
    found = [one.event["id"] for one in again._waiting]
    # A line that lacks only its line break is whole.
    nearly = [state for size, state in states if size <= cut + 1][-1]
    assert found in (expected, nearly)
    again.add(None, "like", item_id="x", request_id="", position=None, value=None, at_s=NOW_S)
    assert [one.event["id"] for one in EventQueue(path)._waiting][: len(found)] == found


@given(st.floats(0, 4e9))
def test_event_ids_are_uuids_of_version_7(at_s: float) -> None:
    """In the order of time, and each another one."""
    one, two = uuid.UUID(event_id(at_s)), uuid.UUID(event_id(at_s))
    assert one.version == 7
    assert one.variant == uuid.RFC_4122
    assert one != two
    assert one.int >> 80 == int(at_s * 1000)
