"""Webhooks of a CMS: signed or refused, stored before answered, applied once and in the order of the changes."""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.catalogue import Catalogue
from retrieval.deliveries import Deliveries
from retrieval.errors import NotFound, StoreUnavailable
from retrieval.leases import Leases
from service.errors import InvalidRequest, Unauthenticated
from service.webhooks import TOLERANCE_S, Sweep, read_change, verify
from tests.support.databases import NOW_S
from tests.support.running import Json, System, eventually, read, system, video

KEY = b"k" * 32
BODY = b'{"type":"video.removed","timestamp":"2026-11-22T12:00:00Z","data":{"id":"a"}}'
_numbers = itertools.count()


def signed(body: bytes, key: bytes = KEY, *, delivery: str = "msg_1", at_s: int = NOW_S) -> dict[str, str]:
    """The headers a CMS would send."""
    signature = base64.b64encode(hmac.digest(key, f"{delivery}.{at_s}.".encode() + body, "sha256")).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{signature}"}


def event(kind: str, data: Json, changed: float) -> bytes:
    """A delivery's body; `changed` is seconds after the start of a day."""
    moment = f"2026-11-22T00:{int(changed) // 60:02d}:{changed % 60:09.6f}Z"
    return json.dumps({"type": kind, "timestamp": moment, "data": data}).encode()


def test_a_published_example_verifies() -> None:
    """The test vector of the Standard Webhooks specification's reference libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert verify(headers, b'{"test": 2432232314}', [key], now_s=1614265330) == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_what_is_signed_now_by_a_known_secret_is_taken() -> None:
    """Also with several secrets and several signatures, in any order, during a rotation."""
    headers = signed(BODY)
    assert verify(headers, BODY, [KEY], now_s=NOW_S) == "msg_1"
    assert verify(headers, BODY, [b"x" * 32, KEY], now_s=NOW_S + TOLERANCE_S) == "msg_1"
    headers["webhook-signature"] = f"v1,AAAA v2,{'x' * 9} {headers['webhook-signature']}"
    assert verify(headers, BODY, [KEY], now_s=NOW_S - TOLERANCE_S) == "msg_1"


@pytest.mark.parametrize(
    ("change", "body", "keys", "late_s"),
    [
        ({}, BODY + b" ", [KEY], 0),
        ({}, BODY, [b"x" * 32], 0),
        ({}, BODY, [], 0),
        ({}, BODY, [KEY], TOLERANCE_S + 1),
        ({}, BODY, [KEY], -TOLERANCE_S - 1),
        ({"webhook-id": "msg_2"}, BODY, [KEY], 0),
        ({"webhook-id": ""}, BODY, [KEY], 0),
        ({"webhook-timestamp": str(NOW_S + 1)}, BODY, [KEY], 0),
        ({"webhook-timestamp": "now"}, BODY, [KEY], 0),
        ({"webhook-timestamp": "9" * 5000}, BODY, [KEY], 0),
        ({"webhook-signature": ""}, BODY, [KEY], 0),
        ({"webhook-signature": "v1,"}, BODY, [KEY], 0),
        ({"webhook-signature": "v1,\u00e9"}, BODY, [KEY], 0),
        ({"webhook-signature": "v1," + "A" * 10_000}, BODY, [KEY], 0),
    ],
)
def test_everything_else_is_refused_alike(change: dict[str, str], body: bytes, keys: list[bytes], late_s: int) -> None:
    """Forged, altered, replayed later, unknown: one answer that says nothing about which."""
    with pytest.raises(Unauthenticated) as caught:
        verify(signed(BODY) | change, body, keys, now_s=NOW_S + late_s)
    assert str(caught.value) == "the delivery is not signed by a secret of this tenant, or not just now"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"junk", {""}),
        (b"[]", {""}),
        (b"{}", {"/type", "/timestamp"}),
        (b'{"type":"video.removed","timestamp":"2026-01-01T00:00:00","data":{"id":"a"}}', {"/timestamp"}),
        (b'{"type":"video.upserted","timestamp":"2026-01-01T00:00:00Z","data":[]}', {"/data/id"}),
        (b'{"type":"video.removed","timestamp":1,"data":{"id":""}}', {"/timestamp", "/data/id"}),
    ],
)
def test_a_body_that_says_nothing_is_refused(body: bytes, pointers: set[str]) -> None:
    """All problems at once, so that whoever writes the CMS's side can mend it."""
    with pytest.raises(InvalidRequest) as caught:
        read_change(body)
    assert {problem.pointer for problem in caught.value.problems} == pointers


@pytest.fixture
async def sweep(engine: AsyncEngine, tenant: str) -> AsyncIterator[Sweep]:
    """A sweep whose loop does not run: the test says when."""
    yield Sweep(Deliveries(engine), Catalogue(engine), Leases(engine), dim=8, clock=lambda: float(NOW_S))


async def deliver(sweep: Sweep, tenant: str, body: bytes, delivery: str | None = None) -> bool:
    """Store a delivery as the route does."""
    name = delivery or f"msg_{next(_numbers)}"
    return await sweep.deliveries.store(tenant, name, body, NOW_S)


async def test_a_delivery_is_applied_once(sweep: Sweep, tenant: str) -> None:
    """The same id again changes nothing, before and after it was applied."""
    body = event("video.upserted", video("a", "Bread"), 1)
    assert await deliver(sweep, tenant, body, "m1")
    assert not await deliver(sweep, tenant, body, "m1")
    assert await sweep.once() == 1
    version = (await sweep.catalogue.versions())[tenant]
    assert not await deliver(sweep, tenant, event("video.removed", {"id": "a"}, 9), "m1")
    assert await sweep.once() == 0
    assert (await sweep.catalogue.versions())[tenant] == version
    assert (await sweep.catalogue.get(tenant, "a")).title == "Bread"


async def test_bad_ones_and_foreign_ones_are_told_and_passed_over(sweep: Sweep, tenant: str) -> None:
    """One that cannot be stored does not keep the others from it, and its outcome says why."""
    await deliver(sweep, tenant, event("video.upserted", {"id": "bad"}, 1), "bad")
    await deliver(sweep, tenant, event("video.liked", {"id": "a"}, 1), "other")
    await deliver(sweep, tenant, event("video.upserted", video("a", "Bread"), 1), "good")
    await deliver(sweep, tenant, event("video.removed", {"id": "never-was"}, 1), "gone")
    assert await sweep.once() == 4
    outcomes = {one.id: one.outcome for one in await sweep.deliveries.recent(tenant, 10)}
    assert outcomes["bad"].startswith("refused: /title is required")
    assert outcomes["other"] == "ignored: not about videos"
    assert (outcomes["good"], outcomes["gone"]) == ("stored", "removed")


@pytest.mark.parametrize("in_one_sweep", [True, False])
async def test_an_older_change_is_ignored(sweep: Sweep, tenant: str, in_one_sweep: bool) -> None:
    """It arrives after the newer one, in the same sweep or a later one: nothing changes, and its outcome says why."""
    await deliver(sweep, tenant, event("video.upserted", video("a", "new"), 9), "newer")
    if not in_one_sweep:
        await sweep.once()
    await deliver(sweep, tenant, event("video.upserted", video("a", "old"), 5), "older")
    await deliver(sweep, tenant, event("video.removed", {"id": "a"}, 7), "removal")
    await sweep.once()
    stored = await sweep.catalogue.get(tenant, "a")
    assert (stored.title, stored.status) == ("new", "published")
    outcomes = {one.id: one.outcome for one in await sweep.deliveries.recent(tenant, 10)}
    assert outcomes == {"newer": "stored", "older": "ignored: an older change", "removal": "ignored: an older change"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=8), data=st.data())
async def test_whatever_the_order_the_last_change_wins(
    sweep: Sweep, tenant: str, changes: list[tuple[str, bool]], data: st.DataObject
) -> None:
    """Deliveries in any order, in any number of sweeps, repeated: the catalogue ends where the CMS ended."""
    run = next(_numbers)
    sent = []
    for moment, (name, removed) in enumerate(changes):
        video_id = f"{name}{run}"
        content = {"id": video_id} if removed else video(video_id, f"title {moment}")
        sent.append((video_id, event("video.removed" if removed else "video.upserted", content, moment)))
    ended = dict(sent)
    for _, body in data.draw(st.permutations(sent)) + data.draw(st.lists(st.sampled_from(sent), max_size=3)):
        await deliver(sweep, tenant, body)
        if data.draw(st.booleans()):
            await sweep.once()
    await sweep.once()
    for video_id, body in ended.items():
        last = json.loads(body)
        try:
            stored = await sweep.catalogue.get(tenant, video_id)
            assert (stored.status, stored.title) == ("published", last["data"].get("title")) or (
                stored.status == "removed" and last["type"] == "video.removed"
            )
        except NotFound:
            assert last["type"] == "video.removed"


async def test_a_crash_in_the_middle_loses_nothing(sweep: Sweep, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applied but not yet noted: the next sweep applies it again, to the same end."""
    await deliver(sweep, tenant, event("video.upserted", video("a", "Bread"), 1))

    async def crash(*_: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(sweep.deliveries, "settle", crash)
        with pytest.raises(StoreUnavailable):
            await sweep.once()
    version = (await sweep.catalogue.versions())[tenant]
    assert await sweep.once() == 1
    assert (await sweep.catalogue.versions())[tenant] == version


async def test_two_sweeps_share_the_work(sweep: Sweep, tenant: str, engine: AsyncEngine) -> None:
    """Only one is at it at a time; together they leave nothing."""
    other = Sweep(Deliveries(engine), Catalogue(engine), Leases(engine), dim=8, clock=lambda: float(NOW_S))
    for number in range(20):
        await deliver(sweep, tenant, event("video.upserted", video(f"v{number}", "t"), number))
    done = await asyncio.gather(sweep.once(), other.once())
    assert sorted(done) == [0, 20]
    assert not await sweep.deliveries.any_waiting()


async def test_secrets_rotate_with_overlap(sweep: Sweep, tenant: str) -> None:
    """The old one is good until the overlap ends; settled deliveries are forgotten after a week, waiting ones never."""
    deliveries = sweep.deliveries
    assert await deliveries.secrets(tenant, NOW_S) == await deliveries.secrets("a\0", NOW_S) == []
    first = await deliveries.new_secret(tenant, NOW_S, overlap_s=60, who="ada")
    await deliveries.new_secret(tenant, NOW_S + 10, overlap_s=60, who="ada")
    assert base64.b64decode(first.clear.removeprefix("whsec_")) in await deliveries.secrets(tenant, NOW_S + 69)
    assert len(await deliveries.secrets(tenant, NOW_S + 70)) == 1
    await deliver(sweep, tenant, event("video.upserted", video("a", "t"), 1))
    await sweep.once()
    await deliver(sweep, tenant, event("video.upserted", video("b", "t"), 1))
    assert await deliveries.forget(NOW_S + 6 * 86_400) == 0
    assert await deliveries.forget(NOW_S + 8 * 86_400) == 1
    assert len(await deliveries.recent(tenant, 10)) == 1


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system."""
    with system(tmp_path_factory.mktemp("webhooks"), redis_database, {"cms": [video("old", "old")]}) as running:
        yield running


def test_from_the_cms_to_the_feed(s: System) -> None:
    """Over HTTP: 202, and in the feed within seconds; a forged one is 401 and changes nothing."""
    secret = read(s.call("POST", "/v1/admin/webhooks/secrets", s.tenants["cms"].secret, json={}), 201)["secret"]
    key = base64.b64decode(secret.removeprefix("whsec_"))

    def post(body: bytes, headers: dict[str, str], tenant: str = "cms") -> httpx.Response:
        url = f"{s.base_url}/v1/webhooks/cms?tenant={tenant}"
        return httpx.post(url, content=body, headers={"Content-Type": "application/json", **headers}, timeout=10)

    body = event("video.upserted", video("hooked", "Bread"), 1)
    now_s = int(time.time())
    assert post(body, signed(body, b"x" * 32, at_s=now_s)).status_code == 401
    assert post(body, signed(body, key, at_s=now_s), "other").status_code == 401
    assert post(body, signed(body, key, at_s=now_s - 301)).status_code == 401
    assert post(b"{}", signed(b"{}", key, at_s=now_s)).status_code == 400
    assert read(post(body, signed(body, key, at_s=now_s)), 202)["status"] == "stored"
    assert read(post(body, signed(body, key, at_s=now_s)), 202)["status"] == "known"
    s.visible("cms", "hooked")
    path = "/v1/admin/webhooks/deliveries"
    eventually(lambda: read(s.call("GET", path, s.tenants["cms"].secret), 200)["deliveries"][0]["outcome"] == "stored")
