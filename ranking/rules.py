"""Editorial rules: what content teams write through the CMS, read from plain JSON.

A rule acts when it is enabled, all its conditions hold and its window is open. What happens then is its kind.
`rulebook` turns the rules of a policy into what one request needs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ranking.columns import Bool
from ranking.errors import Problem
from ranking.hints import AGE_BANDS, COUNTRIES, LANGUAGES
from ranking.items import Items
from ranking.schema import Bounds, choice, number, read_list, read_object, read_section, shown, whole
from ranking.targets import Everything, Target, read_target
from ranking.windows import ALWAYS, Window, read_window

MAX_RULES: Final = 100
"""Rules of one layer (so of one tenant)."""
MAX_PINS_PER_SURFACE: Final = 20
MAX_PROMOTED_PERCENT: Final = 40
MAX_POSITION: Final = 200


@dataclass(frozen=True, slots=True)
class Block:
    """The item is not shown."""


@dataclass(frozen=True, slots=True)
class Require:
    """Nothing but the target is shown. Several requirements must all be met."""


@dataclass(frozen=True, slots=True)
class Boost:
    """The score is made `factor` times better. Of several boosts the strongest counts."""

    factor: float = number(None, 1.0, 10.0)


@dataclass(frozen=True, slots=True)
class Bury:
    """The score is multiplied by `factor`, so made worse. Of several the strongest (smallest) counts."""

    factor: float = number(None, 0.1, 1.0)


@dataclass(frozen=True, slots=True)
class Cap:
    """At most `max` items of one creator / of one category among any `window` neighbours. The strictest holds."""

    max: int = whole(None, 1, 50)
    per: str = choice(None, ("creator", "category"))
    window: int = whole(None, 2, 50)


@dataclass(frozen=True, slots=True)
class Promote:
    """At least `percent` of the page is from the target, evenly spread, the best of it first."""

    percent: float = number(None, 1.0, MAX_PROMOTED_PERCENT)


@dataclass(frozen=True, slots=True)
class Pin:
    """The best of the target stands at `position` (0 = first)."""

    position: int = whole(None, 0, MAX_POSITION - 1)


Effect = Block | Require | Boost | Bury | Cap | Promote | Pin

KINDS: Final[Mapping[str, type[Effect]]] = MappingProxyType(
    {
        "block": Block,
        "require": Require,
        "boost": Boost,
        "bury": Bury,
        "cap": Cap,
        "promote": Promote,
        "pin": Pin,
    }
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_NAME_ALLOWED: Final = "1 to 64 letters, digits, _ . : - starting with a letter or digit"
CONDITIONS: Final[Mapping[str, tuple[str, ...] | None]] = MappingProxyType(
    {"surface": None, "language": LANGUAGES, "country": COUNTRIES, "age_band": tuple(AGE_BANDS), "cohort": None}
)
"""What `when` may name -> the closed list its values come from; None = any name."""
MAX_VALUES: Final = 300
_PRIORITY: Final = Bounds(0, 999, whole=True)
_VERSION: Final = Bounds(0, 2**53, whole=True)
_MAX_TEXT: Final = 500
_RULE_KEYS: Final = (
    "id", "kind", "effect", "priority", "enabled", "author", "reason", "version", "when", "window", "target",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, validated."""

    id: str
    kind: str
    effect: Effect
    priority: int
    """0 to 999; the higher wins."""
    enabled: bool
    author: str
    reason: str
    version: int
    """When it was last changed, as the publisher counts; the newer of two equal pins wins."""
    when: Mapping[str, frozenset[str]]
    """Condition of `CONDITIONS` -> the values it holds for. All conditions must hold."""
    window: Window
    target: Target
    layer: str
    """The policy layer that set it."""


def target_masks(rules: Sequence[Rule], items: Items) -> Bool:
    """Return bool[n, R]: rule r aims at item i, whether or not the rule is acting just now."""
    masks = np.empty((len(items), len(rules)), np.bool_)
    for r, rule in enumerate(rules):
        masks[:, r] = rule.target.mask(items)
    return masks


def read_rules(document: object, layer: str, pointer: str, problems: list[Problem]) -> tuple[Rule, ...]:
    """Read the rules of one layer; what is wrong with any, or with several together, goes to `problems`."""
    rules = read_list(document, MAX_RULES, pointer, problems, lambda rule, at: read_rule(rule, layer, at, problems))
    sound = [(f"{pointer}/{i}", rule) for i, rule in enumerate(rules) if rule is not None]
    problems.extend(_clashes(sound))
    problems.extend(_crowded_surfaces([rule for _, rule in sound], pointer))
    return tuple(rule for _, rule in sound)


def read_rule(document: object, layer: str, pointer: str, problems: list[Problem]) -> Rule | None:
    """Read one rule; None if anything is wrong with it."""
    found = len(problems)
    given = read_object(document, _RULE_KEYS, pointer, problems)
    if given is None:
        return None
    kind = _read_option(given.get("kind"), tuple(KINDS), f"{pointer}/kind", problems)
    effect = _read_effect(kind, given.get("effect", {}), f"{pointer}/effect", problems)
    if kind not in ("", "cap") and "target" not in given:
        problems.append(Problem(f"{pointer}/target", "is missing", "a target; only a cap may be about everything"))
    rule = Rule(
        id=_read_pattern(given.get("id"), f"{pointer}/id", problems),
        kind=kind,
        effect=effect or Block(),
        priority=_read_number(given, "priority", 500, _PRIORITY, pointer, problems),
        enabled=_read_flag(given.get("enabled", True), f"{pointer}/enabled", problems),
        author=_read_text(given.get("author", ""), f"{pointer}/author", problems),
        reason=_read_text(given.get("reason", ""), f"{pointer}/reason", problems),
        version=_read_number(given, "version", 0, _VERSION, pointer, problems),
        when=_read_when(given.get("when", {}), f"{pointer}/when", problems),
        window=read_window(given["window"], f"{pointer}/window", problems) if "window" in given else ALWAYS,
        target=read_target(given["target"], f"{pointer}/target", problems) if "target" in given else Everything(),
        layer=layer,
    )
    return rule if len(problems) == found else None


def _clashes(rules: list[tuple[str, Rule]]) -> list[Problem]:
    """Return what is wrong between rules (with their pointers) that are each right: equal ids, pins on one another."""
    problems = []
    for i, (at, rule) in enumerate(rules):
        for other_at, other in rules[:i]:
            if rule.id == other.id:
                problems.append(Problem(f"{at}/id", f"{rule.id!r} is the id of {other_at} too", "an id of its own"))
            if _same_slot(rule, other):
                clash = f"pins the slot of {other.id!r}: same conditions, priority and time"
                problems.append(
                    Problem(f"{at}/effect/position", clash, "another position, condition, priority or window")
                )
    return problems


def _crowded_surfaces(rules: list[Rule], pointer: str) -> list[Problem]:
    problems = []
    pins = [rule for rule in rules if rule.enabled and isinstance(rule.effect, Pin)]
    surfaces = {surface for rule in pins for surface in rule.when.get("surface", ())} | {""}
    for surface in sorted(surfaces):
        count = sum(surface in rule.when.get("surface", (surface,)) for rule in pins)
        if count > MAX_PINS_PER_SURFACE:
            where = f"surface {surface!r}" if surface else "any surface"
            problems.append(Problem(pointer, f"{count} pins on {where}", f"at most {MAX_PINS_PER_SURFACE} per surface"))
    return problems


def _same_slot(rule: Rule, other: Rule) -> bool:
    """Tell whether two pins want one slot and nothing an editor said decides between them."""
    return (
        isinstance(rule.effect, Pin)
        and rule.effect == other.effect
        and rule.enabled
        and other.enabled
        and rule.when == other.when
        and rule.priority == other.priority
        and rule.window.is_temporary == other.window.is_temporary
        and rule.window.from_s < other.window.until_s
        and other.window.from_s < rule.window.until_s
    )


def _read_effect(kind: str, document: object, pointer: str, problems: list[Problem]) -> Effect | None:
    if not kind:
        return None
    found = len(problems)
    values = read_section(KINDS[kind], document, pointer, problems)
    return KINDS[kind](**values) if len(problems) == found else None


def _read_when(document: object, pointer: str, problems: list[Problem]) -> Mapping[str, frozenset[str]]:
    given = read_object(document, tuple(CONDITIONS), pointer, problems) or {}
    when: dict[str, frozenset[str]] = {}
    for name, values in given.items():
        options, at = CONDITIONS[name], f"{pointer}/{name}"
        if values == []:
            problems.append(Problem(at, "is empty", "at least one value, or no condition at all"))

        def read(value: object, at: str, options: tuple[str, ...] | None = options) -> str:
            return _read_pattern(value, at, problems) if options is None else _read_option(value, options, at, problems)

        when[name] = frozenset(read_list(values, MAX_VALUES, at, problems, read))
    return MappingProxyType(when)


def _read_option(value: object, options: tuple[str, ...], pointer: str, problems: list[Problem]) -> str:
    if isinstance(value, str) and value in options:
        return value
    problems.append(Problem(pointer, f"{shown(value)} is not known", "one of " + ", ".join(options)))
    return ""


def _read_pattern(value: object, pointer: str, problems: list[Problem]) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    problems.append(Problem(pointer, f"{shown(value)} is not a name", _NAME_ALLOWED))
    return ""


def _read_flag(value: object, pointer: str, problems: list[Problem]) -> bool:
    if isinstance(value, bool):
        return value
    problems.append(Problem(pointer, f"{shown(value)} does not fit", "true or false"))
    return False


def _read_text(value: object, pointer: str, problems: list[Problem]) -> str:
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        return value
    problems.append(Problem(pointer, f"{shown(value)} does not fit", f"text of at most {_MAX_TEXT} characters"))
    return ""


def _read_number(
    given: Mapping[str, Any], name: str, default: int, bounds: Bounds, pointer: str, problems: list[Problem]
) -> int:
    value = given.get(name, default)
    if bounds.fits(value):
        return int(value)
    problems.append(Problem(f"{pointer}/{name}", f"{shown(value)} does not fit", bounds.allowed))
    return default
