"""Replay: whatever happened since, a page that was served is made again item by item; and what is gone is named."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS
from retrieval.database import connect
from retrieval.errors import NotFound
from retrieval.journal import Journals
from retrieval.policies import Policies
from retrieval.popularity_log import PopularityLog
from retrieval.serve_log import ServeLog
from retrieval.serves import MOST_DOWN, Serve
from service.explain import video_ids
from service.past import Gone, Past
from service.replay import Replay, replay
from tests.service.test_operator import command
from tests.support.behaving import habits
from tests.support.running import WITHIN_S, Json, eventually, finished, video
from tests.support.served import Served, served

TENANT = "acme"
VIDEOS = 260
TOPICS = ("bread", "trains", "chess", "gardens")
DAY_S = 86_400


def talk(number: int) -> Json:
    """A video; every fifth is not for children, every seventh only for Germany."""
    topic = TOPICS[number % len(TOPICS)]
    return video(
        f"v{number}",
        f"{topic} {topic} part {number}",
        tags=[topic],
        creator=f"c{number % 30}",
        language=("en", "de")[number % 2],
        ratings=[{"system": "FSK", "value": "16" if number % 5 == 0 else "0"}],
        **({"countries": ["DE"]} if number % 7 == 0 else {}),
    )


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    """A tenant with more videos than one list holds."""
    with served(tmp_path, {TENANT: [talk(n) for n in range(VIDEOS)]}) as started:
        yield started


@asynccontextmanager
async def opened_past(service: Served) -> AsyncIterator[Past]:
    """The last day of a service, as another program reads it."""
    folder, engine = service.place.folder, connect(service.place.database_url)
    async with Redis.from_url(service.place.redis_url, protocol=2) as redis:
        yield Past(
            ServeLog(redis, str(folder / "archive")),
            Journals(redis),
            Policies(engine),
            service.place.store,
            PopularityLog(folder / "snapshots"),
            service.resources.live.view,
        )
    await engine.dispose()


async def logged(past: Past, request_id: str, now_s: int) -> Serve:
    """The page in the serve log, which is written after the answer."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            return await past.serves.find(request_id, now_s=now_s)
        except NotFound:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def replayed(service: Served, *pages: Json, own: Json | None = None) -> list[Replay]:
    """The pages made again; `own`: and under this policy of the tenant."""

    async def again() -> list[Replay]:
        async with opened_past(service) as past:
            found = [await logged(past, page["request_id"], service.now_s) for page in pages]
            other = [None if own is None else await past.policy(serve, own) for serve in found]
            return [await replay(past, serve, policy) for serve, policy in zip(found, other, strict=True)]

    return finished(again())


def differing(service: Served, pages: list[Json]) -> list[str]:
    """What is not the same when it is made again: ids and reasons are held against what the client got."""
    wrong = []
    for page, again in zip(pages, replayed(service, *pages), strict=True):
        got = [(item["id"], item["reason"]) for item in page["items"]]
        made = list(zip(video_ids(again.made.listed.view, again.made.items), again.made.page.reasons, strict=True))
        if got != made or not again.identical:
            wrong.append(f"{page['mode']} at {page['items'][0]['position']}: {got} but {made}")
    return wrong


class Story:
    """What users, editors and the indexer do to a service, drawn from a seed; every page with items is noted."""

    def __init__(self, service: Served, seed: int) -> None:
        self.service = service
        self.chance = random.Random(seed)
        self.pages: list[Json] = []
        self.open: dict[str, Json] = {}
        self.next_video = VIDEOS

    def asked(self, user: str | None, **query: Any) -> Json:
        """A page of a user."""
        refresh = {"Feed-Reason": "refresh"} if self.chance.random() < 0.3 else {}
        governor = self.service.resources.governor
        narrow_s, plain_s = self.chance.choice([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
        governor.limits = dataclasses.replace(governor.limits, narrow_s=narrow_s, plain_s=plain_s)
        page = self.service.feed(TENANT, user, headers=refresh, **query)
        if page["items"]:
            self.pages.append(page)
        return page

    def step(self) -> None:
        """One thing that happens."""
        doing = self.chance.choices(
            [self.first, self.scroll, self.engage, self.content, self.policy, self.count, self.wait],
            [6, 6, 6, 1, 1, 1, 1],
        )[0]
        doing()

    def user(self) -> str | None:
        return self.chance.choice(["ada", "bo", "cy", None])

    def first(self) -> None:
        user = self.user()
        hints: Json = {"country": ["DE", "US"], "age_band": ["13-15", "18+"], "language": ["de"], "surface": ["home"]}
        given = {name: self.chance.choice(values) for name, values in hints.items() if self.chance.random() < 0.3}
        page = self.asked(user, limit=self.chance.randint(3, 50), **given)
        self.open[str(user)] = {"user": user, "given": given, "page": page}

    def scroll(self) -> None:
        if not self.open:
            return
        one = self.open[self.chance.choice(list(self.open))]
        for _ in range(self.chance.randint(1, 7)):  # over the end of a list of 200
            if "next_cursor" not in one["page"]:
                return
            cursor = one["page"]["next_cursor"]
            page = self.asked(one["user"], cursor=cursor, limit=self.chance.randint(20, 50), **one["given"])
            if self.chance.random() < 0.8:  # else the same cursor is used again
                one["page"] = page

    def engage(self) -> None:
        user, seen = self.chance.choice(["ada", "bo", "cy"]), self.pages[-3:]
        items = [item["id"] for page in seen for item in page["items"]]
        kinds = ["watch", "complete", "like", "skip", "not_interested", "impression"]
        told = [(self.chance.choice(kinds), item) for item in self.chance.sample(items, min(4, len(items)))]
        if told:
            self.service.events(TENANT, user, *((kind, item) for kind, item in told if kind != "watch"))

    def content(self) -> None:
        self.service.take_down(TENANT, f"v{self.chance.randrange(VIDEOS)}", publish=self.chance.random() < 0.5)
        if self.chance.random() < 0.7:
            self.service.put(TENANT, talk(self.next_video))
            self.next_video += 1

    def policy(self) -> None:
        rule = {"id": "no", "kind": "block", "target": {"items": [f"v{self.chance.randrange(VIDEOS)}"]}}
        weight = round(self.chance.uniform(0.1, 3), 2)
        self.service.set_policy(TENANT, {"weights": {"similarity": weight}, "rules": [rule]})

    def count(self) -> None:
        self.service.archive()

    def wait(self) -> None:
        self.service.now_s += self.chance.choice([1, 60, 3000, 5000])


@pytest.mark.parametrize("seed", [1, 2])
def test_every_page_of_a_lively_day_is_made_again(service: Served, seed: int) -> None:
    """First and later pages, of users and of nobody, with hints, under changing content, policy and popularity: each
    is identical afterwards, out of the stream and out of the archive."""
    story = Story(service, seed)
    for part in (10, 20, 30, 40):
        while len(story.pages) < part:
            story.step()
        story.content()
        story.policy()
        story.count()
    assert len({again.served.generation for again in replayed(service, *story.pages)}) > 1
    assert max(item["position"] for page in story.pages for item in page["items"]) > 200
    assert differing(service, story.pages) == []
    service.archive()
    assert differing(service, story.pages) == []


def test_pages_of_every_mode_are_made_again(service: Served) -> None:
    """Killed and off, also when the flag changes in the middle of a chain."""
    service.events(TENANT, "ada", ("like", "v1"), ("like", "v5"))
    pages = [service.feed(TENANT, "ada", limit=50)]
    service.set_flag(TENANT, state="killed")
    eventually(lambda: service.decision(TENANT, "ada") == "killed")
    pages.append(service.feed(TENANT, "ada", limit=30))
    for _ in range(6):
        pages.append(service.feed(TENANT, "ada", limit=40, cursor=pages[0 if len(pages) == 2 else -1]["next_cursor"]))
        if "next_cursor" not in pages[-1]:
            break
    service.set_flag(TENANT, state="off")
    eventually(lambda: service.decision(TENANT, "ada") == "off")
    pages.append(service.feed(TENANT, "ada"))
    assert {page["mode"] for page in pages} == {"personalised", "killed", "fallback"}
    assert any("mode_changed" in page["degraded"] for page in pages)
    assert differing(service, [page for page in pages if page["items"]]) == []


def test_another_policy_shows_what_would_have_been(service: Served) -> None:
    """Under the policy that a later page was served by, an earlier page becomes that page; a later page of a chain is
    its chain's continuation under the other policy."""
    service.events(TENANT, "ada", ("like", "v1"), ("like", "v5"))
    before = service.feed(TENANT, None, limit=20)
    second = service.feed(TENANT, None, limit=20, cursor=before["next_cursor"])
    first = before["items"][0]["id"]
    document = {"rules": [{"id": "no", "kind": "block", "target": {"items": [first]}, "reason": "a test"}]}
    service.set_policy(TENANT, document)
    after = service.feed(TENANT, None, limit=20)
    after_it = service.feed(TENANT, None, limit=20, cursor=after["next_cursor"])
    again, later = replayed(service, before, second, own=document)
    assert again.identical
    assert later.identical
    assert again.other is not None
    assert again.other.items == replayed(service, after)[0].made.items
    assert later.other is not None
    assert later.other.items == replayed(service, after_it)[0].made.items


def test_the_command_shows_both_pages(service: Served, tmp_path: Path) -> None:
    """Exit status 0 for the same page; with --policy each item of the other page says where it was."""
    page = service.feed(TENANT, "ada", limit=5)
    replayed(service, page)
    ids = [item["id"] for item in page["items"]]
    env = {"FEED_ARCHIVE_URL": str(service.place.folder / "archive")}
    status, out, errors = command(service.place, "replay", page["request_id"], "--json", env=env)
    assert (status, errors) == (0, "")
    said = json.loads(out)
    assert [one["id"] for one in said["served"]] == [one["id"] for one in said["replayed"]] == ids
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"rules": [{"id": "no", "kind": "block", "target": {"items": [ids[0]]}}]}))
    words = ("replay", page["request_id"], "--policy", str(other))
    shown = json.loads(command(service.place, *words, "--json", env=env)[1])["other"]
    assert ids[0] not in [one["id"] for one in shown]
    assert [one["was"] for one in shown] == [ids.index(one["id"]) if one["id"] in ids else None for one in shown]
    status, out, _ = command(service.place, *words, env=env)
    assert status == 0
    assert "identical" in out
    assert all(one["id"] in out for one in shown)
    status, _, errors = command(service.place, "replay", "0" * 24, env=env)
    assert status == 2
    assert "no such logged page of the last 24 hours" in errors
    other.write_text('{"weights": {"similarity": "much"}}')
    status, _, errors = command(service.place, "replay", page["request_id"], "--policy", str(other), env=env)
    assert status == 2
    assert "similarity" in errors


def test_what_is_gone_is_named(service: Served) -> None:
    """Each thing a page was made from is taken away in turn: 410 with the thing in words, and after a day 404."""
    service.events(TENANT, "ada", ("like", "v1"), ("like", "v5"))
    first = service.feed(TENANT, "ada", limit=20)
    service.events(TENANT, "ada", ("like", first["items"][0]["id"]))
    service.archive()
    page = service.feed(TENANT, "ada", limit=20)
    second = service.feed(TENANT, "ada", limit=20, cursor=page["next_cursor"])
    service.events(TENANT, "ada", ("complete", page["items"][0]["id"]))
    service.archive()
    service.put(TENANT, talk(VIDEOS))
    service.set_policy(TENANT, {"weights": {"similarity": 2.0}})
    assert differing(service, [first, page, second]) == []

    folder = service.place.folder / "snapshots" / TENANT
    steps: list[tuple[Callable[[], object], str]] = [
        (lambda: finished(forgotten(service, "j:*")), "journal"),
        (lambda: shutil.rmtree(folder / "popularity"), "popularity is no longer kept"),
        (lambda: shutil.rmtree(folder / "generations"), "generation 1 of the index"),
    ]
    for take_away, said in steps:
        take_away()
        answer = service.get(f"/v1/explain/{page['request_id']}", TENANT, scope="sk")
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/gone")
        assert said in answer.json()["detail"]
    service.now_s += DAY_S
    assert service.get(f"/v1/explain/{page['request_id']}", TENANT, scope="sk").status_code == 404


async def forgotten(service: Served, pattern: str) -> None:
    """Delete keys of Redis."""
    async with Redis.from_url(service.place.redis_url, protocol=2) as redis:
        await redis.delete(*await redis.keys(pattern))


def test_a_later_page_needs_the_pages_before_it(service: Served) -> None:
    """A page whose chain was not logged cannot be made again, and says so."""
    page = service.feed(TENANT, None, limit=20)
    second = service.feed(TENANT, None, limit=20, cursor=page["next_cursor"])
    assert replayed(service, second)[0].identical
    finished(forgotten(service, "e:*"))
    third = service.feed(TENANT, None, limit=20, cursor=second["next_cursor"])
    with pytest.raises(Gone, match="no logged page of its chain ends where it begins, at position 40"):
        replayed(service, third)


def test_a_takedown_that_the_index_had_not_followed_yet_is_remembered(service: Served) -> None:
    """It was not on the page, although the generation it was made from has it, and whatever became of it since."""
    before = service.feed(TENANT, None, limit=10)
    [best] = [item["id"] for item in before["items"]][:1]
    service.take_down(TENANT, best, publish=False)
    eventually(lambda: bool(len(service.resources.live.view(TENANT).down)))
    page = service.feed(TENANT, None, limit=10)
    assert best not in [item["id"] for item in page["items"]]
    service.put(TENANT, talk(int(best[1:])))
    assert differing(service, [before, page]) == []


def test_more_takedowns_than_are_logged_are_named(service: Served) -> None:
    """A page that was made beside so many that only some are in the log is refused instead of guessed."""
    page = service.feed(TENANT, None, limit=5)

    async def again() -> None:
        async with opened_past(service) as past:
            served = await logged(past, page["request_id"], service.now_s)
            await replay(past, dataclasses.replace(served, down=range(MOST_DOWN + 1)))

    with pytest.raises(Gone, match="more than 1000 videos"):
        finished(again())


def test_pages_before_and_after_a_model_was_learned_are_made_again(service: Served) -> None:
    """A generation names the model of behaviour its rows are joined with, and what it says about the policy."""
    service.events(TENANT, "ada", ("like", "v1"), ("like", "v5"))
    pages = [service.feed(TENANT, "ada", limit=20)]
    archive_habits(service)
    for words in (("learn", "--tenant", TENANT), ("learn", "--tenant", TENANT, "--use", "0")):
        before = service.resources.live.view(TENANT).snapshot.generation
        indexer(service, *words)
        eventually(lambda was=before: service.resources.live.view(TENANT).snapshot.generation > was)  # type: ignore[misc]
        pages.append(service.feed(TENANT, "ada", limit=20, headers={"Feed-Reason": "refresh"}))
    learned = [again.made.listed.view.snapshot.learned for again in replayed(service, *pages)]
    assert [one is None for one in learned] == [True, False, True]
    assert differing(service, pages) == []


def archive_habits(service: Served) -> None:
    """Events of many users, enough to learn from."""
    log, archive = habits(), Archive(str(service.place.folder / "archive"))
    rows = [
        (TENANT, f"{user:032x}", f"{n:032x}", signal, item, at_s, at_s, None, "", None)
        for n, (user, item, at_s, signal) in enumerate(
            zip(log.user.tolist(), log.item.tolist(), log.at_s.tolist(), log.signal.tolist(), strict=True)
        )
    ]
    archive.append(EVENTS, rows, after={}, positions={1: 1})


def indexer(service: Served, *words: str) -> None:
    """`python -m indexer WORDS`, which must succeed."""
    environment = {**service.place.environment, "FEED_ARCHIVE_URL": str(service.place.folder / "archive")}
    done = subprocess.run([sys.executable, "-m", "indexer", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
