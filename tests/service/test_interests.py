"""Several interests of one user stay several, over real HTTP: not one average that is neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.running import video
from tests.support.served import Served, served

TOPICS = ("bread", "trains", "chess")
N = 40


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Pure videos of three topics, as many that mix all three, and others; two tenants that differ in nothing."""
    texts = {
        **{f"{topic}-{n}": f"{topic} {topic} {topic} {topic} {n}" for topic in TOPICS for n in range(N)},
        **{f"mixed-{n}": f"bread trains chess {n}" for n in range(N)},
        **{f"other-{n}": f"gardens {n} weather {n}" for n in range(2 * N)},
    }
    videos = [video(name, text, creator=f"creator of {name}") for name, text in texts.items()]
    with served(tmp_path_factory.mktemp("interests"), {"several": videos, "average": videos}) as started:
        weights = {"similarity": 1.0, "freshness": 0.0, "popularity": 0.0, "trending": 0.0}
        started.set_policy("several", {"weights": weights})
        started.set_policy("average", {"weights": weights, "taste": {"interests": 1}})
        yield started


def brought(service: Served, tenant: str, user: str, liked: list[str]) -> Counter[str]:
    """What kinds of videos the nearness to a user's taste brings onto the first page."""
    service.events(tenant, user, *(("like", name) for name in liked))
    page = service.feed(tenant, user, limit=20)
    assert page["mode"] == "personalised"
    return Counter(item["id"].partition("-")[0] for item in page["items"] if item["reason"] == "for_you")


@pytest.mark.parametrize("topics", [TOPICS[:1], TOPICS[:2], TOPICS], ids=len)
def test_each_interest_has_its_part_of_the_page(service: Served, topics: tuple[str, ...]) -> None:
    """One, two, three topics liked: each is on the page, and what lies between them is not."""
    user = next(f"{n} of {len(topics)}" for n in range(50) if personal(service, f"{n} of {len(topics)}"))
    found = brought(service, "several", user, [f"{topic}-{n}" for topic in topics for n in range(3)])
    assert all(found[topic] >= found.total() / 10 for topic in topics), found
    assert found["mixed"] <= found.total() / 5, found


def test_an_average_would_be_neither(service: Served) -> None:
    """The same likes with one interest only: what lies between the topics wins, so the test above means something."""
    user = next(f"average {n}" for n in range(50) if personal(service, f"average {n}"))
    found = brought(service, "average", user, [f"{topic}-{n}" for topic in TOPICS for n in range(3)])
    assert found["mixed"] > found.total() / 2, found


def test_what_left_the_catalogue_still_counts(service: Served) -> None:
    """The liked videos are taken down, and the index was folded since: the taste is as before, and none of them is
    shown; events about them are taken, because they happened."""
    user = next(f"faithful {n}" for n in range(50) if personal(service, f"faithful {n}"))
    liked = [f"chess-{n}" for n in range(5)]
    before = brought(service, "several", user, liked)
    service.take_down("several", *liked)
    page = service.feed("several", user, limit=20)
    after = Counter(item["id"].partition("-")[0] for item in page["items"] if item["reason"] == "for_you")
    assert page["mode"] == "personalised"
    assert after["chess"] > after.total() / 2 and before["chess"] > before.total() / 2
    assert service.events("several", user, ("watch", "chess-0"), value=0.5)["accepted"] == 1
    stranger = service.feed("several", None, limit=50)
    assert not set(liked) & {item["id"] for item in (*page["items"], *stranger["items"])}


def personal(service: Served, user: str) -> bool:
    """Whether no tenant here holds the user out."""
    return all(service.decision(tenant, user) == "personalised" for tenant in service.keys)
