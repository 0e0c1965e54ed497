"""Keys and user ids over HTTP: hashed at rest, rotated with overlap, told apart by scope; only hashes are user ids."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.auth import USER_ID, rekeyed
from tests.support.keys import change_tenants, new_key
from tests.support.running import finished, user_id, video
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two tenants with a video each."""
    tenants = {name: [video(f"{name}-1", "one")] for name in ("acme", "other")}
    with served(tmp_path_factory.mktemp("auth"), tenants) as started:
        yield started


def feed(service: Served, key: str, **headers: str) -> httpx.Response:
    """The feed for whoever holds this key."""
    return service.client.get("/v1/feed", headers={"Authorization": f"Bearer {key}", **headers})


def test_a_key_is_kept_as_its_hash_only(service: Served) -> None:
    """Neither the database nor the last good copy on disk holds a key in clear, or a user id."""
    made = new_key(service, "acme", "pk")
    assert feed(service, made.clear, **{"Feed-User": user_id("somebody")}).status_code == 200
    with sqlite3.connect(service.place.folder / "feed.db") as database:
        dump = "\n".join(database.iterdump())
    copies = [path.read_text("latin-1") for path in (service.place.folder / "state").iterdir() if path.is_file()]
    for secret in (made.clear, made.clear[3:], user_id("somebody")):
        assert not any(secret in text for text in (dump, *copies))


def test_rotation_overlaps(service: Served) -> None:
    """Both keys work until the old one's end; from that second on only the new one does."""
    old, new = new_key(service, "acme", "pk"), new_key(service, "acme", "pk")
    began_s = service.now_s
    change_tenants(service, "expire_key", old.id, began_s + 100, began_s)
    try:
        service.now_s = began_s + 90
        assert (feed(service, old.clear).status_code, feed(service, new.clear).status_code) == (200, 200)
        service.now_s = began_s + 101
        assert (feed(service, old.clear).status_code, feed(service, new.clear).status_code) == (401, 200)
    finally:
        service.now_s = began_s


def test_unknown_expired_and_revoked_keys_look_the_same(service: Served) -> None:
    """One answer for all three, so that nobody learns which keys once were good."""
    revoked = new_key(service, "acme", "pk")
    change_tenants(service, "revoke", revoked.id, int(time.time()))
    expired = new_key(service, "acme", "pk", expires_s=int(time.time()) + 1)
    began_s = service.now_s
    service.now_s = began_s + 10
    answers = [feed(service, key) for key in (revoked.clear, expired.clear, "pk_" + "x" * 43, "nonsense")]
    service.now_s = began_s
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": ""}, {"Authorization": "Basic abc"}, {"Authorization": "Bearer"}]
)
def test_no_key_is_told_how(service: Served, header: dict[str, str]) -> None:
    """401 that says what to send."""
    answer = service.client.get("/v1/feed", headers=header)
    assert answer.status_code == 401
    assert answer.json()["type"] == "/problems/unauthenticated"
    assert "Authorization: Bearer" in answer.json()["detail"]


def test_scopes_are_apart(service: Served) -> None:
    """An app's key cannot change the catalogue, a server's key is not for apps, an operator's is for neither."""
    admin = new_key(service, None, "adm").clear
    publishable, secret = service.keys["acme"].publishable, service.keys["acme"].secret
    put = {"videos": [video("x", "x")]}
    for key in (publishable, admin):
        answer = service.client.put("/v1/admin/videos", headers={"Authorization": f"Bearer {key}"}, json=put)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden-scope")
    for key in (secret, admin):
        answer = feed(service, key)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden-scope")


def test_a_suspended_tenant_is_told_apart_and_comes_back(service: Served) -> None:
    """403 for every key of it, nothing for the others, and all is as before when it is resumed."""
    change_tenants(service, "suspend", "other", service.now_s)
    answer = service.get("/v1/feed", "other")
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/tenant-suspended")
    assert service.get("/v1/admin/videos", "other", scope="sk").status_code == 403
    assert service.get("/v1/feed", "acme").status_code == 200
    change_tenants(service, "resume", "other", service.now_s)
    assert service.get("/v1/feed", "other").status_code == 200


REFUSED = [
    "anna@example.org",
    "+49 170 1234567",
    "491701234567890123",
    "12345",
    "a" * 31,
    "a" * 129,
    "a" * 31 + "@",
    "4917012345678901234567890123456789.",
]


@pytest.mark.parametrize("given_id", REFUSED)
def test_ids_that_are_no_hash_are_refused_and_not_logged(
    service: Served, given_id: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """An address, a number, something short: 400 that names the header and what is wanted, never the value."""
    for method, path in (("GET", "/v1/feed"), ("POST", "/v1/events")):
        answer = service.client.request(
            method,
            path,
            headers={"Authorization": f"Bearer {service.keys['acme'].publishable}", "Feed-User": given_id},
            **({"json": {"events": [{}]}} if method == "POST" else {}),  # type: ignore[arg-type]  # one of two shapes
        )
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == "/headers/Feed-User"
        assert given_id not in answer.text + "".join(capfd.readouterr())


@given(st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_only_hashes_look_like_hashes(text: str) -> None:
    """Nothing with an @, a dot, a space, a plus or another script passes, and nothing short."""
    if USER_ID.fullmatch(text):
        assert len(text) >= 32
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def test_two_tenants_users_cannot_be_linked(service: Served) -> None:
    """The same person in two apps is kept under two names, and neither is the hash the apps sent."""
    kept, headers = set(), {"Authorization": f"Bearer {service.admin_key}"}
    for name in ("first-app", "second-app"):
        before = service.resources.live.config.version
        made = service.client.post("/v1/admin/tenants", headers=headers, json={"id": name, "name": name})
        assert made.status_code == 201
        service.configured(before)
        kept.add(rekeyed(user_id("one person"), service.resources.live.config.tenants[name].pepper, ""))
    assert len(kept) == 2


def test_the_hash_an_app_sends_is_not_kept(service: Served) -> None:
    """Of all keys and values in Redis, none holds what stood in Feed-User; there is a journal all the same."""
    service.events("acme", "one person", ("like", "acme-1"))
    service.feed("acme", "one person")

    async def everything() -> list[bytes]:
        async with Redis.from_url(service.place.redis_url, protocol=2) as redis:
            found = [key async for key in redis.scan_iter("*")]
            return [key + (await redis.dump(key) or b"") for key in found]

    stored = finished(everything())
    assert any(one.startswith(b"j:") for one in stored)
    assert not any(user_id("one person")[:16].encode() in one for one in stored)
