"""What the service tells Prometheus: true counts, few labels, nobody's name, and nothing of processes that are gone."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from retrieval.flags import Flag, Flags
from retrieval.tables import GLOBAL
from service import telemetry
from service.app import ROUTES
from service.gauges import personalised_ratio
from service.governor import FIRST, LATER, PLAIN
from service.health import forget_ended
from service.page import MODES
from tests.support.observed import Observed
from tests.support.running import HOST, System, eventually, read, video
from tests.support.served import served

REQUESTS = "feed_http_requests_total"


def of(running: System, name: str, **labels: str) -> float:
    """The sum of the series with these labels, over all workers."""
    page = httpx.get(f"http://{HOST}:{running.health_port}/metrics", timeout=5).text
    lines = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
    asked = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(one in line for one in asked))


def test_a_page_is_counted_once_whichever_worker_answers(running: System) -> None:
    """By route and status, by tenant and mode, and among the times."""
    counted = (
        (REQUESTS, {"route": "/v1/feed", "status": "200"}),
        ("feed_http_request_seconds_count", {"route": "/v1/feed", "mode": "cold_start"}),
        ("feed_http_request_seconds_bucket", {"route": "/v1/feed", "mode": "cold_start", "le": "+Inf"}),
        ("feed_pages_total", {"tenant": "news", "mode": "cold_start"}),
    )
    before = [of(running, name, **labels) for name, labels in counted]
    for _ in range(5):
        running.feed("news")
    assert [of(running, name, **labels) - was for (name, labels), was in zip(counted, before, strict=True)] == [5] * 4


def test_a_route_is_a_pattern_and_what_matches_none_has_one_name(running: System) -> None:
    """However many paths somebody tries, the routes are those of the table."""
    running.stored("news", "news-bread-0")
    for n in range(3):
        running.call("GET", f"/v1/nothing/{n}", running.tenants["news"].publishable)
    assert of(running, REQUESTS, route="/v1/admin/videos/{id:path}", status="200") >= 1
    assert of(running, REQUESTS, route="(none)", status="404") >= 3


def test_labels_are_few(observed: Observed) -> None:
    """Every label is one of a known, short list; routes, modes and stages are words of the code."""
    allowed = {
        "route": {route.path for route in ROUTES} | {"(none)"},
        "mode": {*MODES, ""},
        "tenant": {"acme", "canary", "global"},
        "stage": {"state", "wait", "retrieve", "rank"},
        "store": {"redis", "sql"},
        "kind": {"empty", "short", FIRST, LATER, PLAIN},
        "result": {"accepted", "duplicate", "invalid", "unknown_item", "erased"},
    }
    for metric in observed.metrics["service"].values():
        for sample in metric.samples:
            for label, value in sample.labels.items():
                assert value in allowed.get(label, {value}), f"{sample.name}: {label}={value}"
        edges = {sample.labels["le"] for sample in metric.samples if "le" in sample.labels}
        assert len(edges) <= 8
        assert not edges or {"0.25", "0.6"} <= edges


def test_a_tenant_too_many_shares_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond MOST_TENANTS all are one, so that a loop that makes tenants cannot fill Prometheus."""
    monkeypatch.setattr(telemetry, "MOST_TENANTS", 2)
    labels = telemetry._Tenants()
    assert [labels[tenant] for tenant in ("a", "b", "c", "a", "d")] == [
        "a",
        "b",
        telemetry.OTHERS,
        "a",
        telemetry.OTHERS,
    ]


def test_what_an_ended_process_was_like_is_forgotten(tmp_path: Path) -> None:
    """Its gauges go, or they would disagree with the living for ever; its counts stay."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    child = ended.pid
    for name in (f"gauge_liveall_{child}.db", f"gauge_livemin_{child}.db", f"counter_{child}.db"):
        (tmp_path / name).touch()
    alive = tmp_path / f"gauge_liveall_{os.getpid()}.db"
    alive.touch()
    forget_ended(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, f"counter_{child}.db"])


@pytest.mark.parametrize(
    ("own", "everywhere", "ratio"),
    [
        (Flag(1), None, 1.0),
        (Flag(1, state="off"), None, 0.0),
        (Flag(1, state="percentage", percentage=10.0), None, 0.1),
        (Flag(1, killed=True), None, 0.0),
        (Flag(1), Flag(1, killed=True), 0.0),
        (Flag(1), Flag(1, state="off"), 0.0),
        (None, None, 0.0),
    ],
)
def test_the_share_the_flags_allow(own: Flag | None, everywhere: Flag | None, ratio: float) -> None:
    """As `retrieval.flags.decide` gives it out, the hold-out not counted."""
    by_scope = {scope: flag for scope, flag in (("acme", own), (GLOBAL, everywhere)) if flag is not None}
    assert personalised_ratio(Flags(by_scope), "acme") == ratio


def test_a_store_that_is_away_is_told_before_anybody_asks_for_a_feed(tmp_path: Path) -> None:
    """The probe sees it within seconds, and sees it come back."""
    up = telemetry.STORE_UP.labels("redis")
    with served(tmp_path, {"acme": [video("a", "Bread")]}) as s:
        eventually(lambda: up._value.get() == 1)
        with s.without_redis():
            eventually(lambda: up._value.get() == 0)
        eventually(lambda: up._value.get() == 1)
        assert telemetry.STORE_UP.labels("sql")._value.get() == 1


def test_the_time_of_an_answer_ends_with_the_answer(tmp_path: Path) -> None:
    """What is done after it, here with a Redis that stands still, keeps nobody waiting and is not counted."""
    duration = telemetry.DURATION.labels("/v1/feed", "fallback")
    with served(tmp_path, {"acme": [video("a", "Bread")]}) as s:
        with s.without_redis():
            before, began = duration._sum.get(), time.monotonic()
            assert s.feed("acme", "u1")["mode"] == "fallback"
            eventually(lambda: duration._sum.get() > before)
        assert duration._sum.get() - before < 0.9
        assert time.monotonic() - began < 5


def test_a_slow_answer_is_told_with_its_stages_and_at_most_once_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of slow answers is a line, not a flood."""
    monkeypatch.setattr(telemetry, "_slow_again_s", 0.0)
    for _ in range(3):
        telemetry.observe_request({"endpoint": None}, 200, telemetry.SLOW_S + 0.1)
    told = capsys.readouterr().out
    assert told.count("slow_answer") == 1
    assert "took_ms" in told


def test_an_error_has_the_id_under_which_it_is_logged(running: System) -> None:
    """Every problem document, too."""
    answer = running.call("GET", "/v1/feed", "pk_nobody")
    read(answer, 401)
    assert len(answer.headers["x-request-id"]) == 24
