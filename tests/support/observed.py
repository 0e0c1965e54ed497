"""A running system that has seen some of everything, with all its programs watched: for tests of what operators see.

`observed` is one for the session: two workers, an indexer, the canary. Do not break it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from retrieval.archive import Archive
from tests.support.redis_server import free_port
from tests.support.running import HOST, System, eventually, read, system, video

QUICK = {"FEED_SIGNALS_FLUSH_S": "0.3", "FEED_SIGNALS_PUBLISH_S": "0.5", "FEED_LEASE_S": "5"}
TENANTS = {"acme": [video(f"v{n}", f"bread part {n}") for n in range(45)], "canary": []}


@dataclass(frozen=True)
class Observed:
    """`ports` of /metrics by job, named as in deploy/prometheus/prometheus.yml."""

    running: System
    ports: Mapping[str, int]

    def page(self, job: str) -> str:
        """What Prometheus gets from a job now."""
        return httpx.get(f"http://{HOST}:{self.ports[job]}/metrics", timeout=5).raise_for_status().text

    @cached_property
    def metrics(self) -> Mapping[str, Mapping[str, Metric]]:
        """Every metric by job and the name it has in the exposition, without suffixes."""
        return {job: {one.name: one for one in text_string_to_metric_families(self.page(job))} for job in self.ports}

    @cached_property
    def labels(self) -> Mapping[str, frozenset[str]]:
        """The labels of every series by its full name; `job` and `instance` as Prometheus adds them."""
        found: dict[str, frozenset[str]] = {}
        for metrics in self.metrics.values():
            for metric in metrics.values():
                for sample in metric.samples:
                    found[sample.name] = found.get(sample.name, frozenset({"job", "instance"})) | set(sample.labels)
        return found


@pytest.fixture(scope="session")
def observed(redis_databases: Iterator[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """The system, after pages of every kind, events, errors, a restart of the indexer and a round of the canary."""
    folder = tmp_path_factory.mktemp("observed")
    with system(folder, next(redis_databases), TENANTS, env=QUICK) as running:
        some_of_everything(running)
        archive = Archive(str(folder / "archive"))
        eventually(lambda: archive.count("events") > 0)
        running.daemons[-1].stop()
        running.start_daemon()  # it looks at what is archived when it starts
        ports = {"service": running.health_port, "indexer": running.daemon_ports[-1], "canary": start_canary(running)}
        seen = Observed(running, ports)
        eventually(lambda: 'canary_rounds_total{result="done"}' in seen.page("canary"))
        eventually(lambda: "indexer_recent_shown{" in seen.page("indexer"))
        yield seen


def some_of_everything(running: System) -> None:
    """Pages in several modes, events taken and refused, errors."""
    keys = running.tenants["acme"]
    for n in range(4):
        page = running.feed("acme", f"user-{n}")
        shown = page["items"][0]["id"]
        running.events("acme", f"user-{n}", ("impression", shown), ("like", shown), request_id=page["request_id"])
        running.feed("acme", f"user-{n}", cursor=running.feed("acme", f"user-{n}")["next_cursor"])
    running.events("acme", "user-1", ("like", "no-such-video"))
    read(running.call("GET", "/v1/tenants/acme/feed/default", keys.publishable), 200)
    read(running.call("GET", "/v1/feed", "pk_nobody"), 401)
    read(running.call("GET", "/nothing", keys.publishable), 404)


def start_canary(running: System, **more: str) -> int:
    """`python -m service canary` with a round a second; the port of its metrics."""
    keys, port = running.tenants["canary"], free_port()
    told = {
        "FEED_CANARY_KEYS": f"{keys.publishable},{keys.secret}",
        "FEED_CANARY_URL": running.base_url,
        "FEED_CANARY_EVERY_S": "1",
        "FEED_CANARY_PORT": str(port),
    }
    running.start("canary", "service", "canary", **told, **more)

    def answers() -> bool:
        try:
            return httpx.get(f"http://{HOST}:{port}/metrics", timeout=1).is_success
        except httpx.TransportError:
            return False

    eventually(answers)
    return port
