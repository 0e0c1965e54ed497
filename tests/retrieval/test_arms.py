"""Arms: who is in which, for ever and everywhere, and what another policy beside the tenant's costs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ranking.context import Context
from ranking.experiment import Arm, Experiment
from ranking.policy import Layer, Policy, resolve
from retrieval.arms import arm_of, in_arm
from retrieval.counters import Popularity
from retrieval.snapshot import Snapshot
from retrieval.view import View
from tests.retrieval.test_view import RULES, TENANT, varied_snapshot
from tests.support.content import NOW_S, memory_folder

USERS = [f"{n:032x}" for n in range(4000)]
BLOCK = {"id": "no-bread", "kind": "block", "target": {"filter": {"tag": ["bread"]}}}


def experiment(name: str = "fresher", **percents: float) -> Experiment:
    """Return arms with these shares."""
    return Experiment(name, tuple(Arm(arm, percent, {}) for arm, percent in percents.items()))


def arms_of(tried: Experiment) -> list[str]:
    """The arm of each of USERS."""
    return [arm_of(tried, "acme", user) for user in USERS]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (experiment(a=50, b=50), "babbaaaababbaaabaabbaabbbbabbbaa"),
        (experiment(a=10, b=10), "---b---ab----aa---b-----------a-"),
        (experiment("other", a=50, b=50), "abaaaaababbbaaabbbaaabaaabbaaaab"),
    ],
)
def test_golden_arms(tried: Experiment, expected: str) -> None:
    """A user's arm is the same in every release: another one would mix up every experiment."""
    assert "".join(arm or "-" for arm in arms_of(tried)[:32]) == expected


shares = st.floats(0.01, 50)


@settings(deadline=None)
@given(a=shares, b=shares, times=st.floats(1, 100), user=st.sampled_from(USERS))
def test_an_experiment_that_grows_moves_nobody(a: float, b: float, times: float, user: str) -> None:
    """Who was in an arm stays in it, while others come in."""
    assume(times * (a + b) <= 100)
    before, after = (arm_of(experiment(a=by * a, b=by * b), "acme", user) for by in (1, times))
    assert before in ("", after)


def test_arms_have_their_shares_and_cut_across_all_else() -> None:
    """So many percent of the users as they should, also of those in one arm of an experiment before."""
    found = arms_of(experiment(a=10, b=30))
    counts = Counter(found)
    assert {arm: counts[arm] / len(USERS) for arm in ("a", "b", "")} == pytest.approx(
        {"a": 0.1, "b": 0.3, "": 0.6}, abs=0.02
    )
    later = [arm for arm, before in zip(arms_of(experiment("next", a=50, b=50)), found, strict=True) if before == "b"]
    assert Counter(later)["a"] / len(later) == pytest.approx(0.5, abs=0.04)
    assert set(arms_of(experiment(a=60, b=40))) == {"a", "b"}


def policy_of(*arms: tuple[str, dict[str, Any]], rules: Any = RULES) -> Policy:
    """A tenant's policy with an experiment of these arms."""
    said = [{"name": name, "percent": 50, "policy": policy} for name, policy in arms]
    return resolve([Layer("tenant", {"rules": rules, "experiment": {"name": "trial", "arms": said}})])


def view_of(policy: Policy, snapshot: Snapshot, previous: View | None = None, version: str = "1.2") -> View:
    """The tenant under it."""
    popularity = Popularity.alike(np.linspace(0, 1, 200, dtype=np.float32))
    return View.of(TENANT, policy, version, snapshot, popularity, previous, np.array([7], np.uint32))


def small_snapshot() -> Snapshot:
    """Some varied videos, in a base and beside it."""
    with memory_folder() as folder:
        return varied_snapshot(folder)


def test_everybody_is_served_from_the_view_of_their_arm() -> None:
    """Its version names the arm; without a user, or an experiment, it is the tenant's own."""
    view = view_of(policy_of(("a", {}), ("b", {"weights": {"freshness": 2}})), small_snapshot())
    for user in USERS[:50]:
        arm = arm_of(view.policy.experiment, "acme", user)  # type: ignore[arg-type]  # it has one
        theirs = in_arm(view, user)
        assert (theirs.policy_version, theirs.arm) == (f"1.2.trial.{arm}", f"trial.{arm}")
        assert theirs.policy.weights["freshness"] == (2 if arm == "b" else view.policy.weights["freshness"])
    assert in_arm(view, None) is view
    assert view.arm == ""
    plain = view_of(resolve(), small_snapshot())
    assert in_arm(plain, USERS[0]) is plain


def test_an_arm_of_other_weights_shares_all_that_is_known_of_rows() -> None:
    """Its masks and targets are the tenant's, one in memory: what an arm costs does not grow with the catalogue."""
    view = view_of(
        policy_of(("a", {}), ("b", {"weights": {"trending": 1}, "diversity": {"creator_max": 5}})), small_snapshot()
    )
    asked = Context(now_s=NOW_S)
    for arm in view.arms.values():
        assert arm.parts is view.parts
        assert arm._masks is view._masks
        assert np.array_equal(
            arm.allowed(arm.policy.book.plan(asked), asked), view.allowed(view.policy.book.plan(asked), asked)
        )


@pytest.mark.parametrize("own", [{"rules": [BLOCK]}, {"limits": {"max_age": 12}}])
def test_an_arm_of_other_rules_shows_what_they_let_it(own: dict[str, Any]) -> None:
    """As a tenant of that policy would; the other arms and the tenant are as they were."""
    snapshot, asked = small_snapshot(), Context(now_s=NOW_S)
    view = view_of(policy_of(("a", {}), ("b", own)), snapshot)
    for arm, layers in ((view.arms["b"], [own]), (view.arms["a"], []), (view, [])):
        documents = [Layer("tenant", {"rules": RULES}), *(Layer("arm:b", one) for one in layers)]
        alone = view_of(resolve(documents), snapshot)
        expected = alone.allowed(alone.policy.book.plan(asked), asked)
        assert np.array_equal(arm.allowed(arm.policy.book.plan(asked), asked), expected)
        assert arm.most_popular.tolist() == alone.most_popular.tolist()


def test_a_new_view_works_out_only_what_is_new() -> None:
    """The next popularity, or a policy with the same rules, takes over the targets of the tenant and of each arm."""
    snapshot, policy = small_snapshot(), policy_of(("a", {}), ("b", {"rules": [BLOCK]}))
    first = view_of(policy, snapshot)
    weighed = policy_of(("a", {"weights": {"trending": 1}}), ("b", {"rules": [BLOCK], "weights": {"trending": 1}}))
    for second in (view_of(policy, snapshot, first), view_of(weighed, snapshot, first, "1.3")):
        assert all(one is other for one, other in zip(second.parts, first.parts, strict=True))
        assert all(one is other for one, other in zip(second.arms["b"].parts, first.arms["b"].parts, strict=True))
    other = view_of(policy_of(("a", {}), ("b", {"rules": [{**BLOCK, "id": "else"}]})), snapshot, first)
    assert not any(one is before for one, before in zip(other.arms["b"].parts, first.arms["b"].parts, strict=True))
