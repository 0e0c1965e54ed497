"""Policy: everything a tenant's content team decides, resolved from layers and validated whole.

    built-in default < learned < global < tenant < experiment arm

A key that a layer does not give is inherited. Rules are not inherited but added up. Two things a lower layer can never
do: loosen what is marked as tightening only, and change a key that the global layer locked. What a model of a tenant's
own past has learned comes with the tenant's snapshot and fills in where no person has decided (`with_learned`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ranking.columns import Float32
from ranking.errors import PolicyError, Problem
from ranking.features import DEFAULT_WEIGHTS, HalfLives
from ranking.maturity import LADDER
from ranking.rulebook import ActiveCap, RuleBook
from ranking.rules import MAX_PROMOTED_PERCENT, Cap, Rule, read_rules
from ranking.schema import Bounds, bounds_of, choice, number, read_list, read_numbers, read_object, shown, whole


@dataclass(frozen=True, slots=True)
class Limits:
    """What nobody may exceed. A lower layer may only tighten these."""

    max_age: int = choice(18, LADDER)
    """Maturity ceiling."""
    promoted_percent: float = number(MAX_PROMOTED_PERCENT, 0.0, MAX_PROMOTED_PERCENT)
    """Most of a page that promotions together may take."""


@dataclass(frozen=True, slots=True)
class Sources:
    """How many candidates each source brings."""

    near: int = whole(120, 0, 1000)
    popular: int = whole(40, 0, 1000)
    fresh: int = whole(20, 0, 1000)
    explore: int = whole(20, 0, 1000)


@dataclass(frozen=True, slots=True)
class Diversity:
    """Sameness that is avoided on every page."""

    creator_max: int = whole(2, 1, 50)
    """Items of one creator among any `creator_window` neighbours."""
    creator_window: int = whole(10, 2, 50)
    category_max: int = whole(5, 1, 50)
    category_window: int = whole(10, 2, 50)
    alike_above: float = number(0.6, 0.0, 0.99)
    """Cosine from which two items begin to count as alike; fully alike at 1."""
    alike_step: float = number(4.0, 0.0, 20.0)
    """Places an item steps back per fully alike item just before it; 0 switches semantic diversity off."""
    alike_max_move: int = whole(10, 0, 50)
    """Places an item may move at most because of that, back or forth."""
    alike_depth: int = whole(30, 0, 200)
    """How far down the list this goes: a page of 20 and what may move into it. Costs grow with the square."""


@dataclass(frozen=True, slots=True)
class Explore:
    """Room for what nobody knows yet."""

    share: float = number(0.02, 0.0, 0.2)
    """Part of the page for items that only the explore source brought."""


@dataclass(frozen=True, slots=True)
class Taste:
    """How a user's signals become their taste. Negative weights are rejections."""

    half_life_days: float = number(14.0, 0.1, 366.0)
    session: float = number(1.0, 0.0, 10.0)
    """Extra weight of what happened just now, beside 1 for the long term."""
    session_half_life_minutes: float = number(20.0, 1.0, 1440.0)
    interests: int = whole(3, 1, 3)
    """Separate interests at most."""
    same_interest: float = number(0.45, -1.0, 1.0)
    """Cosine from which two liked items are one interest; talks on one topic are above it with the default model."""
    recent_signals: int = whole(64, 1, 256)
    """The newest signals that count."""
    newer_half: float = number(0.0, 0.0, 1000.0)
    """After so many newer items one counts half, while the session lasts; after it, its age alone counts. 0: always."""
    doubt: float = number(0.0, 0.0, 100.0)
    """So many liked items make a taste half certain, and similarity count half; 0: any taste is certain."""
    stale: float = number(1.0, 0.0, 1.0)
    """What is left of that certainty for somebody who comes back after their session is over."""
    behaviour: float = number(0.5, 0.0, 1.0)
    """Share of what others watched along with an item in what counts as near it, where that was learned; the rest is
    the text's."""
    push: float = number(0.5, 0.0, 1.0)
    """How much of an interest's overlap with what was rejected is taken out of it."""
    seen_days: float = number(90.0, 0.0, 90.0)
    """How long a seen item stays out of the feed; 90 = as long as anything is remembered."""
    impression: float = number(0.0, -10.0, 10.0)
    watch: float = number(1.0, -10.0, 10.0)
    """Times the fraction watched."""
    complete: float = number(1.5, -10.0, 10.0)
    like: float = number(2.0, -10.0, 10.0)
    unlike: float = number(-2.0, -10.0, 10.0)
    """Takes back a like."""
    share: float = number(3.0, -10.0, 10.0)
    bookmark: float = number(2.5, -10.0, 10.0)
    follow: float = number(2.0, -10.0, 10.0)
    skip: float = number(-0.5, -10.0, 10.0)
    not_interested: float = number(-3.0, -10.0, 10.0)
    report: float = number(-5.0, -10.0, 10.0)


SECTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "limits": Limits,
        "half_lives": HalfLives,
        "sources": Sources,
        "diversity": Diversity,
        "explore": Explore,
        "taste": Taste,
    }
)
"""Sections of a policy document beside `weights`, `rules` and `locks`: name -> what it holds."""

TIGHTEN_ONLY: Final = frozenset({"/limits/max_age", "/limits/promoted_percent"})
DEFAULT: Final = "default"
LEARNED: Final = "learned"
LEARNABLE: Final = ("weights", "sources", "taste")
"""Sections that may be learned: how to personalise, and nothing that protects or limits."""
GLOBAL: Final = "global"
_WEIGHT: Final = Bounds(-10.0, 10.0, whole=False)
_TABLES: Final[Mapping[str, Mapping[str, Bounds]]] = MappingProxyType(
    {
        "weights": dict.fromkeys(DEFAULT_WEIGHTS, _WEIGHT),
        **{name: bounds_of(section) for name, section in SECTIONS.items()},
    }
)
_MAX_LOCKS: Final = 100
POINTERS: Final = frozenset(f"/{section}/{name}" for section, table in _TABLES.items() for name in table)
"""Every single value a layer may set; also what may be locked, as may a whole section or "/rules"."""
_LOCKABLE: Final = POINTERS | {f"/{name}" for name in (*_TABLES, "rules")}


@dataclass(frozen=True, slots=True)
class Layer:
    """One document of the inheritance, as plain JSON. Its name ("global", "tenant", "arm:b") is what explain prints."""

    name: str
    document: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Policy:
    """A resolved, valid policy. Made by `resolve`; immutable."""

    weights: Mapping[str, float]
    """Feature name -> weight, in the order of FEATURES."""
    weight_row: Float32
    """float32[F]: the same."""
    limits: Limits
    half_lives: HalfLives
    sources: Sources
    diversity: Diversity
    explore: Explore
    taste: Taste
    rules: tuple[Rule, ...]
    """Global rules first. Their order is the order of `Candidates.targets`."""
    book: RuleBook
    provenance: Mapping[str, str]
    """JSON pointer of a value -> name of the layer that set it."""


def validate(document: object, *, name: str = "tenant", above: Sequence[Layer] = ()) -> list[Problem]:
    """Return every problem of one layer's document, given the valid layers above it; empty = may be published."""
    problems: list[Problem] = []
    given = _read_layer(name, document, problems)
    higher = resolve(above)
    locks = _locks(above)
    for pointer, value in given.values.items():
        if name != GLOBAL and _is_locked(pointer, locks):
            problems.append(Problem(pointer, "is locked by the global layer", "nothing: leave it out"))
        elif pointer in TIGHTEN_ONLY and value > (ceiling := _value(higher, pointer)):
            owner = higher.provenance[pointer]
            problems.append(Problem(pointer, f"{value} loosens the {ceiling} of {owner}", f"at most {ceiling}"))
    if given.rules and name != GLOBAL and _is_locked("/rules", locks):
        problems.append(Problem("/rules", "is locked by the global layer", "nothing: leave it out"))
    if not problems and isinstance(document, Mapping):  # what only shows in sum, such as weights that are all zero
        _merge((*above, Layer(name, document)), problems)
    return problems


def resolve(layers: Sequence[Layer] = ()) -> Policy:
    """Return the policy of these layers, the most general first; without any, the built-in default.

    Raises PolicyError with every problem of every layer. A lower layer's value for a key that is locked or may only be
    tightened is not an error here, it just does not win: a lock may be newer than the document.
    """
    problems: list[Problem] = []
    values, provenance, rules = _merge(layers, problems)
    if problems:
        raise PolicyError(problems)
    weights = MappingProxyType(values["weights"])
    sections = {name: section(**values[name]) for name, section in SECTIONS.items()}
    book = RuleBook(rules, _diversity_caps(sections["diversity"]), sections["limits"].promoted_percent)
    return Policy(
        weights=weights,
        weight_row=np.array(list(weights.values()), np.float32),
        rules=rules,
        book=book,
        provenance=MappingProxyType(provenance),
        **sections,
    )


def with_learned(policy: Policy, document: Mapping[str, Mapping[str, float]]) -> Policy:
    """Return the policy with what was learned in place of built-in defaults; what a person has set stays.

    document: LEARNABLE section -> key -> value. Raises PolicyError when it is not that.
    """
    problems: list[Problem] = []
    read_object(document, LEARNABLE, "", problems)
    given = _read_layer(LEARNED, document, problems).values
    if problems:
        raise PolicyError(problems)
    taken = {pointer: value for pointer, value in given.items() if policy.provenance[pointer] == DEFAULT}
    changed: dict[str, dict[str, Any]] = {section: {} for section in LEARNABLE}
    for pointer, value in taken.items():
        _, section, key = pointer.split("/")
        changed[section][key] = value
    weights = MappingProxyType({**policy.weights, **changed["weights"]})
    return replace(
        policy,
        weights=weights,
        weight_row=np.array(list(weights.values()), np.float32),
        sources=replace(policy.sources, **changed["sources"]),
        taste=replace(policy.taste, **changed["taste"]),
        provenance=MappingProxyType({**policy.provenance, **dict.fromkeys(taken, LEARNED)}),
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """What one layer's document says."""

    values: dict[str, Any]
    """By JSON pointer."""
    rules: tuple[Rule, ...]
    locks: tuple[str, ...]


def _read_layer(name: str, document: object, problems: list[Problem]) -> _Given:
    known = (*_TABLES, "rules", "locks") if name == GLOBAL else (*_TABLES, "rules")
    given = read_object(document, known, "", problems) or {}
    values = {
        f"/{section}/{key}": value
        for section, table in _TABLES.items()
        if section in given
        for key, value in read_numbers(table, given[section], f"/{section}", problems, required=[]).items()
    }
    rules = read_rules(given["rules"], name, "/rules", problems) if "rules" in given else ()

    def read_lock(pointer: object, at: str) -> str:
        if isinstance(pointer, str) and pointer in _LOCKABLE:
            return pointer
        problems.append(Problem(at, f"{shown(pointer)} cannot be locked", "one of " + ", ".join(sorted(_LOCKABLE))))
        return ""

    locks = read_list(given["locks"], _MAX_LOCKS, "/locks", problems, read_lock) if "locks" in given else []
    return _Given(values, rules, tuple(locks))


def _merge(
    layers: Sequence[Layer], problems: list[Problem]
) -> tuple[dict[str, dict[str, Any]], dict[str, str], tuple[Rule, ...]]:
    """Return (section -> key -> value, provenance, rules); what is wrong goes to `problems`."""
    values: dict[str, dict[str, Any]] = {"weights": dict(DEFAULT_WEIGHTS)}
    for section, kind in SECTIONS.items():
        values[section] = {f.name: f.default for f in fields(kind)}
    provenance = dict.fromkeys(sorted(POINTERS), DEFAULT)
    rules: list[Rule] = []
    locks: tuple[str, ...] = ()
    for layer in layers:
        given = _read_layer(layer.name, layer.document, problems)
        for pointer, value in given.values.items():
            _, section, key = pointer.split("/")
            loosens = pointer in TIGHTEN_ONLY and value > values[section][key]
            if not loosens and not _is_locked(pointer, locks):
                values[section][key] = value
                provenance[pointer] = layer.name
        if not _is_locked("/rules", locks):
            rules.extend(given.rules)
        locks += given.locks
    if not any(values["weights"].values()):
        problems.append(Problem("/weights", "are all zero", "at least one weight that is not 0"))
    return values, provenance, tuple(rules)


def _diversity_caps(diversity: Diversity) -> list[ActiveCap]:
    """The category gives way first: two categories side by side disturb less than one creator twice."""
    return [
        ActiveCap("category", Cap(diversity.category_max, "category", diversity.category_window), -1),
        ActiveCap("creator", Cap(diversity.creator_max, "creator", diversity.creator_window), -1),
    ]


def _locks(layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(lock for layer in layers for lock in _read_layer(layer.name, layer.document, []).locks)


def _is_locked(pointer: str, locks: Sequence[str]) -> bool:
    return any(pointer == lock or pointer.startswith(lock + "/") for lock in locks)


def _value(policy: Policy, pointer: str) -> Any:
    _, section, key = pointer.split("/")
    return getattr(getattr(policy, section), key)
