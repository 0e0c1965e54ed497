"""The rules of one policy, compiled once, so that a request learns in a microsecond which of them act.

A set of rules is a Python int with one bit per rule. Each condition value and each stretch of time between two window
edges has its set; a request ANDs six of them. What a set of acting rules means (`Plan`) is worked out at its first use.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from ranking.columns import OPEN_UNTIL_S, Float32, Rows
from ranking.context import Context
from ranking.hints import COUNTRIES, LANGUAGES
from ranking.rules import CONDITIONS, Block, Boost, Bury, Cap, Pin, Promote, Require, Rule
from ranking.targets import Everything

_MAX_PLANS: Final = 256


class ActiveCap(NamedTuple):
    """One cap in force. `rule` is its index in the policy, -1 for the policy's own diversity."""

    name: str
    cap: Cap
    rule: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the acting rules mean. Rules are named by their index in the policy; conflicts are already settled."""

    active: tuple[int, ...]
    block: tuple[int, ...]
    require: tuple[int, ...]
    scaling: Rows
    """intp[s]: rules that boost, followed by rules that bury."""
    factors: Float32
    """float32[s]: of `scaling`."""
    caps: tuple[ActiveCap, ...]
    """The first to be relaxed comes first."""
    promotions: tuple[tuple[int, float], ...]
    """(rule, share of the page): by priority, cut where the total limit is reached."""
    pins: tuple[tuple[int, int], ...]
    """(rule, position), winners first."""


class RuleBook:
    """All rules of a policy, ready to be asked. Immutable but for its memory of plans."""

    def __init__(self, rules: Sequence[Rule], diversity: Sequence[ActiveCap], promoted_percent: float) -> None:
        self.rules = tuple(rules)
        self._diversity = tuple(diversity)
        self._promoted_share = promoted_percent / 100
        self._conditions = [_sets_by_value(self.rules, name) for name in CONDITIONS]
        self._edges = sorted(
            {
                edge
                for rule in self.rules
                if rule.enabled
                for edge in (rule.window.from_s, rule.window.until_s)
                if 0 < edge < OPEN_UNTIL_S
            }
        )
        self._open = [_open_at(self.rules, start_s) for start_s in (0, *self._edges)]
        self._plans: dict[int, Plan] = {}

    def epoch(self, now_s: int) -> int:
        """Return the number of window edges that have passed: it moves whenever the set of open windows does."""
        return bisect_right(self._edges, now_s)

    def next_boundary_s(self, now_s: int) -> int | None:
        """Return the first second after `now_s` at which a window opens or closes; None = never again."""
        epoch = self.epoch(now_s)
        return self._edges[epoch] if epoch < len(self._edges) else None

    def plan(self, context: Context) -> Plan:
        """Return what the rules acting on this request mean."""
        acting = self._open[self.epoch(context.now_s)]
        for (by_value, otherwise), value in zip(self._conditions, _asked(context), strict=True):
            acting &= by_value.get(value, otherwise)
        plan = self._plans.get(acting)
        if plan is None:
            plan = self._make_plan(tuple(i for i in range(len(self.rules)) if acting >> i & 1))
            if len(self._plans) >= _MAX_PLANS:  # more combinations than any real policy has: start afresh
                self._plans.clear()
            self._plans[acting] = plan
        return plan

    def _make_plan(self, active: tuple[int, ...]) -> Plan:
        boost = [(i, effect.factor) for i in active if isinstance(effect := self.rules[i].effect, Boost)]
        bury = [(i, effect.factor) for i in active if isinstance(effect := self.rules[i].effect, Bury)]
        return Plan(
            active=active,
            block=tuple(i for i in active if isinstance(self.rules[i].effect, Block)),
            require=tuple(i for i in active if isinstance(self.rules[i].effect, Require)),
            scaling=np.array([i for i, _ in boost + bury], np.intp),
            factors=np.array([factor for _, factor in boost + bury], np.float32),
            caps=self._caps(active),
            promotions=self._promotions(active),
            pins=self._pins(active),
        )

    def _caps(self, active: Sequence[int]) -> tuple[ActiveCap, ...]:
        """Diversity gives way before editors do, a lower priority before a higher one."""
        by_rule = [
            ActiveCap(self.rules[i].id, effect, i) for i in active if isinstance(effect := self.rules[i].effect, Cap)
        ]
        by_rule.sort(key=lambda cap: (self.rules[cap.rule].priority, cap.name))
        caps = (*self._diversity, *by_rule)
        return tuple(cap for i, cap in enumerate(caps) if not any(self._implies(other, cap) for other in caps[i + 1 :]))

    def _implies(self, strict: ActiveCap, loose: ActiveCap) -> bool:
        """Tell whether a cap about everything makes a later relaxed, equally wide or wider one redundant."""
        wide = strict.rule < 0 or isinstance(self.rules[strict.rule].target, Everything)
        a, b = strict.cap, loose.cap
        return wide and a.per == b.per and a.max <= b.max and a.window >= b.window

    def _promotions(self, active: Sequence[int]) -> tuple[tuple[int, float], ...]:
        asked = [(i, effect.percent / 100) for i in active if isinstance(effect := self.rules[i].effect, Promote)]
        asked.sort(key=lambda one: (-self.rules[one[0]].priority, self.rules[one[0]].id))
        left, granted = self._promoted_share, []
        for rule, share in asked:
            if min(share, left) > 0:
                granted.append((rule, min(share, left)))
            left -= share
        return tuple(granted)

    def _pins(self, active: Sequence[int]) -> tuple[tuple[int, int], ...]:
        pins = [(i, effect.position) for i in active if isinstance(effect := self.rules[i].effect, Pin)]
        return tuple(sorted(pins, key=lambda pin: _precedence(self.rules[pin[0]])))


def _precedence(rule: Rule) -> tuple[int, int, bool, int, str]:
    """Order of pins that want one slot: priority, more conditions, temporary, newer, smaller id."""
    return -rule.priority, -len(rule.when), not rule.window.is_temporary, -rule.version, rule.id


def _asked(context: Context) -> tuple[Hashable, ...]:
    """Return the request's value for each of `CONDITIONS`, in that order."""
    return context.surface, context.language, context.country, context.age_band, context.cohort


_CODES: Final[dict[str, dict[str, int]]] = {
    "language": {name: code for code, name in enumerate(LANGUAGES)},
    "country": {name: code for code, name in enumerate(COUNTRIES)},
}


def _sets_by_value(rules: Sequence[Rule], condition: str) -> tuple[dict[Hashable, int], int]:
    """Return (value -> rules it satisfies, rules satisfied by any other value) for one condition."""
    otherwise = sum(1 << i for i, rule in enumerate(rules) if condition not in rule.when)
    by_value: dict[Hashable, int] = {}
    for i, rule in enumerate(rules):
        for name in rule.when.get(condition, ()):
            value = _CODES[condition][name] if condition in _CODES else name
            by_value[value] = by_value.get(value, otherwise) | 1 << i
    return by_value, otherwise


def _open_at(rules: Sequence[Rule], now_s: int) -> int:
    return sum(
        1 << i for i, rule in enumerate(rules) if rule.enabled and rule.window.from_s <= now_s < rule.window.until_s
    )
