"""An experiment: arms as layers over the tenant's, refused whole when anything in it is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.errors import PolicyError
from ranking.experiment import MAX_ARMS
from ranking.policy import Layer, resolve, validate, with_learned
from ranking.rules import MAX_RULES

PIN = {"id": "p", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["a"]}}


def arm(name: str = "a", percent: Any = 10, **policy: Any) -> dict[str, Any]:
    """Return an arm with these overrides."""
    return {"name": name, "percent": percent, "policy": policy}


def document(*arms: Any, name: Any = "trial", **own: Any) -> dict[str, Any]:
    """Return a tenant's document with an experiment."""
    return {**own, "experiment": {"name": name, "arms": list(arms)}}


def pointers(given: object, **more: Any) -> list[str]:
    """Where a document is wrong."""
    return [problem.pointer for problem in validate(given, **more)]


def test_an_arm_is_a_layer_over_the_tenants() -> None:
    """What it gives is its own and says so, what it leaves out is the tenant's; the tenant's is as without arms."""
    own = {"weights": {"freshness": 0.5}, "rules": [PIN]}
    bury = {"id": "b", "kind": "bury", "effect": {"factor": 0.5}, "target": {"items": ["c"]}}
    policy = resolve([Layer("tenant", document(arm(), arm("b", weights={"popularity": 0}, rules=[bury]), **own))])
    plain, control, tried = resolve([Layer("tenant", own)]), policy.arms["a"], policy.arms["b"]
    for same in (policy, control):
        assert (same.weights, same.rules, same.provenance) == (plain.weights, plain.rules, plain.provenance)
    assert (tried.weights["freshness"], tried.provenance["/weights/freshness"]) == (0.5, "tenant")
    assert (tried.weights["popularity"], tried.provenance["/weights/popularity"]) == (0.0, "arm:b")
    assert [(rule.id, rule.layer) for rule in tried.rules] == [("p", "tenant"), ("b", "arm:b")]
    assert [one.arms for one in policy.arms.values()] == [{}, {}]


def test_what_was_learned_leaves_an_arms_own_values() -> None:
    """It fills in the same gaps in every arm, and none that an arm has filled."""
    policy = resolve([Layer("tenant", document(arm(), arm("b", weights={"popularity": 0.7})))])
    learned = {name: with_learned(one, {"weights": {"popularity": 0.1}}) for name, one in policy.arms.items()}
    assert {name: one.weights["popularity"] for name, one in learned.items()} == {"a": 0.1, "b": 0.7}
    assert learned["b"].provenance["/weights/popularity"] == "arm:b"


def test_without_rules_nothing_else_is_different() -> None:
    """Of the tenant's policy and of its arms: what the dry run before a publish compares with."""
    own = {"rules": [PIN], "diversity": {"creator_max": 3}}
    bare = resolve([Layer("tenant", document(arm("b", rules=[{**PIN, "id": "q"}], weights={"trending": 1}), **own))])
    bare = bare.without_rules()
    expected = resolve([Layer("tenant", {"diversity": {"creator_max": 3}, "weights": {"trending": 1}})])
    for one in (bare, bare.arms["b"]):
        assert (one.rules, one.diversity) == ((), expected.diversity)

    assert bare.arms["b"].weights == expected.weights


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (document(), ["/experiment/arms"]),
        (document(arm(), arm("b"), name="Über"), ["/experiment/name"]),
        (document(arm("a.b"), arm("")), ["/experiment/arms/0/name", "/experiment/arms/1/name"]),
        (document(arm("x"), arm("x")), ["/experiment/arms"]),
        (document(arm("x", 60), arm("y", 41)), ["/experiment/arms"]),
        (document(*(arm(str(n), 1) for n in range(MAX_ARMS + 1))), ["/experiment/arms"]),
        (document(arm("x", True), arm("y", float("nan")), arm("z", 0), arm("w", 1e308)),
         [f"/experiment/arms/{n}/percent" for n in range(4)]),
        (document({"name": "a", "percent": 1}), ["/experiment/arms/0/policy"]),
        (document({"name": "a", "percent": 1, "policy": [], "users": 3}),
         ["/experiment/arms/0/users", "/experiment/arms/0/policy"]),
        (document("all of them"), ["/experiment/arms/0", "/experiment/arms/0/name", "/experiment/arms/0/percent",
                                   "/experiment/arms/0/policy"]),
        ({"experiment": None}, ["/experiment", "/experiment/name", "/experiment/arms"]),
    ],
)  # fmt: skip
def test_a_wrong_experiment_is_refused(given: dict[str, Any], wrong: list[str]) -> None:
    """Each problem names its place; what is refused does not take effect either."""
    assert pointers(given) == wrong
    with pytest.raises(PolicyError):
        resolve([Layer("tenant", given)])


def test_all_problems_of_all_arms_are_listed_with_those_of_the_tenant() -> None:
    """One answer is enough to repair the whole document; an arm holds no experiment of its own."""
    given = document(
        arm("a", weights={"likes": 1}, rules=[{**PIN, "priority": 1000}]),
        arm("b", experiment={}, locks=[]),
        weights={"similarity": "much"},
    )
    assert pointers(given) == [
        "/weights/similarity",
        "/experiment/arms/0/policy/weights/likes",
        "/experiment/arms/0/policy/rules/0/priority",
        "/experiment/arms/1/policy/experiment",
        "/experiment/arms/1/policy/locks",
    ]
    assert pointers(document(arm()), name="global") == ["/experiment"]


def test_shares_of_everybody_are_not_too_many() -> None:
    """Also when a computer makes a little more than 100 of them."""
    assert 27.1 + 37.2 + 35.7 > 100
    assert pointers(document(arm("a", 27.1), arm("b", 37.2), arm("c", 35.7))) == []


def test_an_arm_may_do_no_more_than_a_tenant() -> None:
    """A lock holds for it, and a ceiling of the layers above it, its tenant's too; refused, and without effect."""
    above = [Layer("global", {"locks": ["/diversity", "/rules"], "limits": {"max_age": 16}})]
    given = document(
        arm(limits={"max_age": 13}, diversity={"creator_max": 9}, rules=[PIN]),
        arm("b", limits={"max_age": 9}),
        limits={"max_age": 12},
    )
    at = "/experiment/arms/0/policy"
    assert pointers(given, above=above) == [f"{at}/limits/max_age", f"{at}/diversity/creator_max", f"{at}/rules"]
    policy = resolve([*above, Layer("tenant", given)])
    assert {name: one.limits.max_age for name, one in policy.arms.items()} == {"a": 12, "b": 9}
    assert (policy.arms["a"].diversity.creator_max, policy.arms["a"].rules) == (2, ())


def test_an_arms_rules_count_with_the_tenants() -> None:
    """A hundred together: they act together."""
    rules = [{"id": f"r{n}", "kind": "block", "target": {"items": ["a"]}} for n in range(MAX_RULES)]
    assert pointers(document(arm(rules=[PIN]), rules=rules[1:])) == []
    assert pointers(document(arm(rules=[PIN]), rules=rules)) == ["/experiment/arms/0/policy/rules"]


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(
        st.sampled_from(["name", "arms", "percent", "policy", "weights", "freshness", "x"]), inner, max_size=5
    ),
    max_leaves=20,
)  # fmt: skip


@given(json)
def test_any_json_is_sound_or_refused(given: object) -> None:
    """Never a crash; and what has no problem can be resolved, with a policy for each arm."""
    wrong = validate({"experiment": given})
    if not wrong:
        policy = resolve([Layer("tenant", {"experiment": given})])
        assert policy.experiment is not None
        assert list(policy.arms) == [one.name for one in policy.experiment.arms]
    assert all(problem.pointer.startswith("/experiment") and problem.allowed for problem in wrong)
