"""An experiment: some of a tenant's users in arms, each under overrides of the tenant's policy.

    {"name": "fresher", "arms": [{"name": "a", "percent": 10, "policy": {}},
                                 {"name": "b", "percent": 10, "policy": {"weights": {"freshness": 0.6}}}]}

An arm that overrides nothing is a control. Who is in no arm has the tenant's own policy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ranking.errors import Problem
from ranking.schema import Bounds, read_list, read_object, shown

MAX_ARMS: Final = 4
"""Each is a policy of its own in the memory of every worker."""
_PERCENT: Final = Bounds(0.01, 100.0, whole=False)
_NAME: Final = re.compile(r"[a-z0-9]{1,16}")  # part of a policy's version, and so of an ETag
_NAME_ALLOWED: Final = "1 to 16 small letters and digits"


@dataclass(frozen=True, slots=True)
class Arm:
    """So many percent of the users, and the document of the layer above the tenant's that they get."""

    name: str
    percent: float
    document: Mapping[str, Any]

    @property
    def layer(self) -> str:
        """What explain prints as the origin of a value or a rule."""
        return f"arm:{self.name}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """1 to MAX_ARMS arms of different names, together at most 100 percent."""

    name: str
    arms: tuple[Arm, ...]


def read_experiment(document: object, pointer: str, problems: list[Problem]) -> Experiment:
    """Read an experiment; what is wrong goes to `problems`, but for the arms' policies, which are not looked at."""
    given = read_object(document, ("name", "arms"), pointer, problems) or {}
    name = _read_name(given.get("name"), f"{pointer}/name", problems)
    at = f"{pointer}/arms"
    arms = read_list(given.get("arms"), MAX_ARMS, at, problems, lambda arm, where: _read_arm(arm, where, problems))
    if given.get("arms") == []:
        problems.append(Problem(at, "is empty", f"1 to {MAX_ARMS} arms"))
    names = [arm.name for arm in arms if arm.name]
    if len(set(names)) < len(names):
        problems.append(Problem(at, "two arms have one name", "a name of its own for each"))
    if (total := round(sum(arm.percent for arm in arms), 6)) > _PERCENT.high:
        problems.append(Problem(at, f"{total:g} percent together", "at most 100"))
    return Experiment(name, tuple(arms))


def _read_arm(document: object, pointer: str, problems: list[Problem]) -> Arm:
    given = read_object(document, ("name", "percent", "policy"), pointer, problems) or {}
    name = _read_name(given.get("name"), f"{pointer}/name", problems)
    percent, policy = given.get("percent", 0.0), given.get("policy")
    if not _PERCENT.fits(percent):
        problems.append(Problem(f"{pointer}/percent", f"{shown(percent)} does not fit", _PERCENT.allowed))
        percent = 0.0
    if not isinstance(policy, Mapping):
        allowed = "an object; {} overrides nothing"
        problems.append(Problem(f"{pointer}/policy", f"{shown(policy)} is not an object", allowed))
        policy = {}
    return Arm(name, float(percent), policy)


def _read_name(value: object, pointer: str, problems: list[Problem]) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    problems.append(Problem(pointer, f"{shown(value)} is not a name", _NAME_ALLOWED))
    return ""
