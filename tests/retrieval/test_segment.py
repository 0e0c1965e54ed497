"""Segments on disk: what was written is what is read, and not one damaged byte reaches faiss."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings

from retrieval import index
from retrieval.errors import SnapshotCorrupt
from retrieval.files import checksum
from retrieval.rows import Rows
from retrieval.segment import Segment
from retrieval.videos import Video
from tests.retrieval.test_rows import same
from tests.support.content import DIM, drawn_videos, memory_folder, some_rows, unit_vectors

FILES = ("rows.bin", "vectors.faiss", "segment.json")
FLIPS = 200


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A segment of 300 videos, and the checksum it was written with."""
    folder = tmp_path_factory.mktemp("segment") / "base-1"
    return folder, Segment.write(folder, some_rows(range(300)))


@pytest.fixture
def faiss_opens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each file that is handed to faiss; the real thing still opens it."""
    opened: list[int] = []
    read = index.read

    def noted(content: mmap) -> index.Index:
        opened.append(len(content))
        return read(content)

    monkeypatch.setattr(index, "read", noted)
    return opened


@given(drawn_videos())
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_what_is_read(videos: list[Video]) -> None:
    """A segment holds its rows, ordered by item number, and finds each by its own vector."""
    rows = Rows.from_videos(videos, unit_vectors(len(videos)))
    with memory_folder() as folder:
        path = folder / "base-1"
        segment = Segment.open(path, Segment.write(path, rows))
        ordered = rows.take(np.argsort(rows.columns["item"]))
        assert same(segment.rows, ordered)
        found, _ = segment.index.search(segment.rows.vectors.astype(np.float32), 1)
        assert found[:, 0].tolist() == list(range(len(videos)))
        assert [segment.card(row) for row in range(len(videos))] == [
            ordered.ragged["cards"].values[a:b].tobytes()
            for a, b in zip(ordered.ragged["cards"].offsets, ordered.ragged["cards"].offsets[1:], strict=False)
        ]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_before_faiss_opens_anything(
    name: str, pristine: tuple[Path, str], tmp_path: Path, faiss_opens: list[int]
) -> None:
    """One bit, at 200 random offsets of each file: always SnapshotCorrupt, never a crash, never an opened index."""
    folder = tmp_path / "base-1"
    shutil.copytree(pristine[0], folder)
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(7)
    for at, bit in zip(rng.integers(0, len(whole), FLIPS), rng.integers(0, 8, FLIPS), strict=True):
        with (folder / name).open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 1 << bit]))
        with pytest.raises(SnapshotCorrupt, match=name):
            Segment.open(folder, pristine[1])
        with (folder / name).open("r+b") as file:
            file.seek(at)
            file.write(whole[at : at + 1])
    assert not faiss_opens
    assert len(Segment.open(folder, pristine[1])) == 300, "and whole again, it opens"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_refused(name: str, keep: float, pristine: tuple[Path, str], tmp_path: Path) -> None:
    """Cut to nothing, to half, or by its last bytes."""
    folder = tmp_path / "base-1"
    shutil.copytree(pristine[0], folder)
    os.truncate(folder / name, int(keep * (folder / name).stat().st_size))
    with pytest.raises(SnapshotCorrupt, match=name):
        Segment.open(folder, pristine[1])


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: (path.unlink(), path.mkdir())])
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(
    name: str, damage: Callable[[Path], object], pristine: tuple[Path, str], tmp_path: Path
) -> None:
    """Gone, or a folder in its place."""
    folder = tmp_path / "base-1"
    shutil.copytree(pristine[0], folder)
    damage(folder / name)
    with pytest.raises(SnapshotCorrupt, match=name):
        Segment.open(folder, pristine[1])


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_segment_is_refused(name: str, pristine: tuple[Path, str], tmp_path: Path) -> None:
    """A whole and valid file, only not the one that belongs here: two tenants' files swapped."""
    folder, other = tmp_path / "base-1", tmp_path / "base-2"
    shutil.copytree(pristine[0], folder)
    Segment.write(other, some_rows(range(300), seed=1, creator="somebody else"))
    shutil.copyfile(other / name, folder / name)
    with pytest.raises(SnapshotCorrupt, match=name):
        Segment.open(folder, pristine[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about | {"dim": DIM + 1},
        lambda about: about | {"rows": 299},
        lambda about: {name: value for name, value in about.items() if name != "layout"},
        lambda about: about | {"layout": {k: v for k, v in about["layout"].items() if k != "version"}},
        lambda about: about | {"layout": about["layout"] | {"version": ["<i8", [10**9], 0]}},
        lambda about: about | {"record": about["record"].replace("min_age", "max_age")},
        lambda about: [],
    ],
    ids=[
        "dimension",
        "rows",
        "no layout",
        "a column missing",
        "a column beyond the file",
        "other records",
        "no object",
    ],
)
def test_what_another_version_wrote_is_refused(
    change: Callable[[dict[str, object]], object], pristine: tuple[Path, str], tmp_path: Path
) -> None:
    """Every checksum is right, but it is not a segment as this program knows them."""
    folder = tmp_path / "base-1"
    shutil.copytree(pristine[0], folder)
    about = orjson.dumps(change(orjson.loads((folder / "segment.json").read_bytes())))
    (folder / "segment.json").write_bytes(about)
    with pytest.raises(SnapshotCorrupt, match="base-1"):
        Segment.open(folder, checksum(about))


def test_no_rows_is_a_segment_too(tmp_path: Path) -> None:
    """A base whose every item was taken down folds to nothing, and nothing can be opened and searched."""
    segment = Segment.open(tmp_path / "base-1", Segment.write(tmp_path / "base-1", Rows.empty(DIM)))
    rows, cosine = segment.index.search(unit_vectors(2), 3)
    assert len(segment) == 0
    assert (rows == -1).all()
    assert np.isneginf(cosine).all()


def test_an_opened_segment_outlives_its_files(tmp_path: Path) -> None:
    """A request that began before the sweep ends as it began."""
    checksum_of = Segment.write(tmp_path / "base-1", some_rows(range(50)))
    segment = Segment.open(tmp_path / "base-1", checksum_of)
    shutil.rmtree(tmp_path / "base-1")
    assert segment.index.search(unit_vectors(50)[7:8], 1)[0][0, 0] == 7
    assert segment.card(7).startswith(b'{"id":"video-7"')


# Writes one segment under a limit on the size of files, which is how a process meets a full disk; then without it.
ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from retrieval.segment import Segment
from tests.support.content import some_rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, rows = Path(sys.argv[1]), some_rows(range(100), dim=384)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        Segment.write(folder / "base-1", rows)
    except OSError as error:
        problem = error
    else:
        sys.exit(f"nothing was raised at {limit} bytes")
    if list(folder.iterdir()):
        sys.exit(f"{list(folder.iterdir())} left behind at {limit} bytes")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
Segment.write(folder / "base-1", rows)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """Full at the first byte, within a file, or at the very last byte of the index: OSError, and no folder."""
    expected = Segment.write(tmp_path / "elsewhere" / "base-1", some_rows(range(100), dim=384))
    sizes = {name: (tmp_path / "elsewhere" / "base-1" / name).stat().st_size for name in FILES}
    assert max(sizes, key=sizes.__getitem__) == "vectors.faiss", "or its last byte would never be reached"
    limits = [
        0,
        1000,
        sizes["rows.bin"] - 1,
        sizes["vectors.faiss"] // 2,
        *(sizes["vectors.faiss"] - n for n in (4096, 1)),
    ]
    (tmp_path / "full").mkdir()
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path / "full"), *map(str, limits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(Segment.open(tmp_path / "full" / "base-1", expected)) == 100, "with room again, the same bytes as ever"


def test_writing_twice_gives_the_same_bytes(pristine: tuple[Path, str], tmp_path: Path) -> None:
    """The same rows make the same segment: an index is reproducible."""
    assert Segment.write(tmp_path / "other", some_rows(range(300))) == pristine[1]
