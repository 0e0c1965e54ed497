"""The reconciling sweep against a real HTTP server: what lost webhooks left out comes in, and no more goes than may."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from indexer import fetching
from indexer.fetching import FetchFailed, fetched
from indexer.listings import ListingSweep
from indexer.settings import IndexerSettings
from retrieval.catalogue import Catalogue
from retrieval.cms_listings import CmsListing, CmsListings
from retrieval.database import connect
from retrieval.deliveries import Deliveries
from retrieval.errors import InvalidInput, NotFound
from retrieval.leases import Leases
from retrieval.tenants import Tenants
from retrieval.videos import parse_videos
from tests.support.databases import NOW_S
from tests.support.running import HOST, Json, eventually, finished, read, system, video


@dataclass
class Cms:
    """A CMS's web server: `answers` by path are (status, headers, body), or do something to the request."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/videos", host: str = HOST) -> str:
        return f"http://{host}:{self.port}{path}"

    def lists(self, *videos: Json, path: str = "/videos", etag: str = "", made_s: float | None = None) -> None:
        """Answer with these videos, as a CMS would: with an ETag and a Last-Modified if there are any."""
        headers = {"ETag": etag} if etag else {}
        headers |= {} if made_s is None else {"Last-Modified": formatdate(made_s, usegmt=True)}
        self.answers[path] = 200, headers, b"".join(json.dumps(one).encode() + b"\n" for one in videos)


@pytest.fixture
def cms() -> Iterator[Cms]:
    """A CMS that lists nothing yet."""
    made = Cms()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            presented = self.headers.get("If-None-Match")
            made.asked.append((self.path, presented))
            answer = made.answers.get(self.path, (404, {}, b""))
            if callable(answer):
                answer(self)
                return
            status, headers, body = answer
            if presented and presented == headers.get("ETag"):
                status, body = 304, b""
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def sweep(engine: AsyncEngine, tenant: str) -> AsyncIterator[ListingSweep]:
    """A sweep that may go to this machine; its loop does not run."""
    settings = IndexerSettings(vector_dim=8, listings_private=True)
    stores = CmsListings(engine), Catalogue(engine), Deliveries(engine), Leases(engine)
    yield ListingSweep(*stores, settings, "test", clock=lambda: float(NOW_S))


def later(sweep: ListingSweep, seconds: int) -> None:
    """Move the sweep's clock: what changed in the very second a listing is fetched is left alone."""
    now_s = sweep.clock() + seconds
    sweep.clock = lambda: now_s


async def looked(sweep: ListingSweep, cms: Cms, tenant: str, *, forced: bool = False, **more: Any) -> CmsListing:
    """The listing after one look at it, set first if it is not."""
    try:
        listing = await sweep.listings.get(tenant)
    except NotFound:
        listing = await sweep.listings.set(CmsListing(tenant, cms.url(), **more), NOW_S, who="ada")
    await sweep.sweep(listing, forced=forced)
    return await sweep.listings.get(tenant)


async def standing(sweep: ListingSweep, tenant: str) -> dict[str, str]:
    """Id -> title of what is there."""
    page = await sweep.catalogue.page(tenant, "", 1000)
    return {one.id: one.title for one in page if one.status != "removed"}


async def test_the_catalogue_becomes_what_is_listed(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """New ones come, changed ones change, missing ones go, unchanged ones are not touched; gzip is unpacked."""
    cms.lists(video("a", "one"), video("b", "two"), video("c", "three"))
    assert (await looked(sweep, cms, tenant)).outcome == "3 created, 0 updated, 0 unchanged, 0 refused, 0 removed"
    cms.lists(video("a", "one"), video("b", "changed"), video("d", "four"), made_s=NOW_S + 300)
    status, headers, body = cms.answers["/videos"]
    cms.answers["/videos"] = status, {**headers, "Content-Encoding": "gzip"}, gzip.compress(body)
    cms.answers["/videos"][1]["Content-Length"] = str(len(cms.answers["/videos"][2]))
    later(sweep, 60)
    listing = await looked(sweep, cms, tenant)
    assert listing.outcome == "1 created, 1 updated, 1 unchanged, 0 refused, 1 removed"
    assert listing.done_s == listing.tried_s == NOW_S + 60
    assert await standing(sweep, tenant) == {"a": "one", "b": "changed", "d": "four"}


async def test_an_unchanged_listing_costs_one_question(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """Its ETag is presented and nothing is read; a failure in between does not make it forget."""
    cms.lists(video("a", "one"), etag='"v1"')
    await looked(sweep, cms, tenant)
    good = cms.answers["/videos"]
    cms.answers["/videos"] = 500, {}, b""
    assert (await looked(sweep, cms, tenant)).outcome == "failed: status 500"
    cms.answers["/videos"] = good
    assert (await looked(sweep, cms, tenant)).outcome == "unchanged"
    assert [tag for _, tag in cms.asked] == [None, '"v1"', '"v1"']
    assert (await looked(sweep, cms, tenant, forced=True)).outcome.startswith("0 created, 0 updated, 1 unchanged")


async def test_not_everything_vanishes_at_once(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """A listing that lacks too much takes nothing down, and is looked at again; what it has is stored; by force all."""
    videos = [video(f"v{n:02d}", f"t {n}") for n in range(40)]
    cms.lists(*videos, etag='"all"')
    await looked(sweep, cms, tenant, most_gone_percent=30)
    later(sweep, 60)
    cms.lists(*videos[:25], video("new", "new"), etag='"few"')
    listing = await looked(sweep, cms, tenant)
    assert listing.outcome == "failed: 15 of 41 videos are not on the list; 30 % may vanish at once"
    assert (len(await standing(sweep, tenant)), listing.etag) == (41, '"all"')
    assert "15 removed" in (await looked(sweep, cms, tenant, forced=True)).outcome
    assert len(await standing(sweep, tenant)) == 26
    cms.lists()
    assert (await looked(sweep, cms, tenant, forced=True)).outcome == "failed: the listing has no videos"
    assert len(await standing(sweep, tenant)) == 26


async def test_what_was_said_since_the_listing_was_made_stays(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """A newer webhook's video is neither set back, taken down nor brought back by an older listing."""
    made_s = NOW_S - 3600
    videos = [video(name, "old") for name in ("changed", "removed", "plain")]
    newer = {"changed": video("changed", "new"), "added": video("added", "new")}
    sent = [*newer.values(), video("removed", "old")]
    await sweep.catalogue.upsert(tenant, _parsed(sent), made_s + 60)
    await sweep.catalogue.remove(tenant, ["removed"], made_s + 60)
    changed_us = dict.fromkeys(("changed", "added", "removed"), (made_s + 60) * 1_000_000)
    await sweep.deliveries.settle(tenant, {}, changed_us, made_s + 60)
    cms.lists(*videos, made_s=made_s)
    await looked(sweep, cms, tenant)
    assert await standing(sweep, tenant) == {"changed": "new", "added": "new", "plain": "old"}
    cms.lists(*videos, made_s=made_s + 120)
    await looked(sweep, cms, tenant)
    assert await standing(sweep, tenant) == {"changed": "old", "removed": "old", "plain": "old"}


def _parsed(videos: Sequence[Json]) -> list[Any]:
    return [one.video for one in parse_videos(list(videos), 8).accepted]


async def test_a_bad_line_takes_no_neighbour_with_it(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """It is counted and told by its line; a video whose line is bad is not taken down for that."""
    cms.lists(video("a", "one"), video("b", "two"))
    await looked(sweep, cms, tenant)
    later(sweep, 60)
    lines = [json.dumps(video("a", "three")).encode(), b"{nonsense", json.dumps({"id": "b"}).encode(), b"", b"[]"]
    cms.answers["/videos"] = 200, {}, b"\n".join(lines)
    outcome = (await looked(sweep, cms, tenant)).outcome
    assert outcome.startswith("0 created, 1 updated, 0 unchanged, 3 refused, 0 removed; line 2: ")
    assert "line 3: /title is required" in outcome
    assert await standing(sweep, tenant) == {"a": "three", "b": "two"}


def endless(request: BaseHTTPRequestHandler) -> None:
    """One line that does not end."""
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 65_536)
    except OSError:
        request.close_connection = True


def cut_short(request: BaseHTTPRequestHandler) -> None:
    """Less than was announced."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(json.dumps(video("only", "one")).encode() + b"\n")
    request.close_connection = True


def silent(request: BaseHTTPRequestHandler) -> None:
    """Takes the question and says nothing for a while."""
    time.sleep(0.6)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (endless, "more than"),
        (cut_short, "RemoteProtocolError"),
        (silent, "ReadTimeout"),
        ((302, {"Location": "/videos"}, b""), "redirects"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "must be https"),
        ((404, {}, b""), "status 404"),
        ((200, {"Content-Encoding": "gzip"}, b"no gzip"), "DecodingError"),
    ],
    ids=["endless line", "cut short", "silent", "redirect loop", "another scheme", "not there", "broken gzip"],
)
async def test_a_listing_that_fails_changes_nothing(
    sweep: ListingSweep, cms: Cms, tenant: str, answer: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the CMS answers: the outcome says it, and nothing is taken down."""
    monkeypatch.setattr(fetching, "TIMEOUTS", httpx.Timeout(0.4))
    cms.lists(video("a", "one"))
    await looked(sweep, cms, tenant)
    cms.answers["/videos"] = answer
    listing = await looked(sweep, cms, tenant)
    assert listing.outcome.startswith("failed: ") and said in listing.outcome
    assert "a" in await standing(sweep, tenant)


async def test_a_redirect_is_followed(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """To where it leads, relative or not."""
    cms.lists(video("a", "one"), path="/moved")
    cms.answers["/videos"] = 307, {"Location": "/moved"}, b""
    assert "1 created" in (await looked(sweep, cms, tenant)).outcome


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:PORT/videos", "https://127.0.0.1:PORT/videos", "https://localhost:PORT/videos",
        "https://[::1]:PORT/videos", "https://[::ffff:127.0.0.1]:PORT/videos", "https://10.0.0.1/", "https://0.0.0.0/",
        "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/", "https://2130706433/", "https://224.0.0.1/",
        "https://no-such-name.invalid/",
    ],
)  # fmt: skip
async def test_this_network_is_not_reached(cms: Cms, url: str) -> None:
    """Unless it is allowed, no address that is not public is asked, however it is written, and never without TLS."""
    cms.lists(video("a", "one"))
    with pytest.raises(FetchFailed, match=r"not a public address|must be https|no such name"):
        async with fetched(url.replace("PORT", str(cms.port)), "", private_allowed=False):
            raise AssertionError("it was fetched")
    assert not cms.asked


async def test_the_address_that_was_looked_at_is_the_one_that_is_asked(
    cms: Cms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise the second time gains nothing: it is asked for once."""
    cms.lists(video("a", "one"))
    answers = iter([HOST])
    look: Callable[..., Any] = fetching._address_of

    async def once(host: str, port: int, *, private_allowed: bool) -> str:
        return str(await look(next(answers), port, private_allowed=private_allowed))

    monkeypatch.setattr(fetching, "_address_of", once)
    async with fetched(cms.url(host="cms.example"), "", private_allowed=True) as answer:
        assert [value["id"] async for _, value in answer.lines] == ["a"]


@pytest.mark.parametrize(
    ("field_", "value"),
    [("url", "ftp://x/y"), ("url", "https://"), ("url", "https://[x/"), ("url", "x" * 3000), ("every_s", 9)],
)
async def test_a_listing_that_cannot_be_is_refused(engine: AsyncEngine, tenant: str, field_: str, value: Any) -> None:
    """With the field and what is allowed; a tenant that is not there is not found."""
    listing = CmsListing(**{"tenant_id": tenant, "url": "https://cms.example/v", field_: value})
    with pytest.raises(InvalidInput) as caught:
        await CmsListings(engine).set(listing, NOW_S, who="ada")
    assert [problem.pointer for problem in caught.value.problems] == [f"/{field_}"]
    with pytest.raises(NotFound):
        await CmsListings(engine).set(CmsListing("nobody", "https://cms.example/v"), NOW_S, who="ada")


async def test_only_one_process_sweeps_a_tenant(sweep: ListingSweep, cms: Cms, tenant: str) -> None:
    """Another one is told, and asks the CMS nothing."""
    await sweep.leases.acquire(f"listing:{tenant}", "other", 60, NOW_S)
    cms.lists(video("a", "one"))
    listing = await sweep.listings.set(CmsListing(tenant, cms.url()), NOW_S, who="ada")
    assert await sweep.sweep(listing) == "another process is at it"
    assert not cms.asked


def test_a_lost_webhook_is_reconciled_while_another_cms_hangs(cms: Cms, tmp_path: Path, redis_url: str) -> None:
    """The daemon looks by itself: what one CMS lists is in the feed within seconds, though another never answers."""
    cms.lists(video("from-the-listing", "bread"), video("known", "bread"))
    cms.answers["/hangs"] = lambda _request: time.sleep(4)
    env = {"FEED_LISTINGS_PRIVATE": "true"}
    with system(tmp_path, redis_url, {"lost": [video("known", "bread")], "hangs": []}, workers=1, env=env) as s:
        admin = _admin_key(s.place.database_url)
        s.in_every_worker(lambda: s.call("GET", "/v1/admin/tenants", admin).status_code == 200)
        sent = {"url": cms.url("/hangs"), "every_s": 10}
        read(s.call("PUT", "/v1/admin/listing?scope=hangs", admin, json=sent), 200)
        sent = {"url": cms.url("/videos"), "every_s": 10}
        read(s.call("PUT", "/v1/admin/listing?scope=lost", admin, json=sent), 200)
        s.visible("lost", "from-the-listing")
        path = "/v1/admin/listing?scope=lost"
        eventually(lambda: read(s.call("GET", path, admin), 200)["outcome"].startswith("1 created, 0 updated, 1 unch"))
        assert s.call("PUT", "/v1/admin/listing?scope=global", admin, json=sent).status_code == 400
        assert s.call("PUT", "/v1/admin/listing", s.tenants["lost"].secret, json=sent).status_code == 403
        status, said = s.indexer("sweep", "--tenant", "lost")
        assert (status, "unchanged" in said) == (0, True)
        read(s.call("DELETE", "/v1/admin/listing?scope=lost", admin), 204)
        assert s.call("GET", "/v1/admin/listing?scope=lost", admin).status_code == 404
        eventually(lambda: any(path == "/hangs" for path, _ in cms.asked))


def _admin_key(database_url: str) -> str:
    async def make() -> str:
        engine = connect(database_url)
        try:
            return (await Tenants(engine).create_key(None, "adm", "test", int(time.time()))).clear
        finally:
            await engine.dispose()

    return finished(make())
