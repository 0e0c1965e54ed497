"""Policies over HTTP: draft, validate, preview, publish, roll back; what is refused; how soon all workers follow."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ranking.features import FEATURES
from tests.support.running import Json, System, read, system, video

DAY_S = 86_400
TENANT = "editors"
OTHER = "rivals"


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two tenants of 60 videos; in `rivals` one playlist."""
    videos = [
        video(
            f"v{n}",
            f"{('bread', 'trains', 'chess')[n % 3]} number {n}",
            tags=[("bread", "trains", "chess")[n % 3]],
            creator=f"c{n % 12}",
            categories=[("food", "travel", "games")[n % 3]],
            ratings=[{"system": "FSK", "value": "18" if n == 59 else "0"}],
            countries=["DE"] if n == 58 else [],
        )
        for n in range(60)
    ]
    foreign = [video("x", "theirs", playlists=["theirs"])]
    with system(tmp_path_factory.mktemp("policies"), redis_database, {TENANT: videos, OTHER: foreign}) as running:
        yield running


class Editor:
    """A content manager's client: remembers the ETag, as a form in the CMS would."""

    def __init__(self, s: System, tenant: str = TENANT) -> None:
        self.s = s
        self.key = s.tenants[tenant].secret
        self.tag = ""

    def get(self) -> Json:
        answer = self.s.call("GET", "/v1/admin/policy", self.key)
        self.tag = answer.headers["etag"]
        return read(answer, 200)

    def send(self, method: str, path: str, body: Any, *, tag: str | None = None) -> httpx.Response:
        headers = {"Content-Type": "application/json", "If-Match": self.tag if tag is None else tag}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.s.call(method, f"/v1/admin/policy{path}", self.key, content=content, headers=headers)
        self.tag = answer.headers.get("etag", self.tag)
        return answer

    def draft(self, policy: Json) -> httpx.Response:
        return self.send("PUT", "", {"policy": policy, "author": "ada"})

    def publish(self, policy: Json, reason: str = "because") -> httpx.Response:
        self.get()
        read(self.draft(policy), 200)
        return self.send("POST", ":publish", {"author": "ada", "reason": reason})

    def problems(self, policy: Any) -> dict[str, str]:
        """What a validation refuses: pointer -> words."""
        said = read(self.send("POST", ":validate", {"policy": policy}), 200)
        assert said["valid"] is (said["errors"] == [])
        return {one["pointer"]: one["detail"] for one in said["errors"]}


@pytest.fixture
def editor(s: System) -> Iterator[Editor]:
    """An editor, whose policy is empty again afterwards."""
    editor = Editor(s)
    yield editor
    read(editor.publish({}, "clean"), 200)


def rule(kind: str, target: Json | None = None, effect: Json | None = None, **more: Any) -> Json:
    """A rule as a CMS would send it."""
    said: Json = {"id": more.pop("id", f"{kind}-rule"), "kind": kind, "author": "ada", "reason": "test", **more}
    return said | ({"target": target} if target else {}) | ({"effect": effect} if effect else {})


def items(*ids: str) -> Json:
    """A target of these videos."""
    return {"items": list(ids)}


def test_a_publish_is_live_in_every_worker_within_two_seconds(s: System, editor: Editor) -> None:
    """Without any index rebuild: the generation stays. Rolling back does the same."""
    empty = read(editor.publish({}), 200)["version"]
    before = s.place.store.current(TENANT)
    began = time.monotonic()
    answer = read(editor.publish({"rules": [rule("pin", items("v7"), {"position": 0})]}), 200)
    assert answer["version"] == int(editor.tag.strip('"').split(".")[0])
    s.in_every_worker(lambda: s.ids(TENANT)[0] == "v7", within_s=5)
    assert time.monotonic() - began < 2.5
    assert s.place.store.current(TENANT) == before
    rolled = read(editor.send("POST", ":rollback", {"version": empty, "author": "ada", "reason": "undo"}), 200)
    assert rolled["version"] == answer["version"] + 1
    s.in_every_worker(lambda: s.ids(TENANT)[0] != "v7", within_s=5)


def test_every_write_needs_the_tag_it_started_from(editor: Editor) -> None:
    """None is 428, an old or foreign one 412, and nothing was changed."""
    before = editor.get()
    for tag, status in (("", 428), ('"99.0"', 412), ('"x"', 412), ("*", 412)):
        body = {"policy": {}, "author": "a"}
        assert editor.send("PUT", "", body, tag=tag).status_code == status
        assert (
            editor.send("POST", ":rollback", {"version": 1, "author": "a", "reason": "r"}, tag=tag).status_code
            == status
        )
    assert editor.get() == before
    stale = editor.tag
    read(editor.draft({"weights": {"freshness": 1}}), 200)
    assert editor.send("PUT", "", {"policy": {}, "author": "bob"}, tag=stale).status_code == 412
    assert editor.send("POST", ":publish", {"author": "bob", "reason": "r"}, tag=stale).status_code == 412
    draft = editor.get()["draft"]
    assert (draft["policy"], draft["author"]) == ({"weights": {"freshness": 1}}, "ada")


def test_every_value_says_which_layer_set_it(editor: Editor) -> None:
    """GET resolves the inheritance; history keeps who and why; each version can be read again."""
    version = read(editor.publish({"weights": {"freshness": 0.7}}, "news are news"), 200)["version"]
    resolved = {one["pointer"]: (one["value"], one["from"]) for one in editor.get()["resolved"]}
    assert resolved["/weights/freshness"] == (0.7, "tenant")
    assert resolved["/limits/max_age"] == (18, "default")
    history = read(editor.s.call("GET", "/v1/admin/policy/history", editor.key), 200)["versions"]
    assert (history[0]["version"], history[0]["author"], history[0]["reason"]) == (version, "ada", "news are news")
    old = read(editor.s.call("GET", f"/v1/admin/policy?version={version}", editor.key), 200)
    assert old["policy"] == {"weights": {"freshness": 0.7}}
    assert editor.s.call("GET", "/v1/admin/policy?version=999", editor.key).status_code == 404


BAD = {
    "NaN": ({"weights": {"similarity": math.nan}}, "/weights/similarity"),
    "1e308": ({"weights": {"similarity": 1e308}}, "/weights/similarity"),
    "unknown key": ({"wieghts": {}}, "/wieghts"),
    "unknown weight": ({"weights": {"virality": 1}}, "/weights/virality"),
    "all zero": ({"weights": dict.fromkeys(FEATURES, 0)}, "/weights"),
    "overlapping pins": ({"rules": [rule("pin", items("v1"), {"position": 3}, id=one) for one in "ab"]},
                         "/rules/1/effect/position"),
    "window backwards": ({"rules": [rule("block", items("v1"), window={
        "from": "2026-01-02T00:00", "until": "2026-01-01T00:00", "zone": "Europe/Paris"})]}, "/rules/0/window/until"),
    "unknown zone": ({"rules": [rule("block", items("v1"), window={
        "from": "2026-01-02T00:00", "zone": "Mars/Olympus"})]}, "/rules/0/window/zone"),
    "101 rules": ({"rules": [rule("bury", items("v1"), {"factor": 0.9}, id=f"r{n}") for n in range(101)]}, "/rules"),
    "another tenant's playlist": ({"rules": [rule("block", {"playlist": "theirs"})]}, "/rules/0/target/playlist"),
    "no object": ([], ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_whole(editor: Editor, name: str) -> None:
    """Not as a draft, not by validation, and the field is named with what is allowed."""
    policy, pointer = BAD[name]
    editor.get()
    assert pointer in editor.problems(policy)
    answer = read(editor.draft(policy), 422)  # type: ignore[arg-type]
    assert f"/policy{pointer}" in {one["pointer"] for one in answer["errors"]}
    assert editor.get()["draft"] is None


def test_filters_nested_fifty_deep(editor: Editor) -> None:
    """Named, not followed; a hundred thousand levels are no JSON for us at all."""
    target: Json = {"tag": ["a"]}
    for _ in range(50):
        target = {"not": target}
    found = editor.problems({"rules": [rule("block", {"filter": target})]})
    assert any("nested" in words for words in found.values())
    bottomless = b'{"policy":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert editor.send("POST", ":validate", bottomless).status_code == 400


def test_a_huge_body_is_refused_unread(editor: Editor) -> None:
    """50 MB are 413, whether the length is declared or not."""
    editor.get()
    huge = b'{"policy": "' + b"x" * (50 << 20) + b'"}'
    assert editor.send("POST", ":validate", huge).status_code == 413


def test_all_problems_come_at_once(editor: Editor) -> None:
    """Five mistakes, five pointers."""
    policy = {
        "weights": {"similarity": "much", "charm": 1},
        "limits": {"max_age": 11},
        "rules": [rule("boost", items("v1"), {"factor": 99}), rule("blok", items("v1"), id="b", priority=1000)],
    }
    assert {
        "/weights/similarity", "/weights/charm", "/limits/max_age", "/rules/0/effect/factor", "/rules/1/kind",
        "/rules/1/priority",
    } <= set(editor.problems(policy))  # fmt: skip


@pytest.mark.parametrize(
    ("pin", "why"),
    [
        (rule("pin", items("nobody"), {"position": 0}), "no video"),
        (rule("pin", items("v59"), {"position": 0}, when={"age_band": ["13-15"]}), "maturity"),
        (rule("pin", items("v58"), {"position": 0}, when={"country": ["FR"]}), "countries"),
    ],
)
def test_a_pin_that_can_never_be_eligible_is_refused(editor: Editor, pin: Json, why: str) -> None:
    """And the reason is said."""
    found = editor.problems({"rules": [pin]})
    assert why in found["/rules/0"]


def test_a_pin_that_another_rule_blocks_is_refused(editor: Editor) -> None:
    """A block wins over every pin, so the pin would be a promise nobody keeps."""
    rules = [rule("pin", items("v1"), {"position": 0}), rule("block", items("v1"))]
    assert "blocks it" in editor.problems({"rules": rules})["/rules/0"]


def test_rules_that_drive_too_much_are_warned_of_then_refused(editor: Editor) -> None:
    """Above 30 % a warning, above 50 % a refusal; a few pins are neither."""

    def pins(count: int) -> Json:
        return {"rules": [rule("pin", items(f"v{n}"), {"position": n}, id=f"p{n}") for n in range(count)]}

    few = read(editor.send("POST", ":validate", {"policy": pins(4)}), 200)
    assert few["valid"]
    assert 15 <= few["rules_drive_percent"] <= 20  # of some made-up users one is seen already
    assert not few["warnings"]
    many = read(editor.send("POST", ":validate", {"policy": pins(7)}), 200)
    assert many["valid"]
    assert any("rules drive 3" in one["detail"] for one in many["warnings"])
    refused = editor.problems(pins(12))["/rules"]
    assert "at most 50% are allowed" in refused and "now, no hints" in refused and "p1 9%" in refused
    editor.get()
    read(editor.draft(pins(12)), 200)
    assert editor.send("POST", ":publish", {"author": "ada", "reason": "mine"}).status_code == 422


def test_each_driven_slot_counts_for_the_rule_that_drove_it(editor: Editor) -> None:
    """A pin for the slot it filled; a boost for what it lifted onto the page; nothing twice, nothing for a bury."""
    rules = [
        rule("pin", items("v9"), {"position": 0}, id="first"),
        rule("boost", items(*(f"v{n}" for n in range(50, 55))), {"factor": 5.0}, id="lift"),
        rule("bury", items("v1"), {"factor": 0.2}, id="drop"),
    ]
    found = read(editor.send("POST", ":validate", {"policy": {"rules": rules}}), 200)
    for run in found["dry_run"]:
        assert run["driven"] == sum(run["driven_by"].values()) <= run["items"]
        assert set(run["driven_by"]) <= {"first", "lift"}
    cold = next(run for run in found["dry_run"] if run["user"] == "cold")
    assert cold["driven_by"]["first"] == 1
    bare = read(editor.send("POST", ":preview", {"policy": {"rules": rules[:1]}, "limit": 20}), 200)["users"][0]
    here = {one["id"] for one in bare["draft"]}
    lifted = {one["id"] for one in read(
        editor.send("POST", ":preview", {"policy": {"rules": rules[:2]}, "limit": 20}), 200
    )["users"][0]["draft"]} - here  # fmt: skip
    assert cold["driven_by"].get("lift", 0) == len(lifted & {f"v{n}" for n in range(50, 55)}) > 0


def test_a_page_that_falls_short_only_because_of_rules_is_refused(editor: Editor) -> None:
    """Sixty videos fill a page; a rule that leaves three of them does not."""
    policy = {"rules": [rule("require", items("v1", "v2", "v3"))]}
    assert "falls short only because of rules" in editor.problems(policy)["/rules"]
    assert editor.problems({"rules": [rule("block", items("v1", "v2", "v3"))]}) == {}


def test_preview_shows_the_draft_beside_what_is_live(s: System, editor: Editor) -> None:
    """For a cold, some made-up and a real user, each item with its reasons; the live page is the feed's own."""
    s.events(TENANT, "pia", ("like", "v3"), ("like", "v6"))
    body = {
        "policy": {"rules": [rule("pin", items("v10"), {"position": 1}), rule("block", items("v0"))]},
        "users": [s.user_id("pia")],
        "limit": 10,
    }
    pages = {one["user"]: one for one in read(editor.send("POST", ":preview", body), 200)["users"]}
    assert set(pages) == {"cold", "sample 1", "sample 2", "sample 3", "user 1"}
    pinned = pages["user 1"]["draft"][1]
    assert (pinned["id"], pinned["placed_by"], pinned["rules"][0]["rule"]) == ("v10", "pin", "pin-rule")
    assert all(one["id"] != "v0" for page in pages.values() for one in page["draft"])
    for page in pages.values():
        for one in page["live"] + page["draft"]:
            assert sum(part["contribution"] for part in one["features"]) == pytest.approx(one["base"], abs=1e-4)
    left = {one["id"]: one["missing"]["code"] for page in pages.values() for one in page["left"] if "missing" in one}
    assert left.get("v0", "blocked") == "blocked"


def test_preview_at_a_chosen_time_and_place(editor: Editor) -> None:
    """A rule with a window and a country acts then and there, and not before or elsewhere."""
    window = {"from": "2030-06-01T00:00", "until": "2030-06-02T00:00", "zone": "Europe/Berlin"}
    pin = rule("pin", items("v58"), {"position": 0}, window=window, when={"country": ["DE"]})

    def pinned_first(at: str, country: str) -> bool:
        body = {"policy": {"rules": [pin]}, "at": at, "country": country, "limit": 5}
        cold = read(editor.send("POST", ":preview", body), 200)["users"][0]
        top = cold["draft"][0]
        return (top["id"], top["placed_by"]) == ("v58", "pin")

    assert pinned_first("2030-05-31T22:00:00Z", "DE")
    assert not pinned_first("2030-05-31T21:59:59Z", "DE")
    assert not pinned_first("2030-06-01T22:00:00Z", "DE")
    assert not pinned_first("2030-06-01T12:00:00Z", "FR")
    for bad in ({"country": "XX"}, {"at": "noon"}, {"users": ["ada@example.org"]}, {"users": "all"}, {"limit": 0}):
        assert editor.send("POST", ":preview", {"policy": {}, **bad}).status_code == 400
    for far in ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        refused = read(editor.send("POST", ":preview", {"policy": {}, "at": far}), 400)
        assert "1971 to 2105" in refused["errors"][0]["detail"]


def test_a_tenant_sees_and_changes_only_its_own(s: System, editor: Editor) -> None:
    """The tenant comes from the key; a publishable key may do nothing here."""
    read(editor.publish({"weights": {"freshness": 0.9}}), 200)
    assert Editor(s, OTHER).get()["live"] is None
    for path in ("/v1/admin/policy", "/v1/admin/policy/history", "/v1/admin/playlists"):
        assert s.call("GET", path, s.tenants[TENANT].publishable).status_code == 403
    assert s.call("GET", "/v1/admin/tenants", s.tenants[TENANT].secret).status_code == 403


def test_playlists_are_targets_of_rules(s: System, editor: Editor) -> None:
    """Made over the API, a rule may aim at it, and what is in it follows within seconds."""

    def send(method: str, version: int | None, body: Json | None = None) -> httpx.Response:
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return s.call(method, "/v1/admin/playlists/summer", editor.key, json=body, headers=headers)

    assert send("PUT", None, {"title": "Summer", "videos": ["v1"]}).status_code == 428
    assert send("PUT", 0, {"title": "Summer", "videos": ["v1", "nobody"]}).status_code == 422
    made = read(send("PUT", 0, {"title": "Summer", "videos": ["v1", "v2"]}), 200)
    assert (made["videos"], made["version"]) == (["v1", "v2"], 1)
    assert send("PUT", 0, {"title": "Summer", "videos": []}).status_code == 412
    read(editor.publish({"rules": [rule("block", {"playlist": "summer"})]}), 200)
    s.gone(TENANT, "v1")
    read(send("PUT", 1, {"title": "Summer", "videos": ["v2"]}), 200)
    s.visible(TENANT, "v1")
    assert s.stored(TENANT, "v2")["playlists"] == ["summer"]
    listed = read(s.call("GET", "/v1/admin/playlists", editor.key), 200)["playlists"]
    assert listed == [{"id": "summer", "title": "Summer", "version": 2, "videos": 1}]
    assert send("DELETE", 2).status_code == 204
    assert send("GET", None).status_code == 404
    assert s.stored(TENANT, "v2")["playlists"] == []


def test_the_audit_says_who_and_why(s: System, editor: Editor) -> None:
    """Each publish and rollback with from, to and reason; only an operator may read it."""
    read(editor.publish({"weights": {"freshness": 0.3}}, "first"), 200)
    assert s.call("GET", f"/v1/admin/audit?scope={TENANT}", editor.key).status_code == 403


def test_the_feed_for_nobody_obeys_the_same_rules(s: System, editor: Editor) -> None:
    """Pins, blocks and caps hold on the non-personalised feed as well."""
    rules = [
        rule("pin", items("v7"), {"position": 1}),
        rule("block", {"filter": {"tag": ["chess"]}}),
        rule("cap", None, {"max": 1, "per": "creator", "window": 4}),
    ]
    read(editor.publish({"rules": rules}), 200)
    path, key = f"/v1/tenants/{TENANT}/feed/default", s.tenants[TENANT].publishable
    shown: list[Json] = []

    def pinned() -> bool:
        shown[:] = read(s.call("GET", path, key), 200)["items"]
        return bool(shown[1]["id"] == "v7")

    s.in_every_worker(pinned, within_s=3)
    assert len(shown) == 20
    assert all("chess" not in item["tags"] for item in shown)
    creators = [item["creator"] for item in shown]
    assert all(len(set(creators[n : n + 4])) == 4 for n in range(4, 17))
