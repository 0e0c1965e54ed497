"""The numbered rules of the contract, each over real HTTP against the real service, Redis, SQL and index.

| # | rule | tests |
|---|---|---|
| 1 | the cursor carries the frozen list | `test_1_…` |
| 2 | no repeats | `test_2_…` and tests/e2e/test_scroll.py |
| 3 | the tag | `test_3_…` |
| 4 | max-age | `test_4_…` |
| 5 | bad and old cursors | `test_5_…` |
| 6 | one schema, always 200 | `test_6_…` |
| 7 | fallback | `test_7_…` |
| 8 | full pages | `test_8_…` |
| 9 | refresh | `test_9_…` |
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from service.ranked import WHOLE
from tests.support.running import video
from tests.support.served import Json, Served, served

TOPICS = ("bread", "trains", "chess", "gardens")
N = 420
_users = (f"contract user {n}" for n in itertools.count())


def catalogue() -> list[Json]:
    """420 videos on four topics: more than two frozen lists."""
    return [
        video(f"v{n}", f"{topic} {topic} part {n}", tags=[topic], creator=f"{topic} {n % 12}", ratings=everybody())
        for n, topic in zip(range(N), itertools.cycle(TOPICS), strict=False)
    ]


def everybody() -> list[Json]:
    """A rating that lets everybody see it."""
    return [{"system": "FSK", "value": "0"}]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service with a big tenant, a tiny one, an empty one, and one whose content tests may change."""
    tenants = {
        "big": catalogue(),
        "tiny": [video(f"t{n}", f"tiny {n}") for n in range(3)],
        "empty": [],
        "heavy": [video(f"h{n}", f"heavy {n}") for n in range(5300)],
        "moving": [video(f"m{n}", f"moving {n}", ratings=everybody()) for n in range(30)],
    }
    with served(tmp_path_factory.mktemp("contract"), tenants) as started:
        yield started


@pytest.fixture
def user(service: Served) -> str:
    """A user nobody has heard of, and whom no tenant holds out."""
    return newcomer(service)


def newcomer(service: Served) -> str:
    """As `user`, for tests that want several."""
    return next(name for name in _users if all(service.decision(t, name) == "personalised" for t in service.keys))


def ids(page: Json) -> list[str]:
    """The video ids of a page."""
    return [item["id"] for item in page["items"]]


def scroll(service: Served, tenant: str, user: str | None, **query: Any) -> list[Json]:
    """All pages of one chain."""
    pages = [service.feed(tenant, user, **query)]
    while "next_cursor" in pages[-1]:
        assert len(pages) < 200, "no end"
        pages.append(service.feed(tenant, user, cursor=pages[-1]["next_cursor"], **query))
    return pages


def conditional(service: Served, tenant: str, user: str | None, tag: str, **more: Any) -> httpx.Response:
    """A first page asked for with a tag."""
    return service.get("/v1/feed", tenant, user=user, headers={"If-None-Match": tag}, **more)


# --- 1


def test_1_later_pages_need_no_redis(service: Served, user: str) -> None:
    """With Redis standing still, the rest of the frozen list comes as if nothing were wrong."""
    first = service.feed("big", user, limit=20)
    with service.without_redis():
        second = service.feed("big", user, limit=20, cursor=first["next_cursor"])
        third = service.feed("big", user, limit=50, cursor=second["next_cursor"])
    assert [len(page["items"]) for page in (first, second, third)] == [20, 20, 50]
    assert second["degraded"] == third["degraded"] == []
    assert {first["mode"], second["mode"], third["mode"]} == {"cold_start"}


def test_1_the_list_is_frozen(service: Served, user: str) -> None:
    """What happens between pages does not reorder the list: the same cursor gives the same page, whatever was liked."""
    first = service.feed("big", user)
    second = service.feed("big", user, cursor=first["next_cursor"])
    service.events("big", user, *(("like", f"v{n}") for n in range(8)))
    again = service.feed("big", user, cursor=first["next_cursor"])
    assert ids(again) == ids(second)
    assert again["request_id"] != second["request_id"]


def test_1_the_cursor_is_short(service: Served, user: str) -> None:
    """Under 2 KB, at every point of a chain."""
    assert all(len(page.get("next_cursor", "")) < 2048 for page in scroll(service, "big", user, limit=50))


def test_1_eligibility_is_checked_again(service: Served, user: str) -> None:
    """A video taken down, closed by its schedule or for the user's country between two pages does not come."""
    first = service.feed("moving", user, limit=5)
    coming = ids(service.feed("moving", user, limit=10, cursor=first["next_cursor"]))
    gone, closed, elsewhere = coming[:3]
    service.take_down("moving", gone)
    past = datetime.fromtimestamp(service.now_s - 5, UTC).isoformat()
    service.put(
        "moving",
        video(closed, "closed", available_until=past, ratings=everybody()),
        video(elsewhere, "elsewhere", countries=["NZ"], ratings=everybody()),
    )
    after = ids(service.feed("moving", user, limit=10, cursor=first["next_cursor"]))
    assert not {gone, closed, elsewhere} & set(after)
    assert after[:7] == coming[3:]
    service.put("moving", *(video(name, "back", ratings=everybody()) for name in (gone, closed, elsewhere)))


def test_1_the_rules_of_now_hold(service: Served, user: str) -> None:
    """A block published between two pages acts on the frozen list."""
    first = service.feed("big", user, limit=5)
    service.set_policy("big", {"rules": [{"id": "b", "kind": "block", "target": {"filter": {"tag": ["bread"]}}}]})
    try:
        rest = service.feed("big", user, limit=50, cursor=first["next_cursor"])
        assert len(rest["items"]) == 50
        assert not any("bread" in item["tags"] for item in rest["items"])
    finally:
        service.set_policy("big", {})


# --- 2


def test_2_a_chain_reaches_everything_once(service: Served, user: str) -> None:
    """420 videos are more than two lists: all come, each once, positions rising, and then the chain ends."""
    for who in (user, None):
        pages = scroll(service, "big", who, limit=35)
        shown = [name for page in pages for name in ids(page)]
        assert sorted(shown) == sorted(f"v{n}" for n in range(N))
        positions = [item["position"] for page in pages for item in page["items"]]
        assert positions == sorted(set(positions))


def test_2_seen_stays_out_and_served_steps_back(service: Served, user: str) -> None:
    """The next session shows neither what was on the screen nor, at its top, what was only sent."""
    first = ids(service.feed("big", user, limit=40))
    service.events("big", user, *(("impression", name) for name in first[:20]))
    second = ids(service.feed("big", user, limit=40))
    assert not set(first[:20]) & set(second)
    assert len(set(first[20:]) & set(second[:20])) <= 4
    everything = [name for page in scroll(service, "big", user, limit=50) for name in ids(page)]
    assert set(first[20:]) <= set(everything), "what was only served comes back"


def test_2_what_was_served_recovers(service: Served, user: str) -> None:
    """Just served, a page stands at the end of the list; days later it is in the midst of it again."""

    def mean_place(of: list[str]) -> float:
        shown = [name for page in scroll(service, "big", user, limit=50) for name in ids(page)]
        return sum(shown.index(name) for name in of) / len(of)

    began_s = service.now_s
    try:
        first = ids(service.feed("big", user, limit=20))
        at_once = mean_place(first)
        service.now_s = began_s + 5 * 86_400
        later = mean_place(first)
    finally:
        service.now_s = began_s
    assert at_once > 150, "of the 200 that are frozen first"
    assert later < 0.8 * at_once


@pytest.mark.parametrize("kind", ["not_interested", "report"])
def test_2_rejection_excludes_at_once_and_pushes_away(service: Served, user: str, kind: str) -> None:
    """What is rejected is gone from the next page, from a chain that goes on, and takes its like with it."""
    chain = service.feed("big", user, limit=50)
    service.events("big", user, *((kind, f"v{n}") for n in range(0, 40, 4)))  # the first ten on bread
    page = service.feed("big", user, limit=20)
    assert not {f"v{n}" for n in range(0, 40, 4)} & set(ids(page))
    assert sum("bread" in item["tags"] for item in page["items"]) <= 2
    delivered = set(ids(chain))
    while "next_cursor" in chain and len(delivered) < 200:
        chain = service.feed("big", user, limit=50, cursor=chain["next_cursor"])
        delivered |= set(ids(chain))
    beyond: set[str] = set()
    while "next_cursor" in chain:
        chain = service.feed("big", user, limit=50, cursor=chain["next_cursor"])
        beyond |= set(ids(chain))
    assert beyond
    assert not {f"v{n}" for n in range(0, 40, 4)} & beyond


# --- 3


def test_3_unchanged_is_a_304_without_retrieval(service: Served, user: str) -> None:
    """The tag comes back as it was, and of all stages only the state was read."""
    page = service.get("/v1/feed", "big", user=user)
    again = conditional(service, "big", user, page.headers["etag"])
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == page.headers["etag"]
    assert [stage.partition(";")[0] for stage in again.headers["server-timing"].split(", ")] == ["state"]


def test_3_serving_does_not_change_it_engagement_does(service: Served, user: str) -> None:
    """Ten pages later the first one is still right; one like later it is not."""
    tag = service.get("/v1/feed", "big", user=user).headers["etag"]
    for _ in range(10):
        service.feed("big", user)
    assert conditional(service, "big", user, tag).status_code == 304
    service.events("big", user, ("like", "v1"))
    changed = conditional(service, "big", user, tag)
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_3_content_policy_and_schedule_change_it(service: Served, user: str) -> None:
    """A take-down, a policy and the passing of an opening each make the client's page outdated."""
    began_s = service.now_s
    opens = datetime.fromtimestamp(began_s + 1000, UTC).isoformat()
    service.put("moving", video("later", "opens later", available_from=opens), video("doomed", "doomed"))

    def tag() -> str:
        return str(service.get("/v1/feed", "moving", user=user).headers["etag"])

    before = tag()
    service.take_down("moving", "doomed")
    assert conditional(service, "moving", user, before).status_code == 200
    before = tag()
    service.set_policy("moving", {"weights": {"freshness": 0.3}})
    assert conditional(service, "moving", user, before).status_code == 200
    before = tag()
    service.now_s = began_s + 900  # a slow machine may need some seconds to ask
    try:
        assert conditional(service, "moving", user, before).status_code == 304
        service.now_s = began_s + 1001
        assert conditional(service, "moving", user, before).status_code == 200
    finally:
        service.now_s = began_s
        service.take_down("moving", "later")


def test_3_a_tag_is_for_its_own_question(service: Served, user: str) -> None:
    """The tag of one user and one set of parameters confirms nothing for another."""
    tag = service.get("/v1/feed", "big", user=user).headers["etag"]
    assert conditional(service, "big", user, tag, params={"limit": 5}).status_code == 200
    assert conditional(service, "big", user, tag, params={"age_band": "4-6"}).status_code == 200
    assert conditional(service, "big", newcomer(service), tag).status_code == 200


# --- 4


def test_4_max_age_is_ten_seconds_or_until_something_changes(service: Served, user: str) -> None:
    """Ten seconds, and less when an opening or ending is nearer: a cache never shows a video after its end."""
    began_s = service.now_s
    answer = service.get("/v1/feed", "tiny", user=user)
    assert answer.headers["cache-control"] == "private, max-age=10, stale-if-error=86400"
    ends = datetime.fromtimestamp(began_s + 1000, UTC).isoformat()
    service.put("tiny", video("t0", "tiny 0", available_until=ends))
    for left_s, expected in ((500, 10), (9, 9), (1, 1)):
        service.now_s = began_s + 1000 - left_s
        answer = service.get("/v1/feed", "tiny", user=newcomer(service))
        found = int(answer.headers["cache-control"].split("max-age=")[1].split(",")[0])
        assert expected - 1 <= found <= expected, "the clock may have ticked in between"
        assert found >= 1
    service.now_s = began_s
    service.put("tiny", video("t0", "tiny 0"))


def test_4_it_may_be_shown_when_we_cannot_be_reached(service: Served, user: str) -> None:
    """What the app may keep, for whom, and what the answer depends on is said in the headers."""
    answer = service.get("/v1/feed", "big", user=user)
    assert "stale-if-error=86400" in answer.headers["cache-control"]
    assert {"Feed-User", "Accept-Language"} <= {one.strip() for one in answer.headers["vary"].split(",")}
    assert len(answer.headers["x-request-id"]) == 24
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["server-timing"].startswith("state;dur=")


# --- 5


def test_5_tampered_and_foreign_cursors_are_400(service: Served, user: str) -> None:
    """Changed, another user's, another tenant's, an anonymous one's: all the same problem, and it says what to do."""
    cursor = service.feed("big", user)["next_cursor"]
    answers = [
        service.get("/v1/feed", "big", user=user, params={"cursor": cursor[:-3] + "AAA"}),
        service.get("/v1/feed", "big", user=newcomer(service), params={"cursor": cursor}),
        service.get("/v1/feed", "big", params={"cursor": cursor}),
        service.get("/v1/feed", "moving", user=user, params={"cursor": cursor}),
        service.get("/v1/feed", "big", user=user, params={"cursor": ""}),
        service.get("/v1/feed", "big", user=user, params={"cursor": "a" * 4000}),
        service.get("/v1/tenants/big/feed/default", "big", params={"cursor": cursor}),
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert {answer.json()["type"] for answer in answers} == {"/problems/invalid-cursor"}
    assert len({answer.content for answer in answers}) == 1


def test_5_an_old_cursor_starts_again(service: Served, user: str) -> None:
    """After an hour: 200, a new list from its first position, and the page says so."""
    began_s = service.now_s
    cursor = service.feed("big", user)["next_cursor"]
    service.now_s = began_s + 3700
    try:
        page = service.feed("big", user, cursor=cursor)
    finally:
        service.now_s = began_s
    assert "cursor_restarted" in page["degraded"]
    assert page["items"][0]["position"] == 0
    assert len(page["items"]) == 20


def test_5_a_chain_whose_memory_was_lost_starts_again(service: Served, user: str) -> None:
    """Redis was emptied: going on might repeat what the chain has had, so it begins anew and says so."""
    page = service.feed("big", user, limit=50)
    for _ in range(4):
        page = service.feed("big", user, limit=50, cursor=page["next_cursor"])
    assert page["items"][0]["position"] == 200, "the second list has begun"

    service.empty_redis()
    while "cursor_restarted" not in page["degraded"]:
        assert "next_cursor" in page, "the chain must not end without the rest"
        page = service.feed("big", user, limit=50, cursor=page["next_cursor"])
    assert page["items"][0]["position"] == 0


# --- 6


SHAPE = {"request_id", "mode", "degraded", "items"}
ITEM = {
    "id", "title", "media_url", "poster_url", "duration_s", "creator", "tags", "not_after", "position", "reason",
}  # fmt: skip


def check_schema(page: Json) -> None:
    """One shape for every mode."""
    assert set(page) in (SHAPE, SHAPE | {"next_cursor"})
    assert page["mode"] in ("personalised", "cold_start", "holdout", "fallback", "killed")
    for item in page["items"]:
        assert set(item) == ITEM
        assert item["reason"] in ("for_you", "new", "popular", "editor", "explore")


def test_6_every_mode_has_one_schema_and_200(service: Served, user: str) -> None:
    """Cold start, personalised, hold-out, fallback and killed: told truthfully, in the same shape, full pages."""
    cold = service.feed("big", user)
    service.events("big", user, ("like", "v1"), ("complete", "v5"))
    warm = service.feed("big", user)
    with service.without_redis():
        fallback = service.feed("big", user)
    service.set_flag("big", state="on", holdout_percent=5)
    held_out = service.feed("big", next(name for name in _users if service.decision("big", name) == "holdout"))
    service.set_flag("big", state="killed")
    killed = service.feed("big", user)
    service.set_flag("big", state="off")
    off = service.feed("big", user)
    service.set_flag("big", state="on")
    pages = {"cold_start": cold, "personalised": warm, "fallback": fallback, "holdout": held_out, "killed": killed}
    for mode, page in pages.items():
        check_schema(page)
        assert page["mode"] == mode
        assert len(page["items"]) == 20
    assert fallback["degraded"] == ["user_state_unavailable"]
    assert (off["mode"], off["degraded"]) == ("fallback", ["personalisation_off"])
    assert warm["items"][0]["reason"] == "for_you"
    assert not any(item["reason"] == "for_you" for page in (fallback, held_out, killed, off) for item in page["items"])


def test_6_a_chain_in_flight_goes_on_when_the_switch_is_flipped(service: Served, user: str) -> None:
    """The frozen list is read to its end; what comes after it is under the flag of then; nothing comes twice."""
    service.events("big", user, ("like", "v1"))
    pages = [service.feed("big", user, limit=30)]
    service.set_flag("big", state="killed")
    try:
        while "next_cursor" in pages[-1]:
            pages.append(service.feed("big", user, limit=30, cursor=pages[-1]["next_cursor"]))
    finally:
        service.set_flag("big", state="on")
    shown = [name for page in pages for name in ids(page)]
    assert len(shown) == len(set(shown))
    assert len(shown) >= N - 1, "all but the liked one, which nobody remembers once taste is switched off"
    modes = [page["mode"] for page in pages]
    assert modes == sorted(modes, key=["personalised", "killed"].index)
    assert set(modes) == {"personalised", "killed"}
    assert all(len(page["items"]) == 30 or "mode_changed" in page["degraded"] for page in pages[:-1])


def test_6_the_default_feed_is_public(service: Served) -> None:
    """Nobody's feed, selected by the address alone, kept by any cache, confirmed by its tag, scrolled by its cursor."""
    path = "/v1/tenants/big/feed/default"
    answer = service.get(path, "big", user="whoever", headers={"Accept-Language": "de"})
    page = answer.json()
    check_schema(page)
    assert page["mode"] == "fallback"
    assert answer.headers["cache-control"].startswith("public, max-age=10")
    assert "vary" not in answer.headers
    assert ids(service.get(path, "big", user="somebody else").json()) == ids(page)
    assert service.get(path, "big", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    more = service.get(path, "big", params={"cursor": page["next_cursor"]}).json()
    assert not set(ids(more)) & set(ids(page))
    assert service.get("/v1/tenants/tiny/feed/default", "big").status_code == 404
    assert service.get("/v1/tenants/unheard-of/feed/default", "big").status_code == 404


# --- 7


def test_7_a_fallback_is_never_kept_as_personalised(service: Served, user: str) -> None:
    """No tag and no-store, so that the app asks again as soon as it can."""
    tag = service.get("/v1/feed", "big", user=user).headers["etag"]
    with service.without_redis():
        answer = conditional(service, "big", user, tag)
    assert answer.status_code == 200
    assert answer.json()["mode"] == "fallback"
    assert "etag" not in answer.headers
    assert answer.headers["cache-control"] == "private, no-store"


def test_7_later_pages_never_mix_the_fallback_in(service: Served, user: str) -> None:
    """A list that is used up while Redis is away: an empty page with its cursor, and the chain goes on afterwards."""
    service.events("big", user, ("like", "v1"))
    page = service.feed("big", user, limit=50)
    shown = ids(page)
    with service.without_redis():
        for _ in range(4):
            page = service.feed("big", user, limit=50, cursor=page["next_cursor"])
            shown += ids(page)
        waiting = service.feed("big", user, limit=50, cursor=page["next_cursor"])
    assert (page["items"], page["degraded"]) == ([], ["user_state_unavailable"])
    assert (waiting["items"], waiting["degraded"]) == ([], ["user_state_unavailable"])
    rest = service.feed("big", user, limit=50, cursor=waiting["next_cursor"])
    assert rest["mode"] == "personalised"
    assert len(rest["items"]) == 50
    assert not set(ids(rest)) & set(shown)


def test_7_a_chain_that_began_as_fallback_stays_one(service: Served, user: str) -> None:
    """Redis comes back in the middle: the chain goes on as what it is, to the end, without repeats."""
    service.events("big", user, ("like", "v1"))
    with service.without_redis():
        pages = [service.feed("big", user, limit=50)]
    while "next_cursor" in pages[-1]:
        pages.append(service.feed("big", user, limit=50, cursor=pages[-1]["next_cursor"]))
    assert {page["mode"] for page in pages} == {"fallback"}
    shown = [name for page in pages for name in ids(page)]
    assert sorted(shown) == sorted(f"v{n}" for n in range(N))


@pytest.mark.parametrize("state", ["killed", "off"])
def test_7_a_killed_scroll_does_not_stand_still_without_redis(service: Served, user: str, state: str) -> None:
    """It needs no taste, so lists follow each other with Redis away: nothing twice in what the cursor knows of, then a
    new chain that says so, and never an empty page."""
    service.set_flag("big", state=state)
    try:
        with service.without_redis():
            pages = [service.feed("big", user, limit=50)]
            while len(pages) < 14 and "cursor_restarted" not in pages[-1]["degraded"] and "next_cursor" in pages[-1]:
                pages.append(service.feed("big", user, limit=50, cursor=pages[-1]["next_cursor"]))
    finally:
        service.set_flag("big", state="on")
    chain = [page for page in pages if "cursor_restarted" not in page["degraded"]]
    shown = [name for page in chain for name in ids(page)]
    assert all(page["items"] for page in pages)
    assert len(shown) == len(set(shown))
    lists = {page["items"][0]["position"] for page in chain}
    assert len(lists) == len(chain) and len(shown) >= 2 * WHOLE.frozen - 50
    assert not any("user_state_unavailable" in page["degraded"] for page in pages)


# --- 8


@pytest.mark.parametrize(("tenant", "said"), [("empty", "empty_catalogue"), ("tiny", "few_eligible")])
def test_8_a_short_page_says_why(service: Served, user: str, tenant: str, said: str) -> None:
    """An empty tenant and one of three videos: an answer with the reason and without a cursor, no loop."""
    page = service.feed(tenant, user)
    check_schema(page)
    assert said in page["degraded"]
    assert "next_cursor" not in page
    assert len(page["items"]) == (3 if tenant == "tiny" else 0)


def test_8_who_has_seen_everything_is_told(service: Served, user: str) -> None:
    """All three seen: an empty page that says so, without a cursor."""
    service.events("tiny", user, *(("watch", f"t{n}") for n in range(3)), value=0.5)
    page = service.feed("tiny", user)
    assert (page["items"], page["degraded"]) == ([], ["all_seen"])
    assert "next_cursor" not in page


def test_8_candidates_widen_until_the_page_is_full(service: Served, user: str) -> None:
    """With all but 20 seen, whatever the user's taste points at, the page still has the 20 that are left."""
    service.events("big", user, *(("like", f"v{n}") for n in range(N - 20)))
    page = service.feed("big", user, limit=20)
    assert sorted(ids(page)) == sorted(f"v{n}" for n in range(N - 20, N))
    assert page["mode"] == "personalised"


def test_8_five_thousand_seen_videos_stay_out(service: Served, user: str) -> None:
    """The heaviest user: 5,000 videos served, shown and watched. Pages are full, and none of those is in them."""
    page, seen = service.feed("heavy", user, limit=50), list[str]()
    while len(seen) < 5000:
        seen += ids(page)
        service.events(
            "heavy", user, *((kind, name) for kind in ("impression", "watch") for name in ids(page)), value=0.1
        )
        page = service.feed("heavy", user, limit=50, cursor=page["next_cursor"])
    fresh = [service.feed("heavy", user, limit=50)]
    while "next_cursor" in fresh[-1] and len(fresh) < 5:
        fresh.append(service.feed("heavy", user, limit=50, cursor=fresh[-1]["next_cursor"]))
    assert [len(page["items"]) for page in fresh] == [50] * 5
    assert not set(seen) & {name for page in fresh for name in ids(page)}


def test_8_a_limit_is_brought_down_or_refused(service: Served, user: str) -> None:
    """51 and ten thousand mean 50; zero, negative, absurd and what is no number are 400 with a pointer."""
    assert len(service.feed("big", user, limit=51)["items"]) == 50
    assert len(service.feed("big", user, limit=10_000)["items"]) == 50
    assert len(service.feed("big", user)["items"]) == 20
    for wrong in ("0", "-1", "1.5", "ten", "", "٣", "1e1", "1000000000", "1" * 40):
        answer = service.get("/v1/feed", "big", params={"limit": wrong})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == "/query/limit"


# --- 9


def test_9_refresh_gives_another_order(service: Served, user: str) -> None:
    """Pull-to-refresh never looks frozen, for a user and for nobody, and never is a 304."""
    for who in (user, None):
        tag = service.get("/v1/feed", "big", user=who).headers["etag"]
        refreshed = [
            service.get("/v1/feed", "big", user=who, headers={"Feed-Reason": "refresh", "If-None-Match": tag})
            for _ in range(3)
        ]
        assert {answer.status_code for answer in refreshed} == {200}
        assert all("Feed-Reason" in answer.headers["vary"] for answer in refreshed)  # nor from a cache on the way
        assert len({tuple(ids(answer.json())) for answer in refreshed}) == 3


def test_9_inside_a_session_the_order_is_stable(service: Served) -> None:
    """Asked again within the hour, an anonymous app gets the order it had."""
    service.now_s = began_s = service.now_s // 3600 * 3600 + 60
    first = ids(service.feed("big"))
    service.now_s = began_s + 1800
    assert ids(service.feed("big")) == first
    assert service.get("/v1/feed", "big", headers={"Feed-Reason": "scroll"}).json()["items"][0]["id"] == first[0]
