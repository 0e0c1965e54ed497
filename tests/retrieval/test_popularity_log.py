"""The popularity of the last day: every version that was published is found again, exactly, and it stays small."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.counters import HOUR_S, WINDOWS, Windows, popularity, version_of
from retrieval.errors import NotFound
from retrieval.popularity_log import KEPT_S, PopularityLog
from tests.support.content import memory_folder

NOW_S = 1_700_000_000


def windows(sums: dict[int, int]) -> Windows:
    """The counts of some items."""
    made = np.zeros(len(sums), WINDOWS)
    for row, item in enumerate(sorted(sums)):
        made[row] = (item, np.full(WINDOWS["sums"].shape, sums[item]))
    return made


@given(
    steps=st.lists(
        st.tuples(st.dictionaries(st.integers(0, 12), st.integers(0, 3)), st.integers(0, 2 * HOUR_S), st.booleans()),
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_every_version_is_found_again(steps: list[tuple[dict[int, int], int, bool]]) -> None:
    """Whatever changes, comes and goes, over hours and over restarts of the writer."""
    with memory_folder() as root:
        log, now_s, published = PopularityLog(root), float(NOW_S), []
        for sums, later_s, restarted in steps:
            now_s += later_s
            log = PopularityLog(root) if restarted else log
            log.keep("acme", windows(sums), now_s=now_s)
            published.append((now_s, windows(sums)))
        for at_s, one in published:
            if at_s > now_s - KEPT_S + HOUR_S:
                found = PopularityLog(root).find("acme", version_of(one))
                assert np.array_equal(found, one)
                assert popularity(found).version == version_of(one)


def test_what_is_not_kept_is_not_found(tmp_path: Path) -> None:
    """Another tenant's, one that never was, one of the day before yesterday; nothing at all is always there."""
    log = PopularityLog(tmp_path)
    log.keep("acme", windows({1: 1}), now_s=NOW_S)
    log.keep("acme", windows({1: 2}), now_s=NOW_S + 2 * KEPT_S)
    log.keep("acme", windows({1: 3}), now_s=NOW_S + 4 * KEPT_S)
    assert len(log.find("acme", "")) == 0
    assert len(log.find("acme", version_of(windows({1: 3})))) == 1
    assert len(log.find("acme", version_of(windows({1: 2})))) == 1  # in use until the one after it came
    for tenant, version in (("acme", version_of(windows({1: 1}))), ("other", version_of(windows({1: 3})))):
        with pytest.raises(NotFound):
            log.find(tenant, version)


def test_a_record_that_was_not_written_to_its_end_hides_no_other(tmp_path: Path) -> None:
    """A writer killed in the middle of one: those before it are found, and those of the next writer."""
    log = PopularityLog(tmp_path)
    for count in range(1, 4):
        log.keep("acme", windows({1: count}), now_s=NOW_S)
    [path] = (tmp_path / "acme" / "popularity").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    PopularityLog(tmp_path).keep("acme", windows({1: 9}), now_s=NOW_S)
    for count in (1, 2, 9):
        assert len(log.find("acme", version_of(windows({1: count})))) == 1
    with pytest.raises(NotFound):
        log.find("acme", version_of(windows({1: 3})))


def test_what_a_program_with_other_windows_wrote_is_not_found(tmp_path: Path) -> None:
    """Also when its bytes would pass for rows of ours: other numbers would make another page than was served."""
    path = tmp_path / "acme" / "popularity" / f"{NOW_S // HOUR_S:08d}-00000000.log"
    path.parent.mkdir(parents=True)
    old = np.ones(17, np.dtype([("item", "<u4"), ("sums", "<f4", (3, 4))]))
    old["item"] = np.arange(17)
    assert old.nbytes % WINDOWS.itemsize == 0
    version, content = xxhash.xxh3_64_hexdigest(old.tobytes()), zlib.compress(old.tobytes())
    path.write_bytes(struct.pack("<16s?I", version.encode(), True, len(content)) + content)
    PopularityLog(tmp_path).keep("acme", windows({1: 1}), now_s=NOW_S)
    assert len(PopularityLog(tmp_path).find("acme", version_of(windows({1: 1})))) == 1
    with pytest.raises(NotFound):
        PopularityLog(tmp_path).find("acme", version)


def test_the_same_counts_are_written_once(tmp_path: Path) -> None:
    """Publishing what has not changed takes no room."""
    log = PopularityLog(tmp_path)
    for _ in range(50):
        log.keep("acme", windows({1: 1, 2: 5}), now_s=NOW_S)
    [path] = (tmp_path / "acme" / "popularity").iterdir()
    assert path.stat().st_size < 120
