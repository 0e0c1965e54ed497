"""The estimators: exact where the truth can be listed, and their intervals hold it as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from notebooks.off_policy import ESTIMATORS, Float64, Logged, doubly_robust, effective_size, estimates, ips, snips

ACTIONS = 4


def odds(size: int = ACTIONS) -> st.SearchStrategy[Float64]:
    """A distribution over actions, nowhere 0."""
    raw = arrays.arrays(np.float64, size, elements=st.floats(0.05, 1))
    return raw.map(lambda values: values / values.sum())


numbers = arrays.arrays(np.float64, ACTIONS, elements=st.floats(-2, 2))


def one_decision(action: int, logging: Float64, target: Float64, reward: Float64, model: Float64) -> Logged:
    """What the log says when this action was taken."""
    value = np.array([target @ model])
    return Logged(
        np.zeros(1, np.int64),
        np.array([target[action] / logging[action]]),
        reward[[action]],
        model[[action]],
        value,
    )


@given(logging=odds(), target=odds(), reward=numbers, model=numbers)
@settings(max_examples=200, deadline=None)
def test_ips_and_the_doubly_robust_one_are_unbiased(
    logging: Float64,
    target: Float64,
    reward: Float64,
    model: Float64,
) -> None:
    """Averaged over what might have been logged they are the truth, the second whatever its model says."""
    truth = target @ reward
    for estimator in (ips, doubly_robust):
        each = [estimator(one_decision(action, logging, target, reward, model)) for action in range(ACTIONS)]
        assert logging @ np.array(each) == pytest.approx(truth, abs=1e-9)


@given(logging=odds(), target=odds(), reward=numbers)
@settings(max_examples=100, deadline=None)
def test_a_perfect_model_leaves_nothing_to_chance(
    logging: Float64,
    target: Float64,
    reward: Float64,
) -> None:
    """Then the doubly robust estimate is the truth whatever was logged."""
    for action in range(ACTIONS):
        found = doubly_robust(one_decision(action, logging, target, reward, reward))
        assert found == pytest.approx(target @ reward, abs=1e-9)


@given(reward=arrays.arrays(np.float64, 6, elements=st.floats(0, 1)), weight=st.floats(0.1, 10))
@settings(max_examples=100, deadline=None)
def test_snips_is_a_mean(reward: Float64, weight: float) -> None:
    """Equal weights: the mean of the rewards, whatever the weight; always between the smallest and the largest."""
    nothing = np.zeros(6)
    logged = Logged(np.arange(6), np.full(6, weight), reward, nothing, nothing)
    assert snips(logged) == pytest.approx(reward.mean())
    assert effective_size(logged) == pytest.approx(6)
    uneven = Logged(np.arange(6), np.linspace(0.0, 5.0, 6), reward, nothing, nothing)
    assert reward.min() - 1e-9 <= snips(uneven) <= reward.max() + 1e-9
    assert effective_size(uneven) < 6


def test_intervals_hold_the_truth() -> None:
    """In a world that is known, at least nine tenths of the 95 % intervals do; and users count, not decisions."""
    rng = np.random.default_rng(1)
    logging, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    likes = rng.uniform(0.1, 0.5, (2000, ACTIONS))  # of each user there is
    truth, held, worlds = float((likes @ target).mean()), dict.fromkeys(ESTIMATORS, 0), 40
    for _ in range(worlds):
        user = np.repeat(np.arange(80), 5)
        who = rng.integers(len(likes), size=80)[user]
        action = rng.choice(ACTIONS, len(user), p=logging)
        reward = (rng.random(len(user)) < likes[who, action]).astype(float)
        model = likes.mean(axis=0)
        weight, expected = (target / logging)[action], np.full(len(user), float(model @ target))
        logged = Logged(user, weight, reward, model[action], expected)
        for name, found in estimates(logged, rng).items():
            held[name] += (found.low or 0) <= truth <= (found.high or 1)
    assert all(count >= 0.88 * worlds for count in held.values()), held


def test_nothing_logged_says_nothing() -> None:
    """No decisions: no figure and no interval."""
    nothing = np.zeros(0)
    empty = Logged(np.zeros(0, np.int64), nothing, nothing, nothing, nothing)
    assert {one.value for one in estimates(empty, np.random.default_rng(0)).values()} == {None}
