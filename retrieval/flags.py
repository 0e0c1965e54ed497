"""Personalisation flags: who gets a personalised feed, decided by a pure function of what is known.

    killed (any file, global, tenant)  >  off  >  allow-list  >  hold-out  >  percentage  >  personalised

A flag is set for one scope: a tenant, or GLOBAL. The same flag is kept in SQL, mirrored in Redis and remembered on
local disk; of several copies the one with the higher version counts, and of two with the same version the one that
kills. What is unknown is not personalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from retrieval.errors import InvalidInput, Problem
from retrieval.tables import GLOBAL

Mode = Literal["personalised", "holdout", "killed", "off"]
State = Literal["off", "on", "percentage"]

PARTS: Final = 10_000
"""Buckets of users; a percentage is therefore exact to a hundredth."""
ROLL_OUT: Final = "personalisation"
HOLDOUT: Final = "holdout"
COHORT: Final = "cohort"
COHORTS: Final = tuple("0123456789")
MIN_HOLDOUT_PERCENT: Final = 1.0
MAX_HOLDOUT_PERCENT: Final = 5.0
DEFAULT_HOLDOUT_PERCENT: Final = 2.0
MAX_ALLOWED: Final = 1000
MAX_TEXT_CHARS: Final = 500
KILLED: Final = "killed"
CHOICES: Final = (*get_args(State), KILLED)
"""What a change may ask for. A kill leaves the state beneath it as it is, so that lifting it brings that back."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Personalisation in one scope, as it was last set.

    `version` is the unix millisecond of the change, or one more than the version before it if that is later.
    `allow` holds user keys (32 hex digits, re-keyed). Of the GLOBAL flag only `state` "off" and `killed` mean anything.
    """

    version: int
    state: State = "on"
    percentage: float = 100.0
    holdout_percent: float = DEFAULT_HOLDOUT_PERCENT
    allow: frozenset[str] = frozenset()
    killed: bool = False
    author: str = ""
    reason: str = ""
    changed_s: int = 0


@dataclass(frozen=True)
class Flags:
    """All that one worker knows: flags by scope, and the kill files of this machine (scope -> reason)."""

    by_scope: Mapping[str, Flag] = field(default_factory=dict)
    killed_here: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The newest change among the flags; 0 = nothing is known."""
        return max((flag.version for flag in self.by_scope.values()), default=0)


def decide(flags: Flags, tenant_id: str, user_key: str | None) -> Mode:
    """What a user of a tenant gets. An anonymous user (None) has no bucket: no hold-out, and no part of a percentage.

    Users on the allow-list are never held out: they are there to look at the personalised feed.
    """
    everywhere, own = flags.by_scope.get(GLOBAL), flags.by_scope.get(tenant_id)
    if is_killed(flags, GLOBAL) or is_killed(flags, tenant_id):
        return "killed"
    if own is None or own.state == "off" or (everywhere is not None and everywhere.state == "off"):
        return "off"
    if user_key is None:
        return "personalised" if own.state == "on" else "off"
    if user_key in own.allow:
        return "personalised"
    if bucket(tenant_id, HOLDOUT, user_key) < _parts(own.holdout_percent):
        return "holdout"
    if own.state == "percentage" and bucket(tenant_id, ROLL_OUT, user_key) >= _parts(own.percentage):
        return "off"
    return "personalised"


def is_killed(flags: Flags, scope: str) -> bool:
    """Whether the scope itself is killed, by a flag or by a file."""
    flag = flags.by_scope.get(scope)
    return scope in flags.killed_here or (flag is not None and flag.killed)


def bucket(tenant_id: str, flag: str, user_key: str) -> int:
    """0 to 9,999, the same in every process and release. Different flags part the users in unrelated ways."""
    named = f"{tenant_id}\0{flag}\0{user_key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(named, digest_size=8).digest(), "big") % PARTS


def may_be_held_out(tenant_id: str, user_key: str) -> bool:
    """Whether some hold-out that is allowed, up to MAX_HOLDOUT_PERCENT, has this user in it."""
    return bucket(tenant_id, HOLDOUT, user_key) < _parts(MAX_HOLDOUT_PERCENT)


def cohort(tenant_id: str, user_key: str | None) -> str:
    """Which tenth of the tenant's users somebody is in, for rules that are tried on some; "" for nobody in particular.

    It never changes, and has nothing to do with who is rolled out to or held out.
    """
    return "" if user_key is None else COHORTS[bucket(tenant_id, COHORT, user_key) * len(COHORTS) // PARTS]


def merged(*copies: Mapping[str, Flag]) -> dict[str, Flag]:
    """Per scope the newest flag of all copies; of two equally new ones the one that kills."""
    return reduce(_merged_two, copies, {})


def changed(before: Flag | None, document: Mapping[str, Any], *, author: str, now_ms: int) -> Flag:
    """The flag after a change, which is JSON: `state` (one of CHOICES) and `reason`, both mandatory; `percentage`
    (0-100, mandatory with that state), `holdout_percent` (1-5), `allow` (user keys).

    What is not given stays as it was, but for a kill, which ends with any other state.
    Raises InvalidInput with every problem.
    """
    problems = _problems(document)
    if problems:
        raise InvalidInput(problems)
    old = before or Flag(0)
    given: dict[str, Any] = {
        name: float(document[name]) for name in ("percentage", "holdout_percent") if name in document
    }
    if "allow" in document:
        given["allow"] = frozenset(document["allow"])
    killed = document["state"] == KILLED
    return replace(
        old,
        **given,
        version=max(old.version + 1, now_ms),
        state=old.state if killed else document["state"],
        killed=killed,
        author=author,
        reason=document["reason"],
        changed_s=now_ms // 1000,
    )


def as_document(flag: Flag) -> dict[str, Any]:
    """The flag as JSON, without its version."""
    document = asdict(flag)
    del document["version"]
    return document | {"allow": sorted(flag.allow)}


def from_document(version: int, document: Mapping[str, Any]) -> Flag:
    """What `as_document` was given. Raises InvalidInput for anything else: a damaged copy must not decide."""
    try:
        flag = Flag(version, **{**document, "allow": frozenset(document["allow"])})
    except (TypeError, KeyError) as error:
        raise InvalidInput([Problem("", f"is no flag: {type(error).__name__}")]) from error
    wanted = {
        "state": flag.state, "reason": flag.reason or "-", "percentage": flag.percentage, "allow": list(flag.allow),
        "holdout_percent": flag.holdout_percent,
    }  # fmt: skip
    problems = _problems(wanted)
    if type(version) is not int or type(flag.killed) is not bool:
        problems.append(Problem("", "has no version, or no true or false for killed"))
    if problems:
        raise InvalidInput(problems)
    return flag


def _merged_two(one: Mapping[str, Flag], other: Mapping[str, Flag]) -> dict[str, Flag]:
    both = dict(one)
    for scope, flag in other.items():
        known = both.get(scope)
        if known is None or (flag.version, flag.killed) > (known.version, known.killed):
            both[scope] = flag
    return both


def _parts(percent: float) -> int:
    return round(percent * PARTS / 100)


def _problems(document: Mapping[str, Any]) -> list[Problem]:
    problems = [Problem(f"/{name}", _NOT_KNOWN) for name in document if name not in _FIELDS]
    for name, (fits, allowed) in _FIELDS.items():
        if name in document and not fits(document[name]):
            problems.append(Problem(f"/{name}", allowed))
        elif name not in document and (name in ("state", "reason")):
            problems.append(Problem(f"/{name}", f"is required: {allowed}"))
    if document.get("state") == "percentage" and "percentage" not in document:
        problems.append(Problem("/percentage", "is required with the state percentage: a number from 0 to 100"))
    return problems


def _number_in(low: float, high: float, value: object) -> bool:
    # NaN fails both comparisons, true and false are not numbers.
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_reason(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value.strip()) <= len(value) <= MAX_TEXT_CHARS and value.isprintable()


def _is_allow_list(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MAX_ALLOWED and all(isinstance(one, str) for one in value)


_FIELDS: Final[Mapping[str, tuple[Any, str]]] = MappingProxyType(
    {
        "state": (lambda value: isinstance(value, str) and value in CHOICES, f"must be one of {', '.join(CHOICES)}"),
        "reason": (_is_reason, f"must say why, in 1 to {MAX_TEXT_CHARS} printable characters"),
        "percentage": (lambda value: _number_in(0, 100, value), "must be a number from 0 to 100"),
        "holdout_percent": (
            lambda value: _number_in(MIN_HOLDOUT_PERCENT, MAX_HOLDOUT_PERCENT, value),
            f"must be a number from {MIN_HOLDOUT_PERCENT:g} to {MAX_HOLDOUT_PERCENT:g}",
        ),
        "allow": (_is_allow_list, f"must be a list of at most {MAX_ALLOWED} users"),
    }
)
_NOT_KNOWN: Final = f"is not a known field; allowed: {', '.join(_FIELDS)}"
