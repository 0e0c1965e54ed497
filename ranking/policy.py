"""Policy: everything a tenant's content team decides, resolved from layers and validated whole.

    built-in default < learned < global < tenant < experiment arm

A key that a layer does not give is inherited. Rules are not inherited but added up. Two things a lower layer can never
do: loosen what is marked as tightening only, and change a key that the global layer locked. What a model of a tenant's
own past has learned comes with the tenant's snapshot and fills in where no person has decided (`with_learned`).

A tenant's document may hold an experiment (`ranking.experiment`); its policy then carries those of the arms.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from ranking.columns import Float32
from ranking.errors import PolicyError, Problem
from ranking.experiment import Experiment, read_experiment
from ranking.features import DEFAULT_WEIGHTS, HalfLives
from ranking.rulebook import ActiveCap, RuleBook
from ranking.rules import MAX_RULES, Cap, Rule, read_rules
from ranking.schema import Bounds, bounds_of, read_list, read_numbers, read_object, shown
from ranking.sections import SECTIONS, Diversity, Explore, Limits, Sources, Taste

TIGHTEN_ONLY: Final = frozenset({"/limits/max_age", "/limits/promoted_percent"})
DEFAULT: Final = "default"
LEARNED: Final = "learned"
LEARNABLE: Final = ("weights", "sources", "taste")
"""Sections that may be learned: how to personalise, and nothing that protects or limits."""
GLOBAL: Final = "global"
TENANT: Final = "tenant"
_WEIGHT: Final = Bounds(-10.0, 10.0, whole=False)
_TABLES: Final[Mapping[str, Mapping[str, Bounds]]] = MappingProxyType(
    {
        "weights": dict.fromkeys(DEFAULT_WEIGHTS, _WEIGHT),
        **{name: bounds_of(section) for name, section in SECTIONS.items()},
    }
)
_MAX_LOCKS: Final = 100
_ONLY_IN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({GLOBAL: ("locks",), TENANT: ("experiment",)})
"""What documents of one layer alone may hold."""
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
    experiment: Experiment | None = None
    arms: Mapping[str, "Policy"] = field(default_factory=dict)
    """The policy of each arm of the experiment, by its name."""

    def without_rules(self) -> "Policy":
        """The same policy, arms included, as if nobody had made a rule."""
        book = RuleBook((), _diversity_caps(self.diversity), self.limits.promoted_percent)
        return replace(self, rules=(), book=book, arms={name: arm.without_rules() for name, arm in self.arms.items()})


def validate(document: object, *, name: str = TENANT, above: Sequence[Layer] = ()) -> list[Problem]:
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
    own = [Layer(name, _without_experiment(document))] if not problems and isinstance(document, Mapping) else []
    if own:  # what only shows in sum, such as weights that are all zero
        _merge((*above, *own), problems)
    if given.experiment is not None:
        layers = above if problems else (*above, *own)
        problems += _problems_of_arms(given.experiment, layers, n_rules=len(given.rules))
    return problems


def _problems_of_arms(experiment: Experiment, above: Sequence[Layer], *, n_rules: int) -> Iterator[Problem]:
    """What is wrong with the documents of the arms; `n_rules` are those of the tenant's own."""
    for place, arm in enumerate(experiment.arms):
        at = f"/experiment/arms/{place}/policy"
        for one in validate(arm.document, name=arm.layer, above=above):
            yield Problem(at + one.pointer, one.problem, one.allowed)
        together = n_rules + len(_read_layer(arm.layer, arm.document, []).rules)
        if together > MAX_RULES:
            yield Problem(f"{at}/rules", f"{together} rules with the tenant's own", f"at most {MAX_RULES}")


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
    experiment, plain = _experiment(layers)
    arms = experiment.arms if experiment else ()
    return Policy(
        weights=weights,
        weight_row=np.array(list(weights.values()), np.float32),
        rules=rules,
        book=book,
        provenance=MappingProxyType(provenance),
        experiment=experiment,
        arms={arm.name: resolve([*plain, Layer(arm.layer, arm.document)]) for arm in arms},
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
    experiment: Experiment | None


def _read_layer(name: str, document: object, problems: list[Problem]) -> _Given:
    known = (*_TABLES, "rules", *_ONLY_IN.get(name, ()))
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
    experiment = read_experiment(given["experiment"], "/experiment", problems) if "experiment" in given else None
    return _Given(values, rules, tuple(locks), experiment)


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


def _experiment(layers: Sequence[Layer]) -> tuple[Experiment | None, Sequence[Layer]]:
    """The experiment in the lowest layer, if there is one, and the layers without it."""
    if not layers or "experiment" not in layers[-1].document:
        return None, layers
    *above, lowest = layers
    found = _read_layer(lowest.name, lowest.document, []).experiment
    return found, [*above, Layer(lowest.name, _without_experiment(lowest.document))]


def _without_experiment(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in document.items() if name != "experiment"}


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
