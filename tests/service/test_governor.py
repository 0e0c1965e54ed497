"""What a worker gives up first: candidates, prefetches, taste, then everything; never for longer than needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.governor import FIRST, LATER, PLAIN, Effort, Governor, Limits, Overloaded
from tests.support.running import video
from tests.support.served import Served, served

LIMITS = Limits(narrow_s=0.035, prefetch_s=0.075, plain_s=0.115, most_s=0.2475)  # between multiples of 5 ms


def is_admitted(governor: Governor, *, prefetch: bool) -> bool:
    try:
        with governor.admitted(FIRST, prefetch=prefetch):
            return True
    except Overloaded:
        return False


def test_what_is_given_up_follows_the_backlog() -> None:
    """Of requests that take 10 ms each, 5 if plain: four whole answers, four narrow ones, four more without prefetches,
    then plain ones, then nothing."""
    governor = Governor(LIMITS, usual_s={FIRST: 0.01, LATER: 0.001, PLAIN: 0.005})
    efforts: list[Effort] = []
    prefetch = []
    with ExitStack() as at_work:
        for _ in range(38):
            prefetch.append(is_admitted(governor, prefetch=True))
            efforts.append(at_work.enter_context(governor.admitted(FIRST, prefetch=False)).effort)
        assert not is_admitted(governor, prefetch=False)
    assert prefetch == [True] * 8 + [False] * 30
    assert efforts == ["whole"] * 4 + ["narrow"] * 8 + ["plain"] * 26
    assert is_admitted(governor, prefetch=True)


@given(st.lists(st.tuples(st.sampled_from([FIRST, LATER]), st.floats(1e-5, 0.1), st.booleans()), max_size=60))
def test_the_backlog_is_that_of_the_admitted(requests: list[tuple[str, float, bool]]) -> None:
    """However long they take, and also when they fail: when nobody is at work, nothing is left of it."""
    governor = Governor(LIMITS)
    for kind, took_s, fails in requests:
        with (
            pytest.raises(ZeroDivisionError) if fails else ExitStack(),
            governor.admitted(kind, prefetch=False) as work,
        ):
            work.took_s = took_s
            assert governor.backlog_s > 0
            if fails:
                raise ZeroDivisionError
    assert governor.backlog_s == pytest.approx(0, abs=1e-9)


def test_what_a_request_costs_is_learned() -> None:
    """After some hundred requests of 10 ms each that is what one is expected to take."""
    governor = Governor(LIMITS)
    for _ in range(400):
        with governor.admitted(FIRST, prefetch=False) as work:
            work.took_s = 0.01
    assert governor.usual_s[FIRST] == pytest.approx(0.01, rel=0.01)


def test_how_long_waiting_takes_is_learned() -> None:
    """Where a wait is twice the backlog ahead, everything is given up at half of the backlog; never earlier than at a
    quarter, however long somebody once waited, and never later than at the whole."""
    for ratio, expected in ((2.0, 2.0), (100.0, 4.0), (0.1, 1.0)):
        governor = Governor(LIMITS, usual_s={FIRST: 0.01, LATER: 0.001, PLAIN: 0.005})
        for _ in range(400):
            governor.backlog_s = 0.03
            with governor.admitted(FIRST, prefetch=False) as work:
                work.waited_s = 0.03 * ratio
        assert governor.stretch == pytest.approx(expected, rel=0.01)
        governor.backlog_s = LIMITS.narrow_s / expected * 0.9
        with governor.admitted(FIRST, prefetch=False) as work:
            assert work.effort == "whole"
        governor.backlog_s = LIMITS.narrow_s / expected * 1.1
        with governor.admitted(FIRST, prefetch=False) as work:
            assert work.effort == "narrow"


def test_a_short_wait_teaches_nothing() -> None:
    """With hardly anything ahead, who waits waits for Redis."""
    governor = Governor(LIMITS)
    for _ in range(100):
        with governor.admitted(FIRST, prefetch=False) as work:
            work.waited_s = 0.05
    assert governor.stretch == 1.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a catalogue that is worth narrowing."""
    tenants = {"acme": [video(f"v{n}", f"{n}") for n in range(300)]}
    with served(tmp_path_factory.mktemp("governor"), tenants, redis_timeout_ms=500) as started:
        yield started


def asked(
    service: Served, backlog_s: float, reason: str = "initial", user: str = "somebody", tag: str = "", **query: str
) -> httpx.Response:
    """A page, asked for while there is so much to do; the first one, unless there is a cursor."""
    governor = service.resources.governor
    governor.backlog_s += backlog_s
    headers = {"Feed-Reason": reason} | ({"If-None-Match": tag} if tag else {})
    try:
        return service.get("/v1/feed", "acme", user=user, headers=headers, params=query)
    finally:
        governor.backlog_s -= backlog_s


def test_a_narrow_page_is_whole_and_says_so(service: Served) -> None:
    """Twenty videos all the same, and a chain that goes on to the end of the catalogue without a repeat."""
    page = asked(service, 0.09).json()
    assert "narrowed" in page["degraded"]
    assert len(page["items"]) == 20
    shown = [item["id"] for item in page["items"]]
    while cursor := page.get("next_cursor"):
        page = service.feed("acme", "somebody", cursor=cursor)
        shown += [item["id"] for item in page["items"]]
    assert len(shown) == len(set(shown)) == 300
    assert "narrowed" not in asked(service, 0).json()["degraded"]


def test_a_plain_page_leaves_out_the_taste_and_what_was_seen(service: Served) -> None:
    """It says so, has no tag by which it could be kept, and the next page is personal again. Its chain goes on."""
    first = service.feed("acme", "viewer")
    shown = [item["id"] for item in first["items"]]
    assert service.events("acme", "viewer", *(("like", item) for item in shown))["accepted"] == len(shown)
    assert service.feed("acme", "viewer")["mode"] == "personalised"
    answer = asked(service, 0.15, user="viewer")
    page = answer.json()
    assert (page["mode"], page["degraded"], "etag" in answer.headers) == ("fallback", ["overloaded"], False)
    plain = [item["id"] for item in page["items"]]
    assert len(plain) == 20
    assert not set(plain) & set(shown)
    later = service.feed("acme", "viewer", cursor=page["next_cursor"])
    assert later["mode"] == "fallback"
    assert not {item["id"] for item in later["items"]} & set(plain)
    assert service.feed("acme", "viewer")["mode"] == "personalised"


def test_a_page_that_is_still_right_stays_so_when_there_is_much_to_do(service: Served) -> None:
    """304 costs less than a page without a taste, and keeps the better one."""
    first = service.get("/v1/feed", "acme", user="somebody")
    assert asked(service, 0.15, tag=first.headers["etag"]).status_code == 304


def test_a_chain_keeps_its_taste_when_there_is_much_to_do(service: Served) -> None:
    """Only what begins now begins without one."""
    page, pages = service.feed("acme", "somebody"), 1
    while cursor := page.get("next_cursor"):
        page, pages = asked(service, 0.15, cursor=cursor).json(), pages + 1
        assert page["mode"] == "cold_start"
        assert "overloaded" not in page["degraded"]
    assert pages == 300 / 20


def test_a_prefetch_gives_way_first_and_then_everything(service: Served) -> None:
    """With a time to come back, as a problem of the documented kind; and the next moment all is well."""
    assert asked(service, 0.1).status_code == 200
    for refused in (asked(service, 0.1, "prefetch"), asked(service, 0.5)):
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/overloaded"
        assert int(refused.headers["retry-after"]) >= 1
    assert asked(service, 0, "prefetch").status_code == 200
