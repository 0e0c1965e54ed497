"""What is learned from behaviour: vectors, their calibration, and that nothing of the future gets into either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from indexer import calibrate
from indexer.calibrate import MIX, SHARES, TRIED, WINDOWS, calibrated, mixed
from indexer.held_out import HeldOut, counted, held_out, until, without
from indexer.learn import enough, factors, ridge
from indexer.learning import learned
from ranking.policy import resolve, with_learned
from retrieval.behaviour import Behaviour
from retrieval.counters import HOUR_S, popularity, windows_of
from retrieval.errors import SnapshotCorrupt
from retrieval.journal import Signal
from tests.support.behaving import BEGAN_S, N_ITEMS, circle_of, habits, sittings, texts

ITEMS = np.arange(N_ITEMS, dtype=np.uint32)


@pytest.fixture(scope="module")
def model() -> Behaviour:
    """What is learned of everybody's habits."""
    return learned(habits(), ITEMS, texts(), number=3)


def test_items_of_one_circle_are_near_and_of_two_are_not() -> None:
    """The vectors know who is watched along with whom."""
    items, vectors = factors(habits())
    cosine = vectors @ vectors.T
    same = circle_of(items)[:, None] == circle_of(items)
    np.fill_diagonal(same, False)
    assert cosine[same].mean() > 5 * abs(cosine[~same].mean())


def test_no_vector_is_longer_than_one_and_the_same_log_gives_the_same_ones() -> None:
    """What a joined row needs; and no chance but a fixed one."""
    (_, one), (_, two) = factors(habits()), factors(habits())
    assert (np.linalg.norm(one, axis=1) <= 1 + 1e-6).all()
    assert np.array_equal(one, two)


def test_who_skips_does_not_take_to_it() -> None:
    """Skips, short watches and repetitions teach no likeness."""
    log = habits()
    skipped = replace(log, signal=np.full(len(log), int(Signal.SKIP), np.uint8))
    short = replace(log, signal=np.full(len(log), int(Signal.WATCH), np.uint8), strength=np.full(len(log), 0.1, "f4"))
    assert not len(skipped.taken_to()) and not len(short.taken_to())
    twice = log.take(np.repeat(np.arange(len(log)), 2))
    assert len(twice.taken_to()) == len(log.taken_to())


def test_a_small_tenant_has_too_little() -> None:
    """A few users, or a few events, and texts say more."""
    assert enough(habits()) and not enough(habits(users=30)) and not enough(habits(users=60, each=5))


def test_a_text_that_tells_behaviour_is_believed_and_one_that_does_not_is_not() -> None:
    """The ridge finds a linear map that is there, and answers next to nothing where there is none."""
    text = texts(n=4000)
    told = text[:, :4] * 0.8
    assert np.abs(text @ ridge(text, told) - told).mean() < 0.05
    noise = np.random.default_rng(1).normal(0, 0.3, (4000, 4)).astype(np.float32)
    assert np.abs(text @ ridge(text, noise)).mean() < 0.05


def test_behaviour_is_found_to_matter_and_a_stranger_gets_the_popular(model: Behaviour) -> None:
    """Where texts say nothing and habits everything, the share of behaviour is large; weights fit the policy."""
    filled = with_learned(resolve(), model.document)
    assert filled.taste.behaviour >= 0.5
    assert max(filled.weights[name] for name in ("trending", "popularity", "evergreen")) > 0
    assert filled.provenance["/weights/trending"] == "learned"


@pytest.mark.parametrize("telling", range(len(WINDOWS)))
def test_what_is_popular_is_mixed_for_those_of_whom_nothing_is_known(telling: int) -> None:
    """The window that tells what people do next counts most, and one that tells the contrary little."""
    rng, n_cases, n_items = np.random.default_rng(0), 50, 80
    target = rng.integers(0, n_items, n_cases)
    counts = rng.random((len(WINDOWS), n_cases, n_items), np.float32)
    counts[:, np.arange(n_cases), target] = 0
    counts[telling, np.arange(n_cases), target] = 1
    nobody = np.zeros(n_cases, np.int64)
    mix = mixed(HeldOut(target, np.zeros((n_cases, n_items), bool), counts, [], nobody, []))
    assert mix[telling] == 1
    assert np.delete(mix, telling).max() <= 0.2


def test_for_everybody_else_the_mixture_has_one_weight_beside_similarity(model: Behaviour) -> None:
    """So that what was found for strangers holds whatever is known of somebody."""
    weights = np.array([model.document["weights"][name] for name in WINDOWS])
    assert weights.max() in TRIED[MIX]
    assert np.isin(np.round(weights / weights.max(), 3), SHARES).all()


@pytest.mark.parametrize("tried", [(14.0, 60.0, 180.0), (180.0, 60.0, 14.0)])
@pytest.mark.parametrize(
    ("days", "each", "moved", "expected"), [((0, 90), (8, 5), False, 180.0), ((0, 40, 42), (8, 2, 5), True, 14.0)]
)
def test_a_taste_is_kept_as_long_as_it_tells_what_comes_next(
    days: tuple[int, ...],
    each: tuple[int, ...],
    moved: bool,
    expected: float,
    tried: tuple[float, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who comes back after a season for the same as before is remembered; who has moved on since is not held to it.
    Wherever the search begins."""
    monkeypatch.setattr(calibrate, "TRIED", {**TRIED, "/taste/half_life_days": tried})
    found = learned(sittings(days, each, moved=moved), ITEMS, texts(), number=1)
    assert found.document["taste"]["half_life_days"] == expected


def test_rarity_rises_from_the_median_to_one_in_ten_thousand(model: Behaviour) -> None:
    """The scale is the tenant's own: it means the same for every model."""
    assert (np.diff(model.near) > 0).all()
    assert np.allclose(model.rarity(model.near), [0, 0.25, 0.5, 0.75, 1])
    assert model.rarity(np.array([-9, 9], np.float32)).tolist() == [0, 1]


def test_the_future_changes_nothing_that_was_learned_before_it() -> None:
    """What a held-out user does from then on, and what everybody does later, moves neither counts nor vectors."""
    log = habits()
    taken, rows = log.taken_to(), held_out(log)
    past = without(log, rows)
    since: dict[int, int] = {}
    for user, at_s in zip(taken.user[rows].tolist(), taken.at_s[rows].tolist(), strict=True):
        since.setdefault(user, at_s)
    there = zip(past.user.tolist(), past.at_s.tolist(), strict=True)
    assert all(at_s < since[user] for user, at_s in there if user in since)
    now_s = BEGAN_S + 10 * 86_400
    later = log.at_s >= now_s
    other = replace(log, item=np.where(later, N_ITEMS - 1 - log.item, log.item).astype(np.uint32))
    hour = now_s // HOUR_S
    (_, one), (_, two) = (next(until(counted(each), [hour])) for each in (log, other))
    assert np.array_equal(
        popularity(windows_of({}, now_hour=hour, before=one)).table,
        popularity(windows_of({}, now_hour=hour, before=two)).table,
    )


def test_what_is_calibrated_on_is_not_learned_from() -> None:
    """The answers held out are in no journal and in no count that they are asked with."""
    log = habits()
    rows = held_out(log)
    taken, past = log.taken_to(), without(log, rows)
    there = set(zip(past.user.tolist(), past.item.tolist(), strict=True))
    assert not there & set(zip(taken.user[rows].tolist(), taken.item[rows].tolist(), strict=True))


def test_calibration_is_the_same_every_time(model: Behaviour) -> None:
    """The same past gives the same weights."""
    log = habits()
    assert calibrated(log, model, ITEMS, texts(), resolve())[0] == calibrated(log, model, ITEMS, texts(), resolve())[0]


def test_a_model_is_read_as_it_was_written_and_no_other_bytes_are(model: Behaviour) -> None:
    """Every array and the document; a file cut short or of something else is refused."""
    again = Behaviour.loads(model.dumps())
    assert again.number == 3 and again.document == model.document
    assert np.array_equal(again.joined(ITEMS, texts()), model.joined(ITEMS, texts()))
    for content in (b"", b"junk" * 99, model.dumps()[:-50]):
        with pytest.raises(SnapshotCorrupt):
            Behaviour.loads(content)


def test_a_joined_row_is_a_unit_vector_and_a_new_video_has_one(model: Behaviour) -> None:
    """Also for items nobody has seen, and for texts that are not unit vectors."""
    items = np.array([0, 5, 10**6], np.uint32)
    rows = model.joined(items, 3 * texts(n=3))
    assert rows.shape == (3, model.dim) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.isfinite(rows).all()


def test_a_log_without_events_has_nobody_to_hold_out() -> None:
    """Nothing in, nothing out."""
    nobody = habits().take(np.zeros(0, np.intp))
    assert not len(held_out(nobody))
    assert not enough(nobody)
