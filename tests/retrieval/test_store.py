"""Publishing: CURRENT names a whole and verified generation, whoever publishes, dies, or sweeps meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import SnapshotCorrupt, StaleGeneration
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store
from tests.support.content import DIM, manifest_of, memory_folder, published, some_rows, written

KILLS = 120
LONG_AGO_S = 1_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "snapshots")


def opened(store: Store, tenant: str = "acme") -> Snapshot:
    manifest = store.current(tenant)
    assert manifest is not None
    return store.open(manifest)


def age(path: Path, at_s: int = LONG_AGO_S) -> None:
    os.utime(path, (at_s, at_s))


def aged(store: Store, tenant: str = "acme") -> None:
    """Make everything on disk old enough to be swept."""
    for folder in ("segments", "generations"):
        for path in (store.root / tenant / folder).iterdir():
            age(path)


def test_what_is_published_is_what_is_opened(store: Store) -> None:
    """Segments, dead items and every fact of the manifest come back."""
    manifest = published(store, "acme", 1, some_rows(range(20)), some_rows([3, 30]), dead=(3, 4), version=9)
    assert store.current("acme") == manifest
    snapshot = opened(store)
    assert (snapshot.tenant, snapshot.generation, snapshot.version, snapshot.model) == ("acme", 1, 9, "tiny")
    assert snapshot.n_items == 20  # 20 + 2, less the old state of 3 and the removed 4
    assert store.pointer("nobody") is None
    assert store.current("nobody") is None


def test_only_the_next_generation_can_be_published(store: Store) -> None:
    """An older one, the same one, or one from the future changes nothing."""
    published(store, "acme", 1)
    published(store, "acme", 2)
    before = store.pointer("acme")
    for generation in (0, 1, 2, 4):
        with pytest.raises(StaleGeneration):
            store.publish(manifest_of("acme", generation, version=99))
    assert store.pointer("acme") == before


def test_of_many_publishers_of_a_generation_one_wins(store: Store) -> None:
    """Twenty at once, ten times: each generation has one winner, and CURRENT is the winner's."""
    with ThreadPoolExecutor(20) as threads:
        for generation in range(1, 11):
            barrier = threading.Barrier(20)

            def publish(version: int, generation: int = generation, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    store.publish(manifest_of("acme", generation, version=version))
                except StaleGeneration:
                    return None
                return version

            winners = [version for version in threads.map(publish, range(20)) if version is not None]
            current = store.current("acme")
            assert current is not None
            assert winners == [current.version]


def test_a_manifest_whose_segment_is_gone_is_not_published(store: Store) -> None:
    """A folded base that somebody has deleted meanwhile must not become CURRENT."""
    published(store, "acme", 1, some_rows(range(9)))
    before = store.pointer("acme")
    with pytest.raises(SnapshotCorrupt, match="base-gone"):
        store.publish(manifest_of("acme", 2, [("base-gone", "00")]))
    assert store.pointer("acme") == before
    assert opened(store).n_items == 9


UNREADABLE = [b"", b"{", b"[]", b"null", b'{"generation":"x","checksum":""}', b'{"generation":1}', b"\xff"]


@pytest.mark.parametrize("content", UNREADABLE)
def test_an_unreadable_current_is_corrupt_and_does_not_stop_publishing(store: Store, content: bytes) -> None:
    """Readers are told; the next publish goes on counting where the generations on disk end."""
    published(store, "acme", 1, some_rows(range(5)))
    published(store, "acme", 2, some_rows(range(6)))
    (store.root / "acme" / "CURRENT").write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match="CURRENT"):
        store.current("acme")
    assert store.newest_generation("acme") == 2
    published(store, "acme", 3, some_rows(range(7)))
    assert opened(store).n_items == 7


def test_a_current_that_is_gone_is_damage_and_not_a_new_tenant(store: Store) -> None:
    """Nobody takes an emptied tenant for one that was never published."""
    for generation in (1, 2):
        published(store, "acme", generation, some_rows(range(5)))
    (store.root / "acme" / "CURRENT").unlink()
    with pytest.raises(SnapshotCorrupt, match="gone"):
        store.pointer("acme")
    assert store.newest_generation("acme") == 2


def _swap(store: Store, what: str) -> None:
    """Give tenant `acme` the other tenant's files."""
    ours, theirs = store.root / "acme", store.root / "other"
    if what == "everything":
        shutil.rmtree(ours)
        shutil.copytree(theirs, ours)
    elif what == "CURRENT and manifests":
        shutil.copyfile(theirs / "CURRENT", ours / "CURRENT")
        shutil.copytree(theirs / "generations", ours / "generations", dirs_exist_ok=True)
    elif what == "CURRENT":
        shutil.copyfile(theirs / "CURRENT", ours / "CURRENT")
    elif what == "manifest":
        shutil.copyfile(next((theirs / "generations").iterdir()), next((ours / "generations").iterdir()))
    else:
        segment = next((ours / "segments").iterdir())
        shutil.rmtree(segment)
        shutil.copytree(next((theirs / "segments").iterdir()), segment)


@pytest.mark.parametrize("what", ["everything", "CURRENT and manifests", "CURRENT", "manifest", "segment"])
def test_another_tenants_files_are_refused(store: Store, what: str) -> None:
    """However much of it is swapped, nobody is shown another tenant's videos."""
    for tenant in ("acme", "other"):
        published(store, tenant, 1, some_rows(range(5), creator=tenant))
    _swap(store, what)
    with pytest.raises(SnapshotCorrupt):
        opened(store)
    assert opened(store, "other").n_items == 5


def test_a_segment_of_another_dimension_is_refused(store: Store) -> None:
    """Vectors of two models never lie in one snapshot."""
    segments = (*written(store, "acme", some_rows(range(5))), *written(store, "acme", some_rows([9], dim=DIM * 2)))
    store.publish(manifest_of("acme", 1, segments))
    with pytest.raises(SnapshotCorrupt, match="dimension"):
        opened(store)


def test_a_flipped_bit_in_the_manifest_is_found(store: Store) -> None:
    """At every offset of it."""
    published(store, "acme", 1, some_rows(range(5)), dead=(1, 2))
    path = next((store.root / "acme" / "generations").iterdir())
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(SnapshotCorrupt):
            store.current("acme")
    path.write_bytes(whole)
    assert opened(store).n_items == 3


def test_a_manifest_of_another_format_is_refused(store: Store) -> None:
    """A newer program's generation is not guessed at."""
    manifest = manifest_of("acme", 1, format=2)
    with pytest.raises(SnapshotCorrupt, match="format 2"):
        Manifest.loads(manifest.dumps())


def test_the_generations_on_disk_are_listed_newest_first(store: Store) -> None:
    """Whoever starts while the newest is damaged finds the one before it."""
    for generation in range(1, 13):
        published(store, "acme", generation, some_rows(range(generation)))
    kept = store.kept("acme")
    assert [generation for generation, _ in kept] == list(range(12, 0, -1))
    assert kept[0] == store.pointer("acme")
    assert store.open(store.manifest("acme", kept[1])).n_items == 11
    assert store.kept("nobody") == []


# --- sweeping


@given(
    plan=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8),
    keep=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=30, deadline=None)
def test_a_sweep_deletes_only_what_is_old_and_named_by_no_kept_generation(
    plan: list[tuple[bool, bool]], keep: int, data: st.DataObject
) -> None:
    """Whatever was published, kept beside or left over: the newest `keep` still open, and nothing young is gone."""
    with memory_folder() as root:
        _check_sweep(Store(root), plan, keep, data)


def _check_sweep(store: Store, plan: list[tuple[bool, bool]], keep: int, data: st.DataObject) -> None:
    folder = store.root / "acme"
    segments: tuple[tuple[str, str], ...] = ()
    for generation, (new_base, orphan) in enumerate(plan, 1):
        if new_base or not segments:
            segments = written(store, "acme", some_rows(range(generation)))
        if orphan:
            written(store, "acme", some_rows([99]))
        store.publish(manifest_of("acme", generation, segments))
    everything = [*(folder / "segments").iterdir(), *(folder / "generations").iterdir()]
    young = {path for path in everything if data.draw(st.booleans())}
    for path in everything:
        age(path, LONG_AGO_S + 1000 if path in young else LONG_AGO_S)
    gone = store.sweep("acme", now_s=LONG_AGO_S + 1060, keep=keep, grace_s=120)
    assert all(path.exists() for path in young)
    assert gone == sum(not path.exists() for path in everything)
    for pointer in store.kept("acme"):
        store.open(store.manifest("acme", pointer))
    assert len(store.kept("acme")) >= min(keep, len(plan))
    named = {name for pointer in store.kept("acme") for name, _ in store.manifest("acme", pointer).segments}
    assert {path.name for path in (folder / "segments").iterdir()} == named | {p.name for p in young if p.is_dir()}


def test_current_is_never_swept(store: Store) -> None:
    """Manifests of publishers that died just before their publish are newer, and do not push CURRENT out."""
    published(store, "acme", 1, some_rows(range(5)))
    for version in range(5):
        manifest = manifest_of("acme", 2, version=version)
        store._manifest_path("acme", (2, f"{version:032x}")).write_bytes(manifest.dumps())
    aged(store)
    store.sweep("acme", now_s=LONG_AGO_S * 2, keep=3)
    assert opened(store).n_items == 5


def test_nothing_is_swept_while_a_manifest_cannot_be_read(store: Store) -> None:
    """It may name any of the segments."""
    for generation in (1, 2, 3):
        published(store, "acme", generation, some_rows(range(5)))
    store._manifest_path("acme", store.kept("acme")[1]).write_bytes(b"damaged")
    aged(store)
    assert store.sweep("acme", now_s=LONG_AGO_S * 2, keep=2) == 0
    assert len(list((store.root / "acme" / "segments").iterdir())) == 3


def test_what_was_current_lately_stays(store: Store) -> None:
    """A generation is needed for a day after it was replaced, not after it was made."""
    for generation in range(1, 7):
        published(store, "acme", generation, some_rows(range(generation)))
    for number, pointer in enumerate(reversed(store.kept("acme"))):
        age(store._manifest_path("acme", pointer), LONG_AGO_S + 1000 * number)
    for path in (store.root / "acme" / "segments").iterdir():
        age(path, LONG_AGO_S)
    store.sweep("acme", now_s=LONG_AGO_S + 6000, keep=1, keep_s=3500)
    assert [generation for generation, _ in store.kept("acme")] == [6, 5, 4, 3]  # 3 was replaced at +3000, 2 at +2000
    for pointer in store.kept("acme"):
        store.open(store.manifest("acme", pointer))
    assert len(list((store.root / "acme" / "segments").iterdir())) == 4


def test_what_is_kept_for_a_day_has_a_limit(store: Store) -> None:
    """Beyond it the oldest go, a segment that several generations share counts once, and the newest ones are free."""
    base = written(store, "acme", some_rows(range(50)))
    for generation in range(1, 8):
        store.publish(manifest_of("acme", generation, (*base, *written(store, "acme", some_rows([60]), kind="fresh"))))
    aged(store)
    fresh = [path for path in (store.root / "acme" / "segments").iterdir() if path.name.startswith("fresh")]
    one_bytes = sum(file.stat().st_size for file in fresh[0].iterdir())
    store.sweep("acme", now_s=LONG_AGO_S + 1000, keep=2, keep_s=1e6, keep_bytes=3.5 * one_bytes)
    assert [generation for generation, _ in store.kept("acme")] == [7, 6, 5, 4, 3]
    assert opened(store).n_items == 51


def test_a_reader_is_never_disturbed_by_publishing_and_sweeping(store: Store) -> None:
    """With the newest three kept, whoever follows CURRENT opens it, while another publishes as fast as it can."""
    published(store, "acme", 1, some_rows(range(1)))
    done = threading.Event()

    def publish() -> None:
        for generation in range(2, 60):
            published(store, "acme", generation, some_rows(range(generation)))
            aged(store)
            store.sweep("acme", now_s=LONG_AGO_S * 2, keep=30)
        done.set()

    with ThreadPoolExecutor(1) as thread:
        publishing = thread.submit(publish)
        seen: list[int] = []
        while not done.is_set() and not publishing.done():
            pointer = store.pointer("acme")
            assert pointer is not None
            snapshot = store.open(store.manifest("acme", pointer))
            assert snapshot.n_items == snapshot.generation == pointer[0]
            seen.append(pointer[0])
        publishing.result()
    assert seen == sorted(seen)
    assert len(store.kept("acme")) == 30


# --- dying

# Forks a publisher again and again, kills it at a moment drawn at random, and looks at what is on disk.
KILLED = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from retrieval.store import Store
from tests.support.content import published, some_rows
store, rng, last = Store(Path(sys.argv[1])), np.random.default_rng(3), 1
began = time.monotonic()
published(store, "acme", 1, some_rows(range(2)))
one_s = time.monotonic() - began
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        generation = store.newest_generation("acme")
        while True:
            generation += 1
            published(store, "acme", generation, some_rows(range(generation % 40 + 1)))
            store.sweep("acme", now_s=time.time() + 1e6, keep=2)
    time.sleep(rng.uniform(0, 6 * one_s))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    manifest = store.current("acme")
    assert manifest.generation >= last, f"from {last} back to {manifest.generation}"
    assert store.open(manifest).n_items == manifest.generation % 40 + 1
    last = manifest.generation
published(store, "acme", last + 1, some_rows(range(3)))
published(store, "acme", last + 2, some_rows(range(3)))
store.sweep("acme", now_s=time.time() + 1e6, keep=2)
print(last, len(list((store.root / "acme" / "segments").iterdir())))
"""


def test_a_publisher_killed_at_any_moment_leaves_a_whole_generation(store: Store) -> None:
    """SIGKILL at 120 random moments: CURRENT always opens and never goes back, and the debris is swept."""
    command = [sys.executable, "-c", KILLED, str(store.root), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    last, segments = map(int, done.stdout.split())
    assert last > KILLS / 10, "it must have been killed while publishing, not before"
    assert segments == 2


FULL = """
import resource, signal, sys
from pathlib import Path
from retrieval.store import Store
from tests.support.content import manifest_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    store.publish(manifest_of("acme", 2, dead=tuple(range(1000))))
except OSError:
    sys.exit(0)
sys.exit("nothing was raised")
"""


@pytest.mark.parametrize("limit", [0, 20, 100, 3000])
def test_a_full_disk_keeps_the_old_generation(store: Store, limit: int) -> None:
    """OSError, CURRENT as before, and the next publish succeeds when there is room."""
    published(store, "acme", 1, some_rows(range(5)))
    command = [sys.executable, "-c", FULL, str(store.root), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert opened(store).n_items == 5
    assert not list((store.root / "acme").rglob("*.tmp"))
    published(store, "acme", 2, some_rows(range(6)))
    assert opened(store).n_items == 6


def test_forgetting_a_tenant_removes_its_files(store: Store) -> None:
    """And no other's."""
    for tenant in ("acme", "other"):
        published(store, tenant, 1, some_rows(range(5)))
    store.forget("acme")
    assert not (store.root / "acme").exists()
    assert store.pointer("acme") is None
    assert opened(store, "other").n_items == 5


def test_a_manifest_is_what_it_was_after_a_round_trip() -> None:
    """Every field, as its own type."""
    facts: dict[str, Any] = orjson.loads(manifest_of("acme", 3, [("base-1", "ab")], dead=(1, 2)).dumps())
    assert Manifest.loads(orjson.dumps(facts)) == manifest_of("acme", 3, [("base-1", "ab")], dead=(1, 2))
    assert np.array(facts["dead"]).tolist() == [1, 2]
