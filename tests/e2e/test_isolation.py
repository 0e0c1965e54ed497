"""Nobody learns anything about another tenant: every operation of the API, asked with every kind of wrong key.

Generated from the table of operations, so that a new one is asked too. "Looks exactly like" means: the same status and
the same body once the id that was asked for is taken out of it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from retrieval.database import connect
from retrieval.deliveries import Deliveries, Delivery
from retrieval.tenants import NewKey
from service.operation import Operation
from service.operations import OPERATIONS
from tests.service.test_openapi import request_of
from tests.service.test_webhooks import signed
from tests.support.keys import change_tenants, new_key
from tests.support.running import finished, user_id, video
from tests.support.served import Served, served

by_name = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
with_key = pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.scope], ids=lambda operation: operation.name
)
FOREIGN = "only-theirs"
UNKNOWN = "nobody-has-it"


class World:
    """Two tenants; the other one has everything under ids that acme does not have, and keys of every kind."""

    def __init__(self, service: Served) -> None:
        self.service = service
        own = service.keys["acme"]
        revoked = {scope: new_key(service, "acme", scope) for scope in ("pk", "sk")}
        revoked["adm"] = new_key(service, None, "adm")
        for key in revoked.values():
            change_tenants(service, "revoke", key.id, service.now_s)
        self.own = {"pk": own.publishable, "sk": own.secret, "adm": service.admin_key}
        self.revoked = {scope: key.clear for scope, key in revoked.items()}
        self.expired = {
            scope: new_key(service, None if scope == "adm" else "acme", scope, expires_s=service.now_s + 1).clear
            for scope in ("pk", "sk", "adm")
        }
        of_asleep = _bearer(new_key(service, "asleep", "sk"))
        made = service.client.post("/v1/admin/webhooks/secrets", json={}, headers=of_asleep)
        self.secret = base64.b64decode(made.json()["secret"].removeprefix("whsec_"))
        suspended = new_key(service, "asleep", "pk").clear, new_key(service, "asleep", "sk").clear
        self.suspended = dict(zip(("pk", "sk"), suspended, strict=True))
        change_tenants(service, "suspend", "asleep", service.now_s)
        service.now_s += 2  # past the expired keys
        self.ids = self.theirs()

    def theirs(self) -> dict[str, str]:
        """Something of every kind that the other tenant has: path prefix -> its id."""
        page = self.service.feed("other", "their user")
        self.service.call(
            "PUT", f"/v1/admin/playlists/{FOREIGN}", "other", scope="sk", headers={"If-Match": '"0"'},
            json={"title": "theirs", "videos": [FOREIGN]},
        ).raise_for_status()  # fmt: skip
        erased = self.service.call("DELETE", f"/v1/users/{user_id('their user')}", "other", scope="sk")
        return {
            "/v1/tenants/": "other",
            "/v1/erasures/": erased.json()["id"],
            "/v1/admin/videos/": FOREIGN,
            "/v1/admin/playlists/": FOREIGN,
            "/v1/explain/": page["request_id"],
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service, and all these keys."""
    tenants = {
        "acme": [video("talk-1", "ours"), video("talk-2", "ours")],
        "other": [video(FOREIGN, "theirs")],
        "asleep": [],
    }
    with served(tmp_path_factory.mktemp("isolation"), tenants) as started:
        yield World(started)


def ask(world: World, operation: Operation, key: str, **ids: str) -> httpx.Response:
    """An operation with its examples; `ids` stand in for parameters of its path."""
    request = request_of(operation, key)
    for parameter in operation.parameters:
        if parameter.place == "path" and parameter.name in ids:
            request["url"] = request["url"].replace(str(parameter.example), ids[parameter.name])
    return world.service.client.request(**request)


@with_key
def test_a_bad_key_is_a_bad_key(world: World, operation: Operation) -> None:
    """None, nonsense, revoked and expired: 401 everywhere, the last three with the same words."""
    scope = operation.scope or ""
    none = ask(world, operation, "")
    bad = [ask(world, operation, key) for key in ("nonsense", world.revoked[scope], world.expired[scope])]
    assert [answer.status_code for answer in (none, *bad)] == [401] * 4
    assert len({answer.content for answer in bad}) == 1
    assert none.json()["type"] == "/problems/unauthenticated"


@with_key
def test_a_key_of_another_scope_is_refused(world: World, operation: Operation) -> None:
    """403 for every scope the document does not name, whatever tenant it is of. A secret key may only have a feed
    explained, which is not asked for here."""
    allowed = {operation.scope} if operation.path == "/v1/feed" else {operation.scope, *operation.also}
    for scope in {"pk", "sk", "adm"} - allowed:
        answer = ask(world, operation, world.own[scope])
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden-scope")


@with_key
def test_a_suspended_tenant_gets_nothing(world: World, operation: Operation) -> None:
    """403, the same for every operation of its own."""
    if operation.scope in world.suspended:
        answer = ask(world, operation, world.suspended[operation.scope])
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/tenant-suspended")


def test_a_suspended_tenants_cms_is_told(world: World) -> None:
    """403 for a delivery it signed, and nothing of it is stored; who cannot sign does not even learn that."""
    body = b'{"type":"video.removed","timestamp":"2026-11-22T12:00:00Z","data":{"id":"a"}}'
    answers = {}
    for name, key in (("signed", world.secret), ("forged", b"x" * 32)):
        headers = {"Content-Type": "application/json", **signed(body, key, at_s=world.service.now_s)}
        answers[name] = [
            world.service.client.post(f"/v1/webhooks/cms?tenant={tenant}", content=body, headers=headers)
            for tenant in ("asleep", "nobody")
        ]
    assert [one.status_code for one in answers["signed"]] == [403, 401]
    assert answers["signed"][0].json()["type"] == "/problems/tenant-suspended"
    assert {one.content for one in answers["forged"]} == {answers["signed"][1].content}
    assert finished(_deliveries(world, "asleep")) == []


async def _deliveries(world: World, tenant: str) -> list[Delivery]:
    engine = connect(world.service.place.database_url)
    try:
        return await Deliveries(engine).recent(tenant, 10)
    finally:
        await engine.dispose()


def _bearer(key: NewKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.clear}"}


@by_name
def test_what_is_theirs_looks_like_what_is_not(world: World, operation: Operation) -> None:
    """Each id in a path: the other tenant's and one nobody has get the same answer, and change nothing."""
    prefix = operation.path.partition("{")[0]
    if operation.scope in (None, "adm") or prefix not in world.ids:
        return
    theirs = world.ids[prefix]
    unknown = "".join(reversed(theirs)) if len(theirs) > 20 else UNKNOWN
    name = operation.path.partition("{")[2].partition("}")[0]
    found, not_found = (
        ask(world, operation, world.own[operation.scope or ""], **{name: one}) for one in (theirs, unknown)
    )
    assert found.status_code == not_found.status_code
    assert found.text.replace(theirs, "ID") == not_found.text.replace(unknown, "ID")
    if operation.method == "GET":
        assert found.status_code == 404


def test_every_kind_of_id_was_asked_for() -> None:
    """A path with an id in it is either asked for above, of a user (who has none), or the operators'."""
    prefixes = {one.path.partition("{")[0] for one in OPERATIONS if "{" in one.path and one.scope not in (None, "adm")}
    assert prefixes == {
        "/v1/tenants/", "/v1/users/", "/v1/erasures/", "/v1/admin/videos/", "/v1/admin/playlists/", "/v1/explain/",
    }  # fmt: skip


def test_their_ids_in_bodies_and_parameters_are_unknown_ids(world: World) -> None:
    """In events, playlists, previews and questions: what is theirs is answered as what does not exist."""
    service = world.service

    def both(method: str, path: str, body: Any, **more: Any) -> None:
        answers = []
        for one in (FOREIGN, UNKNOWN):
            sent = None if body is None else _with(body, one)
            answer = service.call(method, path.replace("ID", one), "acme", json=sent, **more)
            answers.append((answer.status_code, answer.text.replace(one, "ID")))
        assert answers[0] == answers[1]
        assert FOREIGN not in answers[0][1]

    event = {"id": "0190b6f2-7a5c-7c1e-9a6b-2f3d4c5b6a79", "type": "like", "item_id": "ID",
             "occurred_at": "2026-01-01T00:00:00Z"}  # fmt: skip
    both("POST", "/v1/events", {"events": [event]}, user="ours")
    tag = {"If-Match": '"0"'}
    both("PUT", "/v1/admin/playlists/new", {"title": "x", "videos": ["ID"]}, scope="sk", headers=tag)
    rule = {"id": "p", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["ID"]}}
    both("POST", "/v1/admin/policy:validate", {"policy": {"rules": [rule]}}, scope="sk")


def _with(body: Any, one: str) -> Any:
    """A body with ID replaced everywhere."""
    if isinstance(body, dict):
        return {name: _with(value, one) for name, value in body.items()}
    if isinstance(body, list):
        return [_with(value, one) for value in body]
    return one if body == "ID" else body


def test_nothing_of_the_other_tenant_was_changed_or_shown(world: World) -> None:
    """After all of this the other tenant is as it was, and no feed of acme ever holds its video."""
    service = world.service
    assert [item["id"] for item in service.feed("other")["items"]] == [FOREIGN]
    assert service.get(f"/v1/admin/playlists/{FOREIGN}", "other", scope="sk").json()["title"] == "theirs"
    assert service.get(f"/v1/admin/videos/{FOREIGN}", "other", scope="sk").json()["status"] == "published"
    assert FOREIGN not in {
        item["id"] for user in (None, "a", "their user") for item in service.feed("acme", user)["items"]
    }


def test_a_cursor_is_of_one_tenant(world: World) -> None:
    """The same user in both apps: the other app's cursor is no cursor."""
    service = world.service
    service.put("other", *(video(f"theirs-{n}", "more of theirs") for n in range(5)))
    cursor = service.feed("other", "one person", limit=1)["next_cursor"]
    answer = service.get("/v1/feed", "acme", user="one person", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")
