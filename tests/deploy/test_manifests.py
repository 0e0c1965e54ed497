"""The Kubernetes objects and the compose file: valid, complete, and true of the code they start."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # ships no types
import pytest
import typer
import yaml  # type: ignore[import-untyped]  # ships no types
from typer.main import get_command

from deploy.local.valkey import DURABLE
from service import health
from service.operator import mount
from tests.support.manifests import (
    DEPLOY,
    FOREIGN,
    KUBERNETES,
    SETTINGS,
    Json,
    compose,
    env_file,
    image_command,
    image_environment,
    kubernetes_objects,
    kustomization,
)

KUBERNETES_VERSION = "1.33"
CONFIG = env_file(KUBERNETES / "config.env")
SECRET = env_file(KUBERNETES / "secret.example.env")
OBJECTS = kubernetes_objects()
SERVICES: dict[str, Json] = compose()["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("verticalfeed/")}


def one(kind: str, name: str) -> Json:
    """The object of this kind and name."""
    [found] = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return dict(found)


def pods() -> Iterator[tuple[str, Json]]:
    """(name, pod template) of everything that runs."""
    for each in OBJECTS:
        if each["kind"] in ("Deployment", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


PODS = dict(pods())


def told(pod: Json) -> dict[str, str]:
    """The environment of a pod's container: its image's, then the generated ConfigMap and Secret."""
    container = pod["containers"][0]
    sources = {"feed-config": CONFIG, "feed-secret": SECRET}
    found = image_environment(container["image"])
    for source in container["envFrom"]:
        found |= sources[next(iter(source.values()))["name"]]
    return found


def commands() -> dict[str, set[str]]:
    """The commands of each program."""
    cli = typer.Typer()
    mount(cli)
    serving = importlib.import_module("service.__main__").cli
    preparing = importlib.import_module("indexer.__main__").cli
    groups: list[Any] = [get_command(one) for one in (cli, serving, preparing)]
    return {"service": {*groups[0].commands, *groups[1].commands}, "indexer": set(groups[2].commands)}


def local_defaults(program: str) -> set[str]:
    """Settings whose default is this machine: elsewhere somebody must say what they are."""
    of_canary = {"FEED_CANARY_URL"}
    own = {"service": {"FEED_METRICS_HOST"}, "indexer": {"FEED_HOST", "FEED_STATE_DIR", "FEED_METRICS_DIR"}}[program]
    marks = ("127.0.0.1", "var/", "sqlite")
    local = {name for name, field in SETTINGS.items() if any(mark in str(field.default) for mark in marks)}
    return local - of_canary - own


@pytest.mark.parametrize("found", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_every_object_fits_its_schema(found: Json) -> None:
    """Kubernetes' own OpenAPI schema, strictly: no unknown field."""
    kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


def test_the_kustomization_names_every_file() -> None:
    """No manifest is left out, none is missing."""
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(kustomization()["resources"])


@pytest.mark.parametrize("name", PODS)
def test_pods_may_do_nothing_they_need_not(name: str) -> None:
    """Not root, nothing gained, no capability, a root file system that cannot be written, no token; memory bounded."""
    pod, container = PODS[name], PODS[name]["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert {"cpu", "memory"} <= set(container["resources"]["requests"]) and container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_runs_exists(name: str) -> None:
    """Its command is one of the program's, and its image has the program."""
    python, flag, program, command = PODS[name]["containers"][0]["command"]
    assert (python, flag) == ("python", "-m")
    assert command in commands()[program]
    assert PODS[name]["containers"][0]["image"] in ("verticalfeed/indexer", f"verticalfeed/{program}")


def test_variables_are_settings_and_all_that_is_needed_is_set() -> None:
    """Every variable exists; whatever defaults to this machine is told to service and indexer; secrets to both."""
    assert set(CONFIG) | set(SECRET) <= set(SETTINGS) | FOREIGN
    for name, program in (("service", "service"), ("indexer", "indexer")):
        assert local_defaults(program) <= set(told(PODS[name])), name
    assert "FEED_CURSOR_SECRETS" in told(PODS["service"])
    assert "FEED_DATABASE_URL" in told(PODS["migrate"])
    assert {"FEED_CANARY_KEYS", "FEED_CANARY_URL"} <= set(told(PODS["canary"]))
    assert not {name for name in CONFIG if "SECRET" in name or name.endswith("KEYS")}


@pytest.mark.parametrize("name", ["service", "indexer"])
def test_what_is_written_is_writable_and_what_is_shared_is_mounted(name: str) -> None:
    """Every folder of the settings is a volume; the snapshots are read-only where they are only read."""
    mounts = {one["mountPath"]: one for one in PODS[name]["containers"][0]["volumeMounts"]}
    environment = told(PODS[name])
    folders = ["FEED_SNAPSHOT_DIR", *(["FEED_STATE_DIR", "FEED_METRICS_DIR"] if name == "service" else [])]
    for folder in folders:
        assert environment[folder] in mounts, folder
    assert mounts[environment["FEED_SNAPSHOT_DIR"]].get("readOnly", False) is (name == "service")
    volumes = {one["name"]: one for one in PODS[name]["volumes"]}
    claim = volumes[mounts[environment["FEED_SNAPSHOT_DIR"]]["name"]]["persistentVolumeClaim"]["claimName"]
    assert one("PersistentVolumeClaim", claim)["spec"]["accessModes"] == ["ReadWriteMany"]


def test_ports_and_probes_are_what_the_programs_offer() -> None:
    """Port numbers of the settings; paths that the health server answers; Prometheus is sent to the same port."""
    expected = {
        "service": {"http": "FEED_PORT", "health": "FEED_HEALTH_PORT"},
        "indexer": {"metrics": "FEED_METRICS_PORT"},
        "canary": {"metrics": "FEED_CANARY_PORT"},
    }
    for name, ports in expected.items():
        container = PODS[name]["containers"][0]
        numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert numbers == {port: SETTINGS[setting].default for port, setting in ports.items()}
        annotations = one("Deployment", name)["spec"]["template"]["metadata"]["annotations"]
        assert int(annotations["prometheus.io/port"]) == numbers.get("health", numbers.get("metrics"))
    service = PODS["service"]["containers"][0]
    answered = (health.__doc__ or "").replace(",", " ").split()
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        assert service[probe]["httpGet"] == {"path": path, "port": "health"}
        assert path in answered
    [port] = one("Service", "service")["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_scaling_and_disruption_aim_at_the_service() -> None:
    """One deployment is scaled by CPU, never all of it is away, and it does not fix its own number."""
    scaler, budget = one("HorizontalPodAutoscaler", "service")["spec"], one("PodDisruptionBudget", "service")["spec"]
    labels = one("Deployment", "service")["spec"]["template"]["metadata"]["labels"]
    assert scaler["scaleTargetRef"]["name"] == "service"
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert budget["maxUnavailable"] < scaler["minReplicas"]
    assert "replicas" not in one("Deployment", "service")["spec"]


def test_a_pod_has_longer_to_end_than_it_needs() -> None:
    """The wait of the proxies and the ten seconds of running requests fit into the grace period."""
    pod = PODS["service"]
    waits = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert waits + 10 < pod["terminationGracePeriodSeconds"]


# --- compose


def test_compose_commands_and_variables_exist() -> None:
    """Of our containers: the command, each variable, and everything that must be said."""
    for name, container in OURS.items():
        variables = image_environment(container["image"]) | container["environment"]
        assert set(container["environment"]) <= set(SETTINGS) | FOREIGN, name
        _, _, program, command = container.get("command", image_command(container["image"]))
        assert command in commands()[program]
        if name in ("service", "indexer"):
            assert local_defaults(name) <= set(variables), name


def test_compose_starts_things_in_order() -> None:
    """The schema before what uses it, the bucket before the archive, stores when they are healthy; all is declared."""
    conditions = {"service_healthy", "service_completed_successfully", "service_started"}
    for name, container in SERVICES.items():
        depends = container.get("depends_on", {})
        assert set(depends) <= set(SERVICES), name
        for other, how in depends.items() if isinstance(depends, dict) else ():
            assert how.get("condition", "service_started") in conditions
            if how.get("condition") == "service_healthy":
                assert "healthcheck" in SERVICES[other] or other == "service"  # its image brings one
    for name in ("service", "indexer"):
        assert SERVICES[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert "bucket" in SERVICES["indexer"]["depends_on"]


def test_compose_pins_images_and_mounts_what_is_there() -> None:
    """No `latest`; host paths exist; named volumes are declared; snapshots are read-only for the service."""
    for name, container in SERVICES.items():
        tag = container["image"].rpartition(":")[2]
        assert tag not in ("latest", container["image"]), name
        for volume in container.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{name} mounts {source}"
            else:
                assert source in compose()["volumes"], name
    assert "snapshots:/var/lib/feed/snapshots:ro" in SERVICES["service"]["volumes"]
    assert "snapshots:/var/lib/feed/snapshots" in SERVICES["indexer"]["volumes"]


def test_the_store_of_compose_keeps_what_ours_keeps() -> None:
    """Valkey has the very options that the demo's has, each with its reason in deploy/local/valkey.py."""
    words = SERVICES["valkey"]["command"][1:]
    given = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    assert given == DURABLE


def test_prometheus_asks_containers_that_answer() -> None:
    """Each target of the scrape configuration is a container of the compose file, at its metrics port."""
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    asked = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    ports = {"service": "FEED_HEALTH_PORT", "indexer": "FEED_METRICS_PORT", "canary": "FEED_CANARY_PORT"}
    assert asked == {f"{name}:{SETTINGS[setting].default}" for name, setting in ports.items()}
    assert set(ports) <= set(OURS)
