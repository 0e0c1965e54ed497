"""Layers, locks, provenance; and that a wrong policy is refused whole, with everything that is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.errors import PolicyError
from ranking.features import DEFAULT_WEIGHTS
from ranking.policy import POINTERS, Layer, resolve, validate
from ranking.rules import MAX_RULES


def pointers(document: object, **more: Any) -> list[str]:
    """Where a document is wrong."""
    return [problem.pointer for problem in validate(document, **more)]


def rule(**changes: Any) -> dict[str, Any]:
    """Return a valid rule, changed."""
    return {"id": "r", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["a"]}} | changes


def test_without_layers_the_default_stands() -> None:
    """Each value says that it comes from the default."""
    policy = resolve()
    assert dict(policy.weights) == dict(DEFAULT_WEIGHTS)
    assert policy.weight_row.tolist() == pytest.approx(list(DEFAULT_WEIGHTS.values()))
    assert set(policy.provenance.values()) == {"default"}
    assert set(policy.provenance) == POINTERS
    assert policy.rules == ()


def test_a_lower_layer_wins_and_a_missing_key_inherits() -> None:
    """And the policy tells which layer set what."""
    policy = resolve(
        [
            Layer("global", {"weights": {"popularity": 0.5, "trending": 0.1}, "explore": {"share": 0.1}}),
            Layer("tenant", {"weights": {"popularity": 0.7}}),
            Layer("arm:b", {"half_lives": {"freshness_s": 3600}}),
        ]
    )
    assert policy.weights["popularity"] == 0.7
    assert policy.weights["trending"] == 0.1
    assert policy.weights["similarity"] == DEFAULT_WEIGHTS["similarity"]
    assert policy.half_lives.freshness_s == 3600
    told = {pointer: layer for pointer, layer in policy.provenance.items() if layer != "default"}
    assert told == {
        "/weights/popularity": "tenant",
        "/weights/trending": "global",
        "/explore/share": "global",
        "/half_lives/freshness_s": "arm:b",
    }


def test_rules_add_up_with_the_general_ones_first() -> None:
    """No layer can take a rule of another away."""
    layers = [Layer("global", {"rules": [rule()]}), Layer("tenant", {"rules": [rule(id="s")]})]
    assert [(r.layer, r.id) for r in resolve(layers).rules] == [("global", "r"), ("tenant", "s")]
    assert resolve([layers[0], Layer("tenant", {"rules": []})]).rules[0].id == "r"


def test_a_locked_key_stays_as_the_global_layer_set_it() -> None:
    """Publishing against the lock is refused; a document older than the lock loses silently."""
    above = [Layer("global", {"weights": {"negative": -1}, "locks": ["/weights/negative", "/diversity", "/rules"]})]
    document = {"weights": {"negative": 0, "trending": 1}, "diversity": {"creator_max": 50}, "rules": [rule()]}
    assert pointers(document, above=above) == ["/weights/negative", "/diversity/creator_max", "/rules"]
    policy = resolve([*above, Layer("tenant", document)])
    assert policy.weights["negative"] == -1
    assert policy.weights["trending"] == 1
    assert policy.diversity.creator_max == 2
    assert policy.rules == ()
    assert policy.provenance["/weights/negative"] == "global"


def test_a_tenant_may_tighten_a_limit_and_never_loosen_it() -> None:
    """The maturity ceiling and the promoted share only go down."""
    above = [Layer("global", {"limits": {"max_age": 13, "promoted_percent": 20}})]
    assert pointers({"limits": {"max_age": 9, "promoted_percent": 5}}, above=above) == []
    assert pointers({"limits": {"max_age": 16, "promoted_percent": 30}}, above=above) == [
        "/limits/max_age",
        "/limits/promoted_percent",
    ]
    assert resolve([*above, Layer("tenant", {"limits": {"max_age": 16}})]).limits.max_age == 13
    assert resolve([*above, Layer("tenant", {"limits": {"max_age": 9}})]).limits.max_age == 9


def test_only_the_global_layer_has_locks() -> None:
    """And only over what exists."""
    assert pointers({"locks": ["/weights"]}) == ["/locks"]
    assert pointers({"locks": ["/weights", "/wheels", 3]}, name="global") == ["/locks/1", "/locks/2"]


def test_every_problem_is_listed_with_place_value_and_what_is_allowed() -> None:
    """One answer is enough to repair the whole document."""
    document = {
        "weights": {"similarity": float("nan"), "likes": 1, "trending": 1e308, "popularity": True},
        "half_lives": {"freshness_s": 1.5},
        "explore": [],
        "rulez": [],
        "rules": [
            rule(id="", priority=1000, enabled=1, effect={"position": -1}, colour="red"),
            rule(kind="ban"),
            rule(kind="boost", effect={"factor": 11}, when={"country": ["XX"], "surface": [], "mood": ["good"]}),
            "block everything",
        ],
    }
    with pytest.raises(PolicyError) as refused:
        resolve([Layer("tenant", document)])
    problems = {problem.pointer: problem for problem in refused.value.problems}
    assert sorted(problems) == [
        "/explore",
        "/half_lives/freshness_s",
        "/rules/0/colour",
        "/rules/0/effect/position",
        "/rules/0/enabled",
        "/rules/0/id",
        "/rules/0/priority",
        "/rules/1/kind",
        "/rules/2/effect/factor",
        "/rules/2/when/country/0",
        "/rules/2/when/mood",
        "/rules/2/when/surface",
        "/rules/3",
        "/rulez",
        "/weights/likes",
        "/weights/popularity",
        "/weights/similarity",
        "/weights/trending",
    ]
    assert (
        str(problems["/rules/2/effect/factor"])
        == "/rules/2/effect/factor: 11 does not fit; allowed: a number from 1 to 10"
    )
    assert "similarity, freshness" in problems["/weights/likes"].allowed
    assert all(problem.problem and problem.allowed for problem in problems.values())
    assert validate(document) == list(refused.value.problems)


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"weights": dict.fromkeys(DEFAULT_WEIGHTS, 0)}, "/weights"),
        ({"weights": {"similarity": float("inf")}}, "/weights/similarity"),
        ({"weights": {"similarity": 10**400}}, "/weights/similarity"),
        ({"weights": {"similarity": "1"}}, "/weights/similarity"),
        ({"weights": {"a/b~c": 1}}, "/weights/a~1b~0c"),
        ({"limits": {"max_age": 15}}, "/limits/max_age"),
        ({"limits": {"max_age": 12.0}}, "/limits/max_age"),
        ({"rules": [rule(id=f"r{i}", effect={"position": i}) for i in range(MAX_RULES + 1)]}, "/rules"),
        ({"rules": {}}, "/rules"),
        ({"rules": [rule(), rule(effect={"position": 1})]}, "/rules/1/id"),
        ({"rules": [rule(), rule(id="s")]}, "/rules/1/effect/position"),
        ({"rules": [rule(kind="block", effect={}, target={})]}, "/rules/0/target"),
        ({"rules": [{"id": "r", "kind": "block"}]}, "/rules/0/target"),
        ({"rules": [rule(effect={})]}, "/rules/0/effect/position"),
        ({"rules": [rule(reason="x" * 501)]}, "/rules/0/reason"),
        ({"rules": [rule(kind=["pin"])]}, "/rules/0/kind"),
        ([], ""),
        (None, ""),
    ],
)
def test_one_mistake_is_found_at_its_place(document: Any, pointer: str) -> None:
    """Values out of range, of wrong type, doubled, too many, missing."""
    assert pointer in pointers(document)


def test_21_pins_on_one_surface_are_too_many() -> None:
    """A pin without a surface counts on every one of them."""
    anywhere = [rule(id=f"a{i}", effect={"position": i}) for i in range(10)]
    home = [rule(id=f"h{i}", effect={"position": i}, when={"surface": ["home"]}) for i in range(10)]
    assert pointers({"rules": anywhere + home}) == []
    one_more = rule(id="x", effect={"position": 50}, when={"surface": ["home", "search"]})
    [problem] = validate({"rules": [*anywhere, *home, one_more]})
    assert problem.problem == "21 pins on surface 'home'"


def test_pins_of_one_slot_may_follow_each_other_or_differ_in_their_conditions() -> None:
    """Only the same slot on the same conditions at the same time is a contradiction."""
    morning = {"until": "2026-07-01T12:00", "zone": "Europe/Paris"}
    evening = {"from": "2026-07-01T12:00", "zone": "Europe/Paris"}
    longer = {"from": "2026-07-01T11:59", "until": "2026-07-09T12:00", "zone": "Europe/Paris"}
    assert pointers({"rules": [rule(window=morning), rule(id="s", window=evening)]}) == []
    assert pointers({"rules": [rule(window=morning), rule(id="s", window=longer)]}) == ["/rules/1/effect/position"]
    assert pointers({"rules": [rule(when={"country": ["DE"]}), rule(id="s")]}) == []
    assert pointers({"rules": [rule(priority=1), rule(id="s", priority=2)]}) == []
    assert pointers({"rules": [rule(window=morning), rule(id="s")]}) == []
    assert pointers({"rules": [rule(enabled=False), rule(id="s")]}) == []


KEYS = "weights rules similarity id kind pin effect target filter and when window zone from".split()  # noqa: SIM905
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_whatever_comes_it_is_read_or_refused(document: Any) -> None:
    """No JSON value makes validation fail in another way than by listing problems."""
    problems = validate(document)
    if not problems:
        resolve([Layer("tenant", document)])
