"""Hashed names, facets, and columns that are checked when they are put together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.items import Facet, key_hash
from tests.ranking.cases import facet, items, random_candidates, seeds, with_columns


def test_a_key_hash_never_changes() -> None:
    """Golden values: segments and policies on disk hold them."""
    assert key_hash("music") == 13722391973504377764
    assert key_hash("Music") != key_hash("music")
    assert key_hash("\ud800") != 0


@given(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=20), st.lists(st.integers(1, 9), max_size=4))
def test_a_facet_finds_the_rows_that_hold_any_of_the_wanted(rows: list[list[int]], wanted: list[int]) -> None:
    """The same as asking each row's set; empty rows, also at the ends, hold nothing."""
    found = facet(rows).has(np.array(wanted, np.uint64))
    assert found.tolist() == [bool(set(row) & set(wanted)) for row in rows]


def test_a_facet_that_does_not_fit_together_is_refused() -> None:
    """Offsets that do not end at the number of hashes would read foreign values."""
    with pytest.raises(ValueError, match="must run from 0 to the number of hashes, 1"):
        Facet(np.array([0, 2]), np.array([1], np.uint64))
    with pytest.raises(ValueError, match="needs int64 offsets"):
        Facet(np.array([0.0]), np.array([1], np.uint64))


def test_items_of_unequal_length_are_refused() -> None:
    """The first wrong column is named, with what was expected."""
    good = items({"id": "a"}, {"id": "b"})
    with pytest.raises(ValueError, match=r"Items.creator has shape \(1,\), expected \(2,\)"):
        type(good)(**{**{name: getattr(good, name) for name in good.__slots__}, "creator": np.zeros(1, np.uint64)})
    with pytest.raises(ValueError, match=r"Items\.tags has 0 rows, expected 2"):
        type(good)(**{**{name: getattr(good, name) for name in good.__slots__}, "tags": facet([])})


def test_candidates_of_wrong_type_or_shape_are_refused() -> None:
    """A float64 score or a country set of the wrong width is found where it enters, not in the middle of a request."""
    with pytest.raises(ValueError, match=r"Candidates\.similarity is float64, expected float32"):
        with_columns(Candidates.empty(2), similarity=np.zeros(2))
    with pytest.raises(ValueError, match=r"Candidates.countries has shape \(2, 31\), expected \(2, 32\)"):
        with_columns(Candidates.empty(2), countries=np.zeros((2, 31), np.uint8))
    with pytest.raises(ValueError, match=r"Candidates\.vectors is"):
        with_columns(Candidates.empty(2), vectors=np.zeros((3, 4), np.float32))


@given(seeds)
def test_take_picks_rows_of_every_column(seed: int) -> None:
    """In the wanted order; the vectors as well; none are none."""
    rng = np.random.default_rng(seed)
    candidates = random_candidates(rng, 10, rules=3)
    taken = candidates.take(np.array([7, 2]))
    assert taken.item.tolist() == candidates.item[[7, 2]].tolist()
    assert taken.targets.tolist() == candidates.targets[[7, 2]].tolist()
    assert isinstance(taken.vectors, np.ndarray)
    assert isinstance(candidates.vectors, np.ndarray)
    assert taken.vectors.tolist() == candidates.vectors[[7, 2]].tolist()
    assert len(Candidates.empty(3).take(np.array([], np.intp))) == 0


def test_liked_hashes_and_weights_belong_together() -> None:
    """A weight too few is a mistake of the caller, named."""
    with pytest.raises(ValueError, match="liked_category_weights"):
        Context(now_s=0, liked_categories=np.array([1], np.uint64))
