"""What the CMS may send: limits, messages, and what is embedded of it."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retrieval.videos import (
    MAX_PROBLEMS,
    Rejected,
    VideoIn,
    embedded_text,
    parse_videos,
    text_hash,
    unit_vector,
    vector_hash,
)

DIM = 3
MINIMAL: dict[str, Any] = {"id": "v1", "title": "One", "media_url": "https://cdn.example.com/1.mp4"}
FULL: dict[str, Any] = MINIMAL | {
    "description": "A description\n\tin two lines",
    "transcript": "words",
    "tags": ["python", "日本語"],
    "categories": ["talks"],
    "creator": "Ada",
    "playlists": ["p1"],
    "language": "en",
    "countries": ["DE", "FR"],
    "ratings": [{"system": "FSK", "value": "12"}],
    "poster_url": "http://cdn.example.com:8080/1.jpg?size=2",
    "duration_s": 61,
    "published_at": "2026-11-22T12:00:00Z",
    "available_from": "2026-11-22T13:00:00+01:00",
    "available_until": "2026-11-23T00:00:00.500-05:00",
    "status": "draft",
    "vector": [1, 0.5, -2],
}

# Any JSON a decoder may give, and text no decoder should: lone surrogates, NUL, every control character.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=8,
)
NEARLY_VIDEO = st.fixed_dictionaries({}, optional={key: ANY_JSON | st.just(value) for key, value in FULL.items()})
ONE_FIELD_OFF = st.builds(lambda key, value: FULL | {key: value}, st.sampled_from(sorted(FULL)), ANY_JSON)


def rejected(**changes: object) -> Rejected:
    """The verdict on a full video with some fields changed, which must be a rejection."""
    parsed = parse_videos([FULL | changes], DIM)
    assert parsed.accepted == []
    return parsed.rejected[0]


def accepted(**changes: object) -> VideoIn:
    """A full video with some fields changed, which must be fine."""
    parsed = parse_videos([FULL | changes], DIM)
    assert parsed.rejected == []
    return parsed.accepted[0].video


def test_times_become_unix_seconds() -> None:
    """Offsets are honoured, fractions cut; keys are the JSON names, attributes say their unit."""
    video = accepted()
    assert video.published_s == video.available_from_s == 1_795_348_800
    assert video.available_until_s == 1_795_348_800 + 17 * 3600
    assert accepted(published_at=None).published_s is None


def test_only_three_fields_are_required() -> None:
    """An id, a title and something to play make a video."""
    assert parse_videos([MINIMAL], DIM).rejected == []
    for field in MINIMAL:
        without = {key: value for key, value in MINIMAL.items() if key != field}
        (verdict,) = parse_videos([without], DIM).rejected
        assert [(problem.pointer, problem.message) for problem in verdict.problems] == [(f"/{field}", "is required")]


@pytest.mark.parametrize(
    ("field", "longest"),
    [
        ("id", "x" * 200),
        ("title", "x" * 500),
        ("description", "x" * 20_000),
        ("transcript", "x" * 100_000),
        ("creator", "x" * 200),
        ("media_url", "https://h/" + "x" * 2038),
        ("poster_url", "https://h/" + "x" * 2038),
    ],
)
def test_text_is_accepted_to_its_limit_and_no_further(field: str, longest: str) -> None:
    """The last allowed length passes; one more, and 5 MB, name the field and the limit, and repeat nothing."""
    accepted(**{field: longest})
    for value in (longest + "x", longest + "x" * 5_000_000):
        (problem,) = rejected(**{field: value}).problems
        assert problem.pointer == f"/{field}"
        assert str(len(longest)) in problem.message and len(problem.message) < 120


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("tags", ["x" * 100] * 50),
        ("categories", ["x" * 100] * 4),
        ("playlists", ["x" * 200] * 50),
        ("ratings", [{"system": "x" * 50, "value": "x" * 50}] * 8),
    ],
)
def test_lists_are_accepted_to_their_limit_and_no_further(field: str, values: list[Any]) -> None:
    """The last allowed count passes; one more names the field and the count."""
    accepted(**{field: values})
    (problem,) = rejected(**{field: [*values, values[0]]}).problems
    assert problem.pointer == f"/{field}" and str(len(values)) in problem.message


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"id": ""}, "/id", "at least 1"),
        ({"id": " v1"}, "/id", "no space at its ends"),
        ({"id": "v\n1"}, "/id", "no line breaks"),
        ({"id": 7}, "/id", "valid string"),
        ({"title": "a\0b"}, "/title", "U+0000 at character 1"),
        ({"title": "\x85"}, "/title", "U+0085"),
        ({"title": "\ud83d"}, "/title", "lone surrogate"),
        ({"title": None}, "/title", "valid string"),
        ({"tags": ["ok", ""]}, "/tags/1", "at least 1"),
        ({"tags": "python"}, "/tags", "valid list"),
        ({"tags": ["ok", "\ud83d"]}, "/tags/1", "lone surrogate"),
        ({"language": "EN"}, "/language", "'EN' is not an ISO 639-1 code like en"),
        ({"language": "xx"}, "/language", "'xx' is not"),
        ({"countries": ["DE", "UK"]}, "/countries/1", "'UK' is not an ISO 3166-1 alpha-2 code like DE"),
        ({"ratings": [{"system": "FSK"}]}, "/ratings/0/value", "is required"),
        ({"ratings": [{"system": "FSK", "value": "1", "x": 1}]}, "/ratings/0/x", "is not a known field"),
        ({"ratings": ["12"]}, "/ratings/0", "must be an object"),
        ({"media_url": "ftp://host/1"}, "/media_url", "not an http or https URL"),
        ({"media_url": "https://"}, "/media_url", "not an http or https URL"),
        ({"media_url": "https://h:99999/"}, "/media_url", "not an http or https URL"),
        ({"media_url": "https://[h/"}, "/media_url", "not an http or https URL"),
        ({"media_url": "https://h/a b"}, "/media_url", "not an http or https URL"),
        ({"media_url": "javascript:alert(1)"}, "/media_url", "not an http or https URL"),
        ({"duration_s": -1}, "/duration_s", "greater than or equal to 0"),
        ({"duration_s": 86_401}, "/duration_s", "less than or equal to 86400"),
        ({"duration_s": True}, "/duration_s", "valid integer"),
        ({"duration_s": "61"}, "/duration_s", "valid integer"),
        ({"published_at": "2026-11-22T12:00:00"}, "/published_at", "a time like"),
        ({"published_at": "2026-02-30T12:00:00Z"}, "/published_at", "a time like"),
        ({"published_at": "1969-12-31T23:59:59Z"}, "/published_at", "from 1970 on"),
        ({"published_at": 1_795_348_800}, "/published_at", "a time like"),
        ({"available_until": "2026-11-22T12:00:00Z"}, "/available_until", "later than available_from"),
        ({"status": "removed"}, "/status", "'published' or 'draft'"),
        ({"vector": [0, 0.0, -0.0]}, "/vector", "no direction"),
        ({"vector": [1, float("nan"), 0]}, "/vector/1", "finite"),
        ({"vector": [1, float("inf"), 0]}, "/vector/1", "finite"),
        ({"vector": [1, 2]}, "/vector", "has 2 numbers; 3 are expected"),
        ({"vector": [1, 2, "3"]}, "/vector/2", "valid number"),
        ({"vector": []}, "/vector", "at least 1"),
        ({"published_s": 5}, "/published_s", "is not a known field"),
        ({"item": 5}, "/item", "is not a known field"),
        ({"a/b~c": 5}, "/a~1b~0c", "is not a known field"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(changes: dict[str, Any], pointer: str, message: str) -> None:
    """One wrong field gives one problem, at its place."""
    (problem,) = rejected(**changes).problems
    assert problem.pointer == pointer and message in problem.message


@pytest.mark.parametrize("value", [None, 7, "video", [], ["id"], {}, True, [[[]]]])
def test_what_is_no_video_is_rejected(value: object) -> None:
    """Any other JSON in the place of a video is refused, at its index."""
    (verdict,) = parse_videos([value], DIM).rejected
    assert verdict.index == 0 and verdict.id is None and verdict.problems


def test_a_poison_video_stops_nobody_else() -> None:
    """Each video is judged alone; order and indices survive."""
    parsed = parse_videos([MINIMAL, None, MINIMAL | {"id": "v3"}, MINIMAL | {"id": "v4", "title": "\ud800"}], DIM)
    assert [(one.index, one.video.id) for one in parsed.accepted] == [(0, "v1"), (2, "v3")]
    assert [(one.index, one.id) for one in parsed.rejected] == [(1, None), (3, "v4")]


def test_every_copy_of_an_id_is_rejected() -> None:
    """Which copy was meant cannot be known, even when one of them is broken anyway."""
    parsed = parse_videos([MINIMAL, MINIMAL | {"id": "v2"}, MINIMAL | {"title": 7}], DIM)
    assert [one.video.id for one in parsed.accepted] == ["v2"]
    assert [(one.index, one.problems[-1].message) for one in parsed.rejected] == [
        (0, "comes 2 times in this batch; once is allowed"),
        (2, "comes 2 times in this batch; once is allowed"),
    ]


@given(ANY_JSON | NEARLY_VIDEO | ONE_FIELD_OFF)
@example({"\ud800": 1})
@example(FULL | {"vector": [10**400, 1, 1]})
@example(FULL | {"duration_s": 10**400})
@example(FULL | {"ratings": [{"\ud800": "\ud800"}]})
def test_any_json_is_accepted_or_has_problems(value: object) -> None:
    """No input raises; a refusal has a few short problems that can be sent as JSON; what passes can be stored."""
    parsed = parse_videos([value], DIM)
    assert len(parsed.accepted) + len(parsed.rejected) == 1
    for verdict in parsed.rejected:
        assert 1 <= len(verdict.problems) <= MAX_PROBLEMS
        for problem in verdict.problems:
            assert len(problem.message) < 200
            json.dumps([problem.pointer, problem.message], ensure_ascii=False).encode()
    for one in parsed.accepted:
        one.video.model_dump_json().encode()
        text_hash(embedded_text(one.video))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
@example([1e308, 1e308])
@example([5e-324, 0.0])
def test_an_own_vector_is_stored_at_unit_length(values: list[float]) -> None:
    """Any finite direction survives, of any magnitude; no direction stays zero."""
    vector = unit_vector(values)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1.0 if any(values) else 0.0, abs=1e-6)


def test_what_is_embedded() -> None:
    """Title, tags, description and transcript, without empty lines; nothing else counts."""
    assert embedded_text(accepted()) == "One\npython, 日本語\nA description\n\tin two lines\nwords"
    assert embedded_text(parse_videos([MINIMAL], DIM).accepted[0].video) == "One"
    assert embedded_text(accepted(creator="Bob", duration_s=5)) == embedded_text(accepted())


def test_hashes_tell_texts_and_vectors_apart() -> None:
    """16 bytes each; a vector never has the hash of a text with its bytes."""
    vector = unit_vector([1, 0, 0])
    assert len(text_hash("a")) == len(vector_hash(vector)) == 16
    assert text_hash("a") != text_hash("b") and vector_hash(vector) != vector_hash(unit_vector([0, 1, 0]))
    assert vector_hash(vector) != text_hash(vector.tobytes().decode("latin-1"))


def test_the_schema_for_the_api_speaks_json() -> None:
    """The OpenAPI document shows the JSON names, and times as strings."""
    schema = VideoIn.model_json_schema(by_alias=True, mode="validation")
    assert set(schema["properties"]) == set(FULL)
    assert {"type": "string", "format": "date-time"} in schema["properties"]["published_at"]["anyOf"]
    assert schema["additionalProperties"] is False
