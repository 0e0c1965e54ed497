"""Columns of videos: what a video says is what its row says, however rows are taken apart and put together."""

from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from ranking.hints import country_code, country_set, everywhere, language_code
from ranking.items import key_hash
from retrieval.rows import COLUMNS, RAGGED, RECORD, Ragged, Rows, card
from retrieval.videos import OPEN_END_S, Video
from tests.support.content import a_video, drawn_videos, some_rows, unit_vectors

lists = st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=5), max_size=8)


def same(one: Rows, other: Rows) -> bool:
    """Whether two tables hold the same, column by column and in one order."""
    return (
        all(np.array_equal(one.columns[name], other.columns[name]) for name in COLUMNS)
        and all(np.array_equal(one.ragged[name].offsets, other.ragged[name].offsets) for name in RAGGED)
        and all(np.array_equal(one.ragged[name].values, other.ragged[name].values) for name in RAGGED)
        and np.array_equal(one.vectors, other.vectors)
    )


def rows_of(videos: list[Video]) -> Rows:
    return Rows.from_videos(videos, unit_vectors(len(videos)))


@given(drawn_videos())
def test_a_row_says_what_its_video_says(videos: list[Video]) -> None:
    """Each column of row i is the field of video i, in the form that ranking reads."""
    rows = rows_of(videos)
    for i, video in enumerate(videos):
        column = {name: values[i] for name, values in rows.columns.items()}
        for name in ("item", "version", "duration_s", "published_s", "available_from_s", "available_until_s"):
            assert column[name] == getattr(video, name)
        assert column["id_hash"] == key_hash(video.id)
        assert column["creator"] == (key_hash(video.creator) if video.creator else 0)
        assert column["language"] == (language_code(video.language) if video.language else -1)
        expected = country_set(map(country_code, video.countries)) if video.countries else everywhere()
        assert np.array_equal(column["countries"], expected)
        assert [each for each in column["categories"].tolist() if each] == [key_hash(c) for c in video.categories]


@given(drawn_videos())
def test_a_card_is_the_json_of_the_answer_left_open(videos: list[Video]) -> None:
    """With its brace, a card is the object the API documents; the bytes in the table are those of `card`."""
    cards = rows_of(videos).ragged["cards"]
    for i, video in enumerate(videos):
        stored = cards.values[cards.offsets[i] : cards.offsets[i + 1]].tobytes()
        assert stored == card(video)
        shown = orjson.loads(stored + b"}")
        assert (shown["id"], shown["title"], shown["tags"]) == (video.id, video.title, list(video.tags))
        assert (shown["not_after"] is None) == (video.available_until_s == OPEN_END_S)


def test_the_end_of_availability_is_a_time_of_the_api() -> None:
    """not_after is RFC 3339 in UTC with a Z."""
    assert orjson.loads(card(a_video(1, available_until_s=1_750_000_000)) + b"}")["not_after"] == "2025-06-15T15:06:40Z"


@given(drawn_videos(), st.data())
def test_taking_rows_is_taking_videos(videos: list[Video], data: st.DataObject) -> None:
    """take(rows of videos) = rows of the taken videos, in any order, with repeats, and by a mask."""
    rows = rows_of(videos)
    order = data.draw(st.lists(st.sampled_from(range(len(videos))), max_size=20) if videos else st.just([]))
    chosen = np.array(order, np.int64)
    expected = Rows.from_videos([videos[i] for i in order], unit_vectors(len(videos))[chosen])
    assert same(rows.take(chosen), expected)
    mask = np.isin(np.arange(len(videos)), chosen)
    assert same(rows.take(mask), rows.take(np.flatnonzero(mask)))


@given(drawn_videos(), st.integers(0, 5))
def test_parts_put_together_are_the_whole(videos: list[Video], cut: int) -> None:
    """concat undoes a split anywhere, at the ends too."""
    rows = rows_of(videos)
    at = np.arange(len(videos))
    assert same(Rows.concat([rows.take(at[:cut]), rows.take(at[cut:]), Rows.empty(rows.vectors.shape[1])]), rows)


@given(lists, st.data())
def test_ragged_lists_keep_their_members(values: list[list[int]], data: st.DataObject) -> None:
    """`Ragged.take` gives the lists asked for, as long as they were."""
    ragged = Ragged.of(values, "<u8")
    order = data.draw(st.lists(st.sampled_from(range(len(values))), max_size=10) if values else st.just([]))
    taken = ragged.take(np.array(order, np.int64))
    found = [taken.values[a:b].tolist() for a, b in zip(taken.offsets, taken.offsets[1:], strict=False)]
    assert found == [values[i] for i in order]


@given(drawn_videos())
def test_rules_see_the_words_of_a_video(videos: list[Video]) -> None:
    """`items()` finds each tag, playlist and category in its own row and in no row without it."""
    items = rows_of(videos).items()
    for facet, field in ((items.tags, "tags"), (items.playlists, "playlists"), (items.categories, "categories")):
        for word in {word for video in videos for word in getattr(video, field)}:
            found = facet.has(np.array([key_hash(word)], np.uint64))
            assert found.tolist() == [word in getattr(video, field) for video in videos]


def test_every_stored_array_has_a_name_of_its_own() -> None:
    """`arrays()` is everything but the vectors, each once: what a segment file holds."""
    names = [name for name, _ in some_rows(range(3)).arrays()]
    ragged = {f"{name}.{part}" for name in RAGGED for part in ("offsets", "values")}
    assert len(names) == len(set(names))
    assert set(names) == set(COLUMNS) - set(RECORD.names or ()) | ragged | {"records"}


def test_no_rows_is_a_table_too() -> None:
    """Empty columns keep their types and widths, so that they can be put together with others."""
    empty = Rows.empty(4)
    assert len(empty) == 0
    assert empty.vectors.shape == (0, 4)
    assert {name: column.dtype.str for name, column in empty.columns.items()} == {
        name: np.dtype(dtype).str for name, (dtype, _) in COLUMNS.items()
    }
