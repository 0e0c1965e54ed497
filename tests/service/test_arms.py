"""An experiment from its draft to its pages: who is in an arm is served, explained, logged and replayed under it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from retrieval.arms import arm_of
from retrieval.flags import cohort
from service.auth import rekeyed
from tests.service.test_replay import differing, logged, opened_past, replayed
from tests.support.running import eventually, finished, user_id, video
from tests.support.served import Json, Served, served

TENANT = "acme"
PIN = {"id": "first", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["v7"]}, "reason": "a trial"}
TRIED = {"weights": {"freshness": 2.0}, "rules": [PIN]}
USERS = [f"user {n}" for n in range(24)]


def policy(percent: float = 50, **tried: Any) -> Json:
    """A policy with an experiment of a control `a` and an arm `b`."""
    arms = [
        {"name": "a", "percent": percent, "policy": {}},
        {"name": "b", "percent": percent, "policy": tried or TRIED},
    ]
    return {"weights": {"popularity": 0.2}, "experiment": {"name": "fresher", "arms": arms}}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tenant of 60 videos; nobody is held out but who a test holds out."""
    videos = [video(f"v{n}", f"{('bread', 'trains')[n % 2]} number {n}", creator=f"c{n % 12}") for n in range(60)]
    with served(tmp_path_factory.mktemp("arms"), {TENANT: videos}) as started:
        yield started


@pytest.fixture(autouse=True)
def tried(service: Served) -> None:
    """Every test begins with the experiment, and everybody personalised."""
    service.set_flag(TENANT, state="on", holdout_percent=1, allow=[user_id(name) for name in USERS])
    service.set_policy(TENANT, policy())


def key_of(service: Served, name: str) -> str:
    """A user as the service knows them."""
    return rekeyed(user_id(name), service.resources.live.view(TENANT).tenant.pepper, "")


def arm(service: Served, name: str) -> str:
    """The arm a user belongs into."""
    experiment = service.resources.live.view(TENANT).policy.experiment
    assert experiment is not None
    return arm_of(experiment, TENANT, key_of(service, name))


def one_in(service: Served, wanted: str) -> str:
    """A user of an arm."""
    return next(name for name in USERS if arm(service, name) == wanted)


def versions(service: Served, *pages: Json) -> list[str]:
    """The policies the pages were logged under."""

    async def read() -> list[str]:
        async with opened_past(service) as past:
            return [(await logged(past, page["request_id"], service.now_s)).policy_version for page in pages]

    return finished(read())


def is_pinned(page: Json) -> bool:
    """Whether the arm's pin acted."""
    first = page["items"][0]
    return (first["id"], first["reason"]) == ("v7", "editor")


def test_each_user_is_served_under_their_arm(service: Served) -> None:
    """The arm's rules and weights, on all pages; the log names the arm, and each page can be made again."""
    pages = {name: service.feed(TENANT, name, limit=5) for name in USERS[:8]}
    arms = {name: arm(service, name) for name in pages}
    assert set(arms.values()) == {"a", "b"}
    assert {name: is_pinned(page) for name, page in pages.items()} == {name: arms[name] == "b" for name in pages}
    live = service.resources.live.view(TENANT).policy_version
    assert versions(service, *pages.values()) == [f"{live}.fresher.{arms[name]}" for name in pages]
    name = one_in(service, "b")
    later = service.feed(TENANT, name, limit=5, cursor=pages[name]["next_cursor"])
    service.set_policy(TENANT, {"rules": [{**PIN, "id": "other", "target": {"items": ["v9"]}}]})
    assert differing(service, [*pages.values(), later]) == []


def test_an_explanation_says_which_arm_and_what_it_set(service: Served) -> None:
    """Of the page one would get now, and of the one that was served."""
    for wanted, weight, layer in (("a", 0.2, "default"), ("b", 2.0, "arm:b")):
        name = one_in(service, wanted)
        page = service.feed(TENANT, name, limit=5)
        path = f"/v1/explain/{page['request_id']}"
        eventually(partial(is_found, service, path))
        now = service.get("/v1/feed?explain=1&limit=5", TENANT, user=name, scope="sk").json()
        before = service.get(path, TENANT, scope="sk").json()
        assert [one["id"] for one in before["items"]] == [one["id"] for one in page["items"]]
        for told in (now, before):
            assert told["arm"] == f"fresher.{wanted}"
            features = {one["feature"]: one for one in told["items"][0]["features"]}
            assert (features["freshness"]["weight"], features["freshness"]["weight_from"]) == (weight, layer)
            assert features["popularity"]["weight_from"] == "tenant"
            acted = [(rule["rule"], rule["layer"]) for rule in told["items"][0]["rules"]]
            assert acted == ([("first", "arm:b")] if wanted == "b" else [])


def is_found(service: Served, path: str) -> bool:
    """Whether a page is logged by now."""
    return service.get(path, TENANT, scope="sk").status_code == 200


def test_who_is_not_personalised_is_in_no_arm(service: Served) -> None:
    """Without a user, for those held out, and while it is off or killed, the tenant's own policy holds."""
    name = one_in(service, "b")
    assert is_pinned(service.feed(TENANT, name, limit=5))
    pages = [service.feed(TENANT, limit=5)]
    for state in ("off", "killed"):
        service.set_flag(TENANT, state=state)
        eventually(lambda: service.decision(TENANT, name) != "personalised")
        pages.append(service.feed(TENANT, name, limit=5))
    service.set_flag(TENANT, state="on", holdout_percent=5, allow=[])
    held_out = next(one for one in (f"held {n}" for n in range(2000)) if service.decision(TENANT, one) == "holdout")
    pages.append(service.feed(TENANT, held_out, limit=5))
    assert [page["mode"] for page in pages] == ["cold_start", "fallback", "killed", "holdout"]
    assert not any(is_pinned(page) for page in pages)
    assert set(versions(service, *pages)) == {service.resources.live.view(TENANT).policy_version}
    explained = service.get("/v1/feed?explain=1", TENANT, user=held_out, scope="sk").json()
    assert (explained["mode"], explained["arm"]) == ("holdout", None)


def test_a_list_begun_before_the_experiment_is_read_on(service: Served) -> None:
    """Its start and its end change what the next list is made under, and repeat nothing."""
    service.set_policy(TENANT, {})
    pages = [service.feed(TENANT, "scroller", limit=20)]
    for published in (policy(), {}):
        service.set_policy(TENANT, published)
        pages.append(service.feed(TENANT, "scroller", limit=20, cursor=pages[-1]["next_cursor"]))
    shown = [item["id"] for page in pages for item in page["items"]]
    assert len(shown) == len(set(shown)) == 60


def test_a_replay_under_another_policy_is_in_the_same_arm(service: Served) -> None:
    """What the page of this user would have been, had the arm been another."""
    page = service.feed(TENANT, one_in(service, "b"), limit=5)
    [again] = replayed(service, page, own=policy(rules=[{**PIN, "target": {"items": ["v11"]}}]))
    assert again.identical
    assert again.other is not None
    assert again.other.page.items[0] == again.other.listed.view.snapshot.find("v11")


def sent(service: Served, action: str, **body: Any) -> tuple[int, Json]:
    """Status and answer of a call on the policy."""
    answer = service.call("POST", f"/v1/admin/policy:{action}", TENANT, scope="sk", json=body)
    return answer.status_code, answer.json()


def test_what_speaks_against_an_arm_is_said_before_it_is_published(service: Served) -> None:
    """Its schema, its playlists, its pins, and what its rules would do to a page: with pointers into the arm."""
    at = "/experiment/arms/1/policy/rules"
    for rules, pointer, words in (
        ([{**PIN, "priority": 1000}], f"{at}/0/priority", "1000"),
        ([{**PIN, "target": {"playlist": "nowhere"}}], f"{at}/0/target/playlist", "no playlist"),
        ([{**PIN, "target": {"items": ["nothing"]}}], f"{at}/0", "arm b: the pin 'first' can never be eligible"),
        ([{**PIN, "id": f"p{n}", "effect": {"position": n}, "target": {"items": [f"v{n}"]}} for n in range(12)],
         at, "arm b: rules drive"),
    ):  # fmt: skip
        status, verdict = sent(service, "validate", policy=policy(rules=rules))
        assert (status, verdict["valid"]) == (200, False)
        assert [one["pointer"] for one in verdict["errors"]] == [pointer]
        assert words in verdict["errors"][0]["detail"]
    verdict = sent(service, "validate", policy=policy())[1]
    assert verdict["valid"]
    situations = {run["situation"] for run in verdict["dry_run"]}
    assert situations == {"now, no hints", "arm a: now, no hints", "arm b: now, no hints"}


def test_a_global_policy_is_tried_on_every_arm(service: Served) -> None:
    """The tenant has decided about its arms, not about what all tenants get: the pointers are the global document's."""
    pins = [{**PIN, "id": f"p{n}", "effect": {"position": n}, "target": {"items": [f"v{n}"]}} for n in range(12)]
    verdict = service.client.post(
        "/v1/admin/policy:validate",
        params={"scope": "global"},
        headers={"Authorization": f"Bearer {service.admin_key}"},
        json={"policy": {"rules": pins}},
    ).json()
    for about in ("", "arm a: ", "arm b: "):
        words = f"{TENANT}: {about}rules drive"
        assert [one["pointer"] for one in verdict["errors"] if one["detail"].startswith(words)] == ["/rules"]


def test_a_preview_shows_users_in_their_arms(service: Served) -> None:
    """Real ones where they would be, made-up ones in none; or everybody in the arm that is asked for."""
    drafted = policy(rules=[{**PIN, "target": {"items": ["v20"]}}])
    users = [user_id(one_in(service, name)) for name in ("a", "b")]
    _, said = sent(service, "preview", policy=drafted, users=users, limit=3)
    firsts = {page["user"]: (page["live"][0]["id"], page["draft"][0]["id"]) for page in said["users"]}
    assert firsts["user 2"] == ("v7", "v20")
    assert not {"v7", "v20"} & {*firsts["user 1"], *firsts["cold"]}
    _, said = sent(service, "preview", policy=drafted, arm="b", limit=3)
    assert {(page["live"][0]["id"], page["draft"][0]["id"]) for page in said["users"]} == {("v7", "v20")}
    status, refused = sent(service, "preview", policy=drafted, arm="c")
    assert (status, refused["errors"][0]["pointer"]) == (400, "/arm")
    assert "a, b" in refused["errors"][0]["detail"]


def test_arms_have_nothing_to_do_with_cohorts(service: Served) -> None:
    """A rule for a cohort acts in every arm: the parts are drawn separately."""
    found = {(arm(service, name), cohort(TENANT, key_of(service, name)) < "5") for name in USERS}
    assert len(found) == 4
