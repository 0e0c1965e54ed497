"""Hints of the host app over HTTP: closed lists that filter and rank; what is on no list is dropped and not kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from ranking.hints import AGE_BANDS, COUNTRIES, LANGUAGES
from retrieval.erasure import rekeyed
from retrieval.flags import COHORTS, cohort
from service.routes.feed import preferred_language
from tests.support.running import eventually, user_id, video
from tests.support.served import Json, Served, served


def rated(age: str) -> list[Json]:
    """A rating of the German system."""
    return [{"system": "FSK", "value": age}]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tenant with videos in two languages, for some countries, and for different ages."""
    videos = [
        *(video(f"de{n}", f"deutsch {n}", language="de", ratings=rated("0")) for n in range(12)),
        *(video(f"en{n}", f"english {n}", language="en", ratings=rated("0")) for n in range(12)),
        *(video(f"nz{n}", f"kiwi {n}", countries=["NZ"], ratings=rated("0")) for n in range(3)),
        *(video(f"r{age}", f"from {age}", ratings=rated(age)) for age in ("0", "6", "12", "16", "18")),
        video("unrated", "nobody has said"),
    ]
    with served(tmp_path_factory.mktemp("hints"), {"acme": videos}) as started:
        yield started


def ids(service: Served, **query: Any) -> list[str]:
    """A page of everything there is."""
    return [item["id"] for item in service.feed("acme", limit=50, **query)["items"]]


@pytest.mark.parametrize(("language", "first"), [("de", "de"), ("en", "en"), ("DE", "de")])
def test_language_ranks_and_does_not_filter(service: Served, language: str, first: str) -> None:
    """The user's language comes first; the other one is still there."""
    shown = ids(service, language=language)
    assert all(name.startswith(first) for name in shown[:6])
    assert sum(name.startswith(("de", "en")) for name in shown) == 24


def test_country_filters(service: Served) -> None:
    """What is meant for New Zealand is shown there, and neither elsewhere nor where the country is not known."""
    kiwi = {"nz0", "nz1", "nz2"}
    assert kiwi <= set(ids(service, country="NZ")) and kiwi <= set(ids(service, country="nz"))
    assert not kiwi & set(ids(service, country="DE"))
    assert not kiwi & set(ids(service))


@pytest.mark.parametrize("band", AGE_BANDS)
def test_age_band_is_a_ceiling(service: Served, band: str) -> None:
    """Nobody in a band sees what its youngest may not; what nobody has rated is for adults."""
    shown = {name for name in ids(service, age_band=band) if name.startswith(("r", "unrated"))}
    allowed = {f"r{age}" for age in ("0", "6", "12", "16", "18") if int(age) <= AGE_BANDS[band]}
    assert shown == (allowed | {"unrated"} if AGE_BANDS[band] == 18 else allowed)


@pytest.mark.parametrize(
    ("query", "same_as"),
    [
        ({"language": "klingon"}, {}),
        ({"country": "Atlantis"}, {}),
        ({"age_band": "13-99"}, {"age_band": "0-3"}),
        ({"age_band": "' OR 1=1"}, {"age_band": "0-3"}),
    ],
)
def test_unknown_hints_are_dropped_and_the_page_says_so(
    service: Served,
    query: dict[str, str],
    same_as: dict[str, str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The page is the one without the hint (with the youngest band, if a band was meant), tells the developer, and
    nothing of the value is logged or answered."""
    with caplog.at_level(logging.DEBUG):
        answer = service.get("/v1/feed", "acme", params={**query, "limit": "50"})
    assert answer.status_code == 200
    assert "hints_dropped" in answer.json()["degraded"]
    assert {item["id"] for item in answer.json()["items"]} == set(ids(service, **same_as))
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    said = "".join((*ours, *capfd.readouterr(), answer.text))
    assert not any(value in said for value in query.values())


def test_an_unknown_band_and_none_have_tags_of_their_own(service: Served) -> None:
    """The page without a band is not confirmed by the tag of one for the youngest, though neither names a band."""
    of_youngest = service.get("/v1/feed", "acme", params={"age_band": "13-99"}).headers["etag"]
    answer = service.get("/v1/feed", "acme", headers={"If-None-Match": of_youngest})
    assert answer.status_code == 200


def test_known_hints_are_not_called_dropped(service: Served) -> None:
    """Every entry of every list is known, an empty hint is no hint, and other parameters are ignored."""
    queries: list[dict[str, Any]] = [
        *({"language": code} for code in LANGUAGES[::20]),
        *({"country": code} for code in COUNTRIES[::25]),
        *({"age_band": band} for band in AGE_BANDS),
        {"language": "", "country": "", "age_band": ""},
        {"favourite_colour": "green"},
    ]
    for query in queries:
        assert "hints_dropped" not in service.feed("acme", limit=1, **query)["degraded"]


def test_the_apps_language_stands_in_for_a_missing_hint(service: Served) -> None:
    """Accept-Language counts when `language` is not given, and only then; so the answer varies with it."""
    headers = {"Accept-Language": "de-CH, de;q=0.9, en;q=0.8"}
    page = service.feed("acme", headers=headers)
    assert sum(item["id"].startswith("de") for item in page["items"][:6]) >= 5
    page = service.feed("acme", headers=headers, language="en")
    assert sum(item["id"].startswith("en") for item in page["items"][:6]) >= 5


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de", "de"),
        ("de-CH,de;q=0.9", "de"),
        ("EN-us", "en"),
        ("tlh, fr;q=0.5", "fr"),
        ("*", None),
        ("", None),
        (",;-,", None),
        ("x" * 5000, None),
    ],
)
def test_accept_language_is_read_best_first(header: str, language: str | None) -> None:
    """The first language on our list; nonsense is no language."""
    assert preferred_language(header) == (LANGUAGES.index(language) if language else -1)


def is_logged(service: Served, path: str) -> bool:
    """Whether a page can be explained by now: it is logged after it was answered."""
    return service.get(path, "acme", scope="sk").status_code == 200


def test_a_rule_for_some_cohorts_acts_on_their_users(service: Served) -> None:
    """A trial on half of the users reaches them on every page and in every explanation, and nobody else."""
    tried = set(COHORTS[:5])
    pin = {"id": "try", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["de7"]}, "reason": "a trial"}
    service.set_policy("acme", {"rules": [{**pin, "when": {"cohort": sorted(tried)}}]})
    acted = {}
    for name in (f"cohort {n}" for n in range(12)):
        page = service.feed("acme", name, limit=5)
        acted[name] = (page["items"][0]["id"], page["items"][0]["reason"]) == ("de7", "editor")
        told = service.get("/v1/feed?explain=1&limit=5", "acme", user=name, scope="sk").json()
        assert (told["items"][0]["placed_by"] == "pin") == acted[name]
        path = f"/v1/explain/{page['request_id']}"
        eventually(partial(is_logged, service, path))
        assert service.get(path, "acme", scope="sk").json()["identical"]
    pepper = service.resources.live.view("acme").tenant.pepper
    assert acted == {name: cohort("acme", rekeyed(user_id(name), pepper)) in tried for name in acted}
    assert {True, False} == set(acted.values())
    assert service.feed("acme", limit=5)["items"][0]["reason"] != "editor"

    names = list(acted)[:6]
    body = {"policy": {"rules": [{**pin, "when": {"cohort": sorted(tried)}}]}, "users": [user_id(one) for one in names]}
    shown = service.call("POST", "/v1/admin/policy:preview", "acme", scope="sk", json=body).json()["users"]
    previewed = {one["user"]: one["draft"][0]["placed_by"] == "pin" for one in shown}
    assert [previewed[f"user {n}"] for n in range(1, 7)] == [acted[name] for name in names]
    assert not previewed["cold"]
    body = {"policy": {"rules": [{**pin, "when": {"cohort": ["b"]}}]}}
    verdict = service.call("POST", "/v1/admin/policy:validate", "acme", scope="sk", json=body).json()
    assert "/rules/0/when/cohort" in [one["pointer"] for one in verdict["warnings"]]
