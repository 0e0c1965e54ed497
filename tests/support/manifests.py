"""What deploy/ says, read: the Dockerfile, the Kubernetes objects, the compose file, and the settings they may name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # ships no types

from deploy.docker.dockerfile import FILE, Stage, environment, last, lineage, stages
from indexer.settings import IndexerSettings
from service.settings import ServiceSettings

Json = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
SETTINGS: Final = {
    f"FEED_{name.upper()}": field
    for name, field in (IndexerSettings.model_fields | ServiceSettings.model_fields).items()
}
FOREIGN: Final = {
    "AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
}  # fmt: skip
"""What the library of object storage reads by itself."""


def built() -> dict[str, Stage]:
    """The stages of the Dockerfile."""
    return stages(FILE.read_text())


def image_environment(image: str) -> dict[str, str]:
    """What an image called `verticalfeed/TARGET[:tag]` sets by itself."""
    return environment(_image(image))


def image_command(image: str) -> list[str]:
    """What it runs when it is told nothing else."""
    return last(_image(image), "CMD").command


def kubernetes_objects() -> list[Json]:
    """Every object of deploy/kubernetes, as the kustomization lists its files."""
    files = kustomization()["resources"]
    return [found for file in files for found in yaml.safe_load_all((KUBERNETES / file).read_text())]


def kustomization() -> Json:
    """deploy/kubernetes/kustomization.yaml."""
    found: Json = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    return found


def env_file(path: Path) -> dict[str, str]:
    """NAME=value lines."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def compose() -> Json:
    """deploy/compose.yaml, merged, with the values of deploy/example.env."""
    found: Json = yaml.safe_load(_interpolated((DEPLOY / "compose.yaml").read_text(), env_file(DEPLOY / "example.env")))
    return found


def _image(name: str) -> list[Stage]:
    return lineage(built(), name.removeprefix("verticalfeed/").partition(":")[0])


def _interpolated(text: str, values: Mapping[str, str]) -> str:
    """`${NAME}`, `${NAME:?why}`, `${NAME:-}`. Raises KeyError for a name that must be given and that nobody gives."""
    text = re.sub(r"\$\{([A-Z_]+):-\}", lambda found: values.get(found[1], ""), text)
    return re.sub(r"\$\{([A-Z_]+)(?::\?[^}]*)?\}", lambda found: values[found[1]], text)
