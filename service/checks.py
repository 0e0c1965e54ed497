"""May this policy be published? The schema, then a dry run on a cold user, made-up ones, and real ones if given.

Refused: what the schema refuses; rules that drive more than half of a page; a page that falls short only because of
rules; a pin that no item can ever stand on; a playlist the tenant does not have. Warned of: rules that drive more than
30 % of a page, a window that is over, promotions and caps that give way.
A slot counts as driven by a rule when a pin or a promotion filled it, or when its item got onto the page only because
of a boost. What a rule takes away (block, require, cap) drives nothing: the score still decides what stands there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from ranking.columns import OPEN_UNTIL_S
from ranking.context import Context
from ranking.hints import AGE_BANDS, age_ceiling, country_bit, country_code, language_code
from ranking.policy import GLOBAL as GLOBAL_LAYER
from ranking.policy import Layer, Policy, validate
from ranking.rules import Block, Pin, Rule
from ranking.slate import PlacedBy
from ranking.targets import Ids, Playlist
from retrieval.errors import Problem
from retrieval.flags import COHORTS
from retrieval.journal import EMPTY, Journal
from retrieval.masks import is_set
from retrieval.view import Rows, View
from service.errors import worded
from service.ranked import Ranked, layers, replayed, samples, under

WARN_SHARE: Final = 0.30
REFUSE_SHARE: Final = 0.50
PAGE: Final = 20
MAX_PROBLEMS: Final = 50
NAMED: Final = 5
"""Rules that are named at most when they drive too much, those that drive most."""
MAX_SITUATIONS: Final = 24
"""Kinds of requests that a dry run tries: one without hints, then one in which each rule acts, the strongest first."""


@dataclass(frozen=True)
class DryRun:
    """One page of a dry run: who asked, in which situation, and how many of its slots which rules drove."""

    user: str
    situation: str
    items: int
    items_without_rules: int
    driven_by: Mapping[str, int]

    @property
    def driven(self) -> int:
        return sum(self.driven_by.values())


@dataclass
class Verdict:
    """What is to be said about a policy; without `errors` it may be published."""

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    runs: list[DryRun] = field(default_factory=list)

    def add(self, other: Verdict, at: str, about: str) -> None:
        """Say the same, of a part of the document: its pointers begin there, its words and situations with `about`."""
        self.errors += [Problem(at + one.pointer, about + one.message) for one in other.errors]
        self.warnings += [Problem(at + one.pointer, about + one.message) for one in other.warnings]
        self.runs += [replace(one, situation=about + one.situation) for one in other.runs]

    @property
    def driven_share(self) -> float:
        """The largest part of a page that rules drove, on average over the users, in any situation; 0 to 1."""
        return _share(self._most_driven)

    @property
    def _most_driven(self) -> Sequence[DryRun]:
        """The runs of the situation in which rules drove most."""
        situations: dict[str, list[DryRun]] = {}
        for run in self.runs:
            situations.setdefault(run.situation, []).append(run)
        return max(situations.values(), key=_share, default=())

    def judge_rules(self) -> None:
        """Say so when rules drive too much of a page: which, and when."""
        runs = self._most_driven
        share = _share(runs)
        if share <= WARN_SHARE:
            return
        slots = sum((Counter(run.driven_by) for run in runs), Counter[str]())
        named = ", ".join(f"{rule} {count / slots.total():.0%}" for rule, count in slots.most_common(NAMED))
        said = f"rules drive {share:.0%} of a page ({runs[0].situation}; of that {named})"
        if share > REFUSE_SHARE:
            self.errors.append(Problem("/rules", f"{said}; at most {REFUSE_SHARE:.0%} are allowed"))
        else:
            self.warnings.append(Problem("/rules", f"{said}; above {WARN_SHARE:.0%} the feed is hardly personal"))


def _share(runs: Sequence[DryRun]) -> float:
    return sum(run.driven / max(run.items, 1) for run in runs) / max(len(runs), 1)


def schema_problems(
    document: object, global_body: Mapping[str, Any], view: View | None, playlists: frozenset[str]
) -> list[Problem]:
    """Everything wrong with the document itself.

    `view` None: it is the global one. `playlists`: those the tenant has made; its videos may name others.
    """
    if view is None:
        found = validate(document, name=GLOBAL_LAYER)
    else:
        found = validate(document, above=[Layer(GLOBAL_LAYER, global_body)])
    problems = [Problem(one.pointer, worded(one)) for one in found]
    if problems or view is None or not isinstance(document, dict):
        return problems
    return [
        Problem(f"{at}/target/playlist", f"there is no playlist {rule.target.playlist[:40]!r} here")
        for at, rule in _own_rules(document)
        if isinstance(rule.target, Playlist)
        and rule.target.playlist not in playlists
        and not any(rule.target.mask(segment.items).any() for segment in view.snapshot.segments)
    ]


def _own_rules(document: Mapping[str, Any]) -> Iterator[tuple[str, Rule]]:
    """(pointer, rule) of all rules of a tenant's document, those of its arms too."""
    policy = layers({}, document)
    for number, rule in enumerate(policy.rules):
        yield f"/rules/{number}", rule
    for place, arm in enumerate(policy.arms.values()):
        for number, rule in enumerate(arm.rules[len(policy.rules) :]):
            yield f"/experiment/arms/{place}/policy/rules/{number}", rule


def check(
    view: View,
    global_body: Mapping[str, Any],
    own_body: Mapping[str, Any],
    *,
    of_all: bool,
    now_s: int,
    users: Mapping[str, Journal],
) -> Verdict:
    """The dry run of two documents whose schemas are right, in place of the policy of `view`.

    `of_all`: it is the global one that is to be published. `users`: journals of real users, by what to call them.
    """
    policy = layers(global_body, own_body)
    n_global, n_rules = len(global_body.get("rules", ())), len(policy.rules)
    drafted, without = under(view, policy, "draft"), under(view, policy.without_rules(), "draft-without-rules")
    journals = {"cold": EMPTY, **{f"sample {n}": one for n, one in enumerate(samples(view, now_s=now_s), 1)}, **users}
    judged = range(n_global) if of_all else range(n_global, n_rules)
    verdict = _tried(drafted, without, judged, journals, now_s)
    for place, name in enumerate(policy.arms):
        judged = range(n_global) if of_all else range(n_rules, len(policy.arms[name].rules))
        of_arm = _tried(drafted.arms[name], without.arms[name], judged, journals, now_s)
        verdict.add(of_arm, "" if of_all else f"/experiment/arms/{place}/policy", f"arm {name}: ")
    return verdict


def _tried(drafted: View, without: View, judged: range, journals: Mapping[str, Journal], now_s: int) -> Verdict:
    """What is to be said about one policy; `without` is the same without rules."""
    verdict = Verdict()
    _check_targets(drafted, judged, now_s, verdict)
    for situation, context in _situations(drafted.policy, now_s):
        for user, journal in journals.items():
            verdict.runs.append(_run(user, situation, journal, context, drafted, without, verdict))
    verdict.judge_rules()
    verdict.errors = list(dict.fromkeys(verdict.errors))[:MAX_PROBLEMS]
    verdict.warnings = list(dict.fromkeys(verdict.warnings))[:MAX_PROBLEMS]
    return verdict


def driven_by(run: Ranked) -> dict[str, int]:
    """How many slots of the first page each rule filled, or brought the item to; each slot counts for one rule."""
    ranking, targets, limit = run.ranking, run.candidates.targets, run.limit
    rules, plan = run.view.policy.rules, run.ask.plan
    eligible = np.flatnonzero(np.isin(np.arange(len(run.candidates)), ranking.order))
    by_base = eligible[np.lexsort((run.candidates.item[eligible], -ranking.base[eligible]))]
    organic = set(by_base[:limit].tolist())
    found = Counter[str]()
    page = zip(ranking.rows[:limit].tolist(), ranking.placed_by.tolist(), ranking.rule.tolist(), strict=False)
    for row, placed, placing in page:
        if placed in (PlacedBy.PIN, PlacedBy.PROMOTION):
            found[rules[placing].id] += 1
        elif placed == PlacedBy.SCORE and ranking.factor[row] > 1 and row not in organic:
            aimed = np.where(targets[row, plan.scaling], plan.factors, 0)
            found[rules[plan.scaling[aimed.argmax()]].id] += 1
    return dict(found)


def _run(
    user: str, situation: str, journal: Journal, context: Context, drafted: View, without: View, verdict: Verdict
) -> DryRun:
    run = replayed(drafted, journal, context, PAGE)
    bare = replayed(without, journal, context, PAGE)
    items, unruled = len(run.page), len(bare.page)
    if (items < PAGE <= unruled) or (items == 0 < unruled):
        acting = [drafted.policy.rules[i].id for i in (*run.ask.plan.block, *run.ask.plan.require)]
        because = f"{user}, {situation}: {items} of {min(PAGE, unruled)} slots filled, because of {', '.join(acting)}"
        verdict.errors.append(Problem("/rules", f"a page falls short only because of rules ({because})"))
    given_way = sorted({rule.id for rule in drafted.policy.rules if rule.kind == "cap"} & set(run.ranking.relaxed))
    if given_way:
        said = f"{', '.join(given_way)} gave way to fill the page ({user}, {situation})"
        verdict.warnings.append(Problem("/rules", said))
    return DryRun(user, situation, items, unruled, driven_by(run))


def _situations(policy: Policy, now_s: int) -> Iterator[tuple[str, Context]]:
    """A request without hints, then requests in which rules act, those with the highest priority first."""
    found = {_key(Context(now_s)): ("now, no hints", Context(now_s))}
    for rule in sorted(policy.rules, key=lambda rule: (-rule.priority, rule.id)):
        if rule.enabled and rule.window.until_s > now_s:
            context = _acting(rule, now_s)
            found.setdefault(_key(context), (f"as for rule {rule.id}", context))
    yield from list(found.values())[:MAX_SITUATIONS]


def _key(context: Context) -> tuple[object, ...]:
    return context.now_s, context.surface, context.language, context.country, context.age_band, context.cohort


def _acting(rule: Rule, now_s: int) -> Context:
    """The first request one can think of on which the rule acts."""
    hints = {name: min(values) for name, values in rule.when.items()}
    band = hints.get("age_band", "")
    return Context(
        now_s=max(now_s, rule.window.from_s),
        surface=hints.get("surface", ""),
        language=language_code(hints.get("language", "")),
        country=country_code(hints.get("country", "")),
        age_band=band,
        max_age=age_ceiling(band),
        cohort=hints.get("cohort", ""),
    )


def _check_targets(drafted: View, judged: range, now_s: int, verdict: Verdict) -> None:
    """The window and the target of each of the `judged` rules; of a pin, whether anything can ever stand on it."""
    for number in judged:
        rule, at = drafted.policy.rules[number], f"/rules/{number - judged.start}"
        if rule.window.until_s <= now_s:
            verdict.warnings.append(Problem(f"{at}/window/until", f"the window of {rule.id!r} is over: it never acts"))
            continue
        if nobody := sorted(set(rule.when.get("cohort", ())) - set(COHORTS)):
            said = f"nobody is in {', '.join(map(repr, nobody))}; cohorts are {COHORTS[0]!r} to {COHORTS[-1]!r}"
            verdict.warnings.append(Problem(f"{at}/when/cohort", said))
        aimed = _aimed_at(drafted, number)
        if isinstance(rule.effect, Pin) and rule.enabled:
            why = _never(drafted, rule, aimed, now_s)
            if why:
                verdict.errors.append(Problem(at, f"the pin {rule.id!r} can never be eligible: {why}"))
        elif not len(aimed):
            verdict.warnings.append(Problem(f"{at}/target", f"{rule.id!r} aims at no video there is now"))


def _aimed_at(view: View, rule: int) -> Rows:
    """The live rows a rule aims at."""
    starts = view.snapshot.starts
    found = [
        np.flatnonzero(part.targeted_by_any([rule])) + start for part, start in zip(view.parts, starts, strict=False)
    ]
    rows = np.concatenate([np.zeros(0, np.int64), *found])
    return rows[is_set(view.snapshot.live, rows)]


def _never(drafted: View, rule: Rule, aimed: Rows, now_s: int) -> str:
    """Why none of the rows can ever stand on a pin; "" if one can."""
    if not len(aimed):
        ids = f" ({', '.join(rule.target.ids[:3])})" if isinstance(rule.target, Ids) else ""
        return f"its target{ids} is no video of the catalogue that is published"
    snapshot, policy = drafted.snapshot, drafted.policy
    start_s = np.maximum(snapshot.column("available_from_s", aimed), max(now_s, rule.window.from_s))
    aimed = aimed[start_s < np.minimum(snapshot.column("available_until_s", aimed), rule.window.until_s)]
    if not len(aimed):
        return "it is not available while the pin holds"
    bands = [AGE_BANDS[band] for band in rule.when.get("age_band", ())] or [18]
    aimed = aimed[snapshot.column("min_age", aimed) <= min(policy.limits.max_age, max(bands))]
    if not len(aimed):
        return f"its maturity is above the ceiling of {min(policy.limits.max_age, max(bands))}"
    if "country" in rule.when:
        bits = [country_bit(country_code(country)) for country in rule.when["country"]]
        countries = snapshot.column("countries", aimed)
        aimed = aimed[np.any([countries[:, byte] >> shift & 1 for byte, shift in bits], axis=0)]
        if not len(aimed):
            return "it may not be shown in the countries the pin is for"
    for number, other in enumerate(policy.rules):
        if isinstance(other.effect, Block) and _covers(other, rule):
            aimed = np.setdiff1d(aimed, _aimed_at(drafted, number))
            if not len(aimed):
                return f"the rule {other.id!r} blocks it"
    return ""


def _covers(block: Rule, pin: Rule) -> bool:
    """Whether the block acts whenever the pin does."""
    conditions = all(name in pin.when and pin.when[name] <= values for name, values in block.when.items())
    within = block.window.from_s <= pin.window.from_s and pin.window.until_s <= block.window.until_s
    open_ended = block.window.from_s == 0 and block.window.until_s == OPEN_UNTIL_S
    return block.enabled and conditions and (within or open_ended)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the JSON of an answer."""
    return {
        "valid": not verdict.errors,
        "errors": [{"pointer": problem.pointer, "detail": problem.message} for problem in verdict.errors],
        "warnings": [{"pointer": problem.pointer, "detail": problem.message} for problem in verdict.warnings],
        "rules_drive_percent": round(100 * verdict.driven_share, 1),
        "dry_run": [{**asdict(run), "driven": run.driven} for run in verdict.runs],
    }
