"""Laws that hold for every member of FEATURES, and what each one means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.features import DEFAULT_WEIGHTS, FEATURES, HalfLives
from ranking.hints import country_set, everywhere
from tests.ranking.cases import DAY_S, NOW_S, random_candidates, random_context, seeds, with_columns

HALF_LIVES = HalfLives()
every_feature = pytest.mark.parametrize("name", FEATURES)


def value_of(name: str, candidates: Candidates, context: Context | None = None) -> list[float]:
    """Compute one feature, rounded for reading."""
    values = FEATURES[name](candidates, context or Context(now_s=NOW_S), HALF_LIVES)
    return [round(float(value), 3) for value in values]


def test_every_feature_has_a_default_weight() -> None:
    """The two tables name the same features, in the same order."""
    assert list(FEATURES) == list(DEFAULT_WEIGHTS)


@every_feature
@given(seed=seeds, n=st.integers(0, 30))
@settings(max_examples=50)
def test_a_feature_is_float32_in_0_to_1_one_per_row(name: str, seed: int, n: int) -> None:
    """Shape, dtype, range, finite; no rows in, no rows out."""
    rng = np.random.default_rng(seed)
    values = FEATURES[name](random_candidates(rng, n), random_context(rng), HALF_LIVES)
    assert values.dtype == np.float32
    assert values.shape == (n,)
    assert np.isfinite(values).all()
    assert ((values >= 0) & (values <= 1)).all()


@every_feature
@given(seed=seeds)
@settings(max_examples=25)
def test_a_feature_treats_rows_alone(name: str, seed: int) -> None:
    """Permuting the candidates permutes the feature, bit by bit."""
    rng = np.random.default_rng(seed)
    candidates, context = random_candidates(rng, 25), random_context(rng)
    order = rng.permutation(25)
    assert np.array_equal(
        FEATURES[name](candidates.take(order), context, HALF_LIVES),
        FEATURES[name](candidates, context, HALF_LIVES)[order],
    )


@every_feature
def test_a_feature_survives_the_ends_of_its_columns(name: str) -> None:
    """Open times, the epoch and out-of-range measurements give values in range, not overflows."""
    ends = np.array([0, -(2**63), 2**63 - 1])
    odd = np.array([-5, 5, 0], np.float32)
    candidates = with_columns(
        Candidates.empty(3),
        **dict.fromkeys(("published_s", "served_s"), ends),
        **dict.fromkeys(("similarity", "negative", "popularity", "rising", "trending", "evergreen"), odd),
    )
    values = FEATURES[name](candidates, Context(now_s=NOW_S), HALF_LIVES)
    assert ((values >= 0) & (values <= 1)).all()


def test_similarity_ignores_what_points_away() -> None:
    """A cosine below 0 is no better or worse than 0."""
    assert value_of("similarity", with_columns(Candidates.empty(2), similarity=np.array([-0.4, 0.7], "f4"))) == [0, 0.7]


def test_freshness_halves_per_half_life() -> None:
    """1 when published or scheduled, 0.5 after one half-life, 0.25 after two."""
    ages = np.array([-DAY_S, 0, HALF_LIVES.freshness_s, 2 * HALF_LIVES.freshness_s])
    assert value_of("freshness", with_columns(Candidates.empty(4), published_s=NOW_S - ages)) == [1, 1, 0.5, 0.25]


def test_served_steps_back_and_recovers() -> None:
    """Never served 0; just served 1; half of it gone after a half-life."""
    served_s = np.array([0, NOW_S, NOW_S - HALF_LIVES.served_s])
    assert value_of("served", with_columns(Candidates.empty(3), served_s=served_s)) == [0, 1, 0.5]
    assert value_of("served", Candidates.empty(1), Context(now_s=0)) == [0]


def test_affinity_is_1_for_the_favourite() -> None:
    """Other creators follow in proportion to their weight; no creator is nobody's favourite."""
    liked = Context(
        now_s=NOW_S,
        liked_creators=np.array([7, 8], "u8"),
        liked_creator_weights=np.array([0.6, 0.3], "f4"),
        liked_categories=np.array([7, 8], "u8"),
        liked_category_weights=np.array([0.6, 0.3], "f4"),
    )
    candidates = with_columns(
        Candidates.empty(3),
        creator=np.array([7, 8, 0], "u8"),
        categories=np.array([[8, 0, 0, 0], [8, 9, 0, 0], [8, 7, 0, 0]], "u8"),
    )
    assert value_of("affinity_creator", candidates, liked) == [1, 0.5, 0]
    assert value_of("affinity_category", candidates, liked) == [0.5, 0.5, 1]


def test_hint_match_is_the_mean_over_the_hints_given() -> None:
    """Same language 1, unknown 0.5; meant for this country 1, for everywhere 0.5; no hints 0."""
    candidates = with_columns(
        Candidates.empty(3),
        language=np.array([5, -1, 6], "i2"),
        countries=np.stack([country_set([40]), everywhere(), everywhere()]),
    )
    assert value_of("hint_match", candidates) == [0, 0, 0]
    assert value_of("hint_match", candidates, Context(now_s=NOW_S, language=5)) == [1, 0.5, 0]
    assert value_of("hint_match", candidates, Context(now_s=NOW_S, language=5, country=40)) == [1, 0.5, 0.25]


def test_hint_match_prefers_content_of_their_age_for_minors_only() -> None:
    """For 13 to 15 the step 13 fits best; adults get no push towards adult content."""
    candidates = with_columns(Candidates.empty(2), min_age=np.array([13, 0], "u1"))
    assert value_of("hint_match", candidates, Context(now_s=NOW_S, age_band="13-15")) == [1, 0.278]
    assert value_of("hint_match", candidates, Context(now_s=NOW_S, age_band="18+")) == [0, 0]


def test_exploration_mixes_anew_with_each_seed() -> None:
    """Spread evenly over 0..1, the same for the same seed, unrelated for the next."""
    candidates = Candidates.empty(2000)
    first, again, second = (
        FEATURES["exploration"](candidates, Context(now_s=NOW_S, seed=seed), HALF_LIVES) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert np.histogram(first, bins=10, range=(0, 1))[0].min() > 130
