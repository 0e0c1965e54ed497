"""A Dockerfile as its stages and instructions: as much of the format as ours uses, for tests and for `rehearse`."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("Dockerfile")


@dataclass(frozen=True)
class Step:
    """One instruction: its name in capitals, and what follows as one line."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The text as a shell would part it."""
        return shlex.split(self.text)

    @property
    def command(self) -> list[str]:
        """Of CMD and of a HEALTHCHECK: the program and its arguments. Raises ValueError unless they are a list."""
        found: list[str] = json.loads(self.text[self.text.index("[") :])
        return found


@dataclass(frozen=True)
class Stage:
    """What follows a FROM: on top of what (an image, or a stage of this file), and the steps."""

    name: str
    base: str
    steps: tuple[Step, ...]


def stages(content: str) -> dict[str, Stage]:
    """The stages by name, in order. Raises ValueError for a FROM without a name."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", content, flags=re.M))
    steps = [Step(*line.split(" ", 1)) for line in joined.splitlines() if line.strip()]
    starts = [number for number, step in enumerate(steps) if step.name == "FROM"]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(steps)], strict=True):
        base, _, name = steps[start].text.partition(" AS ")
        if not name:
            raise ValueError(f"every stage has a name: FROM {steps[start].text}")
        found[name] = Stage(name, base, tuple(steps[start + 1 : end]))
    return found


def lineage(found: dict[str, Stage], target: str) -> list[Stage]:
    """The stages a target stands on, lowest first, itself last."""
    stage = found[target]
    return [*(lineage(found, stage.base) if stage.base in found else []), stage]


def last(line: list[Stage], name: str) -> Step:
    """The instruction of this name that holds in an image. Raises StopIteration when there is none."""
    return next(step for stage in reversed(line) for step in reversed(stage.steps) if step.name == name)


def environment(line: list[Stage]) -> dict[str, str]:
    """What ENV sets in an image. `$PATH` stays as it is written."""
    words = [word for stage in line for step in stage.steps if step.name == "ENV" for word in step.words]
    return dict(word.split("=", 1) for word in words)
