"""Rules and dashboards: they are valid, they fire when they should, and they ask for what is really exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from deploy.grafana.__main__ import dashboard
from deploy.grafana.boards import BOARDS
from deploy.local.processes import spawn
from service.app import ROUTES
from service.page import MODES
from tests.support.observed import Observed
from tests.support.redis_server import free_port
from tests.support.running import HOST, eventually

ROOT: Final = Path(__file__).parents[2]
PROMETHEUS: Final = ROOT / "deploy/prometheus"
RULES: Final = sorted((PROMETHEUS / "rules").glob("*.yml"))
SCENARIOS: Final = sorted((PROMETHEUS / "tests").glob("*.yml"))
NAMES: Final = re.compile(r"\b((?:feed|indexer|canary|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
RECORDED: Final = re.compile(r"\b[a-z]+:[a-z0-9_]+:[a-z0-9_]+\b")
GROUPED: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
MATCHER: Final = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
KNOWN: Final[dict[str, set[str]]] = {
    "route": {route.path for route in ROUTES},
    "mode": {*MODES, "(no page)"},
    "job": {"service", "indexer", "canary"},
    "kind": {"empty", "short"},
    "tenant": {"canary"},
}
"""What a label may be asked to equal, where it cannot be seen in the running system."""


def tool(name: str) -> str:
    """Where promtool or prometheus is; their absence is a failure and no reason to skip."""
    found = shutil.which(name)
    if found is None:
        raise AssertionError(f"{name} is missing; on Debian and Ubuntu: apt install prometheus")
    return found


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


@cache
def queries() -> dict[str, str]:
    """Every query of the rules and dashboards, by where it is."""
    of_rules = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
    of_boards = {
        f"{board.title}: {panel.title}: {legend}": query.replace("$tenant", ".*")
        for board in BOARDS.values()
        for row in board.rows.values()
        for panel in row
        for legend, query in panel.queries.items()
    }
    return of_rules | of_boards


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    """promtool plays every scenario, each of which names all alerts that fire in it."""
    played = subprocess.run([tool("promtool"), "test", "rules", *SCENARIOS], capture_output=True, text=True)
    assert played.returncode == 0, played.stdout + played.stderr


def test_every_alert_fires_in_a_scenario() -> None:
    """No alert is without a proof that it can fire."""
    fired = {
        name
        for path in SCENARIOS
        for test in yaml.safe_load(path.read_text())["tests"]
        for sample in test["promql_expr_test"][0]["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_the_configuration_is_valid() -> None:
    """promtool accepts it, with the rules it names."""
    checked = subprocess.run(
        [tool("promtool"), "check", "config", PROMETHEUS / "prometheus.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rule files found" in checked.stdout


def test_dashboards_are_written_from_their_table() -> None:
    """`python -m deploy.grafana` would change nothing."""
    written = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    assert written == {name: dashboard(name, board) for name, board in BOARDS.items()}


@pytest.mark.parametrize("where", queries())
def test_a_query_asks_for_what_is_exported(where: str, observed: Observed) -> None:
    """Names, labels and the values of labels are those of the running system."""
    query = queries()[where]
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(RECORDED.findall(query)) <= recorded
    asked = NAMES.findall(RECORDED.sub("", query))
    assert asked or RECORDED.search(query)
    labels: set[str] = set()
    for name, matchers in asked:
        known = {"job", "instance"} if name == "up" else observed.labels.get(name)
        assert known is not None, f"nothing exports {name}"
        labels |= known
        for label, kind, value in MATCHER.findall(matchers):
            assert label in known, f"{name} has no label {label}"
            assert kind in ("=~", "!~") or value in values(observed, name, label), f'{name}{{{label}="{value}"}}'
    for group in GROUPED.findall(query):
        assert {one.strip() for one in group.split(",")} <= labels


def values(observed: Observed, name: str, label: str) -> set[str]:
    """What a label may equal."""
    samples = [s for page in observed.metrics.values() for one in page.values() for s in one.samples if s.name == name]
    return {sample.labels[label] for sample in samples if label in sample.labels} | KNOWN.get(label, set())


@contextmanager
def prometheus(folder: Path, observed: Observed) -> Iterator[httpx.Client]:
    """The API of the real Prometheus with our rules, looking at the running system each second."""
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"{HOST}:{port}"]}]} for job, port in observed.ports.items()
    ]
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": [str(path) for path in RULES], "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"{HOST}:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command = [tool("prometheus"), *options, f"--web.listen-address={address}"]
    child = spawn("prometheus", command, folder / "prometheus.log", env={}, grace_s=5.0)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1") as api:
            yield api
    finally:
        child.stop()


def test_prometheus_itself_can_work_with_all_of_it(observed: Observed, tmp_path: Path) -> None:
    """Every rule is evaluated without an error, every panel shows something, and no alert fires on a healthy system."""
    with prometheus(tmp_path, observed) as api:
        eventually(lambda: scrapes(api) >= 3, within_s=30)
        groups = api.get("/rules").json()["data"]["groups"]
        wrong = [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]
        assert not wrong
        alerts = api.get("/alerts").json()["data"]["alerts"]
        assert [one["labels"]["alertname"] for one in alerts if one["state"] == "firing"] == []
        empty = []
        for where, query in queries().items():
            answer = api.get("/query", params={"query": query}).json()
            assert answer["status"] == "success", f"{where}: {answer}"
            if ": " in where and not answer["data"]["result"]:
                empty.append(where)
        assert not empty


def scrapes(api: httpx.Client) -> int:
    """How often the job that was looked at least was looked at."""
    try:
        answer = api.get("/query", params={"query": "min(count_over_time(up[1m]) * up)"})
    except httpx.TransportError:
        return 0
    found = answer.json() if answer.is_success else {}  # not yet started
    result = found.get("data", {}).get("result", [])
    return int(float(result[0]["value"][1])) if result else 0


def test_the_exposition_is_as_prometheus_likes_it(observed: Observed) -> None:
    """promtool's linter has nothing to say about names, types and help texts."""
    for job in observed.ports:
        linted = subprocess.run(
            [tool("promtool"), "check", "metrics"], input=observed.page(job), capture_output=True, text=True
        )
        assert linted.returncode == 0, f"{job}: {linted.stdout}{linted.stderr}"
