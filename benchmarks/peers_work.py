"""The work that every peer has to do, and its exact answer (see benchmarks/peers.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.world import World
from benchmarks.world_users import counts_of, journals, users
from ranking.features import DEFAULT_WEIGHTS
from ranking.policy import Layer, resolve
from retrieval.counters import popularity, windows_of
from retrieval.store import Store
from retrieval.taste import Memory, remember, taste
from retrieval.tenants import Tenant
from retrieval.view import WINDOWS, View

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

K: Final = 200
TOP: Final = 20
MAX_AGE: Final = 16
DAY_S: Final = 86_400
WEIGHTS: Final = {"similarity": 1.0, "popularity": 0.5, "freshness": 0.4}
HALF_LIFE_S: Final = 30 * DAY_S
POLICY: Final[dict[str, Any]] = {
    "weights": {name: WEIGHTS.get(name, 0.0) for name in DEFAULT_WEIGHTS},
    "half_lives": {"freshness_s": HALF_LIFE_S},
    "sources": {"near": K, "popular": 0, "fresh": 0, "explore": 0},
    "explore": {"share": 0.0},
    "taste": {"interests": 1},
    "limits": {"max_age": MAX_AGE},
}
"""What makes our ranking do the same work; the diversity that it ships with stays."""


@dataclass(frozen=True)
class Shelf:
    """The videos of one tenant, n rows: vectors float32[n, d] unit rows, the columns that rank them, and our view."""

    vectors: Float32
    min_age: npt.NDArray[np.uint8]
    popularity: Float32
    freshness: Float32
    view: View

    def best(self, rows: Int64, cosine: Float32) -> Int64:
        """The TOP rows by weighted score, best first."""
        similarity, popular, fresh = WEIGHTS.values()
        score = similarity * cosine + popular * self.popularity[rows] + fresh * self.freshness[rows]
        best: Int64 = rows[np.argsort(-score, kind="stable")[:TOP]]
        return best


@dataclass(frozen=True)
class Question:
    """One user of one tenant: `query` float32[d], unit, is the taste that `memory` makes."""

    tenant: str
    query: Float32
    memory: Memory
    now_s: int


def shelves(world: World) -> dict[str, Shelf]:
    """Every tenant's videos, out of the snapshots of a world."""
    store, now_s, policy = Store(world.folder / "snapshots"), int(time.time()), resolve([Layer("tenant", POLICY)])
    made = {}
    for number, tenant in enumerate(world.tenants):
        manifest = store.current(tenant.id)
        if manifest is None:
            raise ValueError(f"{tenant.id} has no snapshot")
        snapshot = store.open(manifest)
        rows = snapshot.segments[0].rows
        counted = popularity(windows_of({now_s // 3600: counts_of(tenant.items, number)}, now_hour=now_s // 3600))
        vectors = rows.vectors.astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        owner = Tenant(tenant.id, tenant.id, "active", bytes.fromhex(tenant.pepper), 1, now_s)
        made[tenant.id] = Shelf(
            vectors,
            rows.columns["min_age"],
            counted.of(np.arange(len(vectors), dtype=np.uint32))[WINDOWS.index("popularity")],
            np.exp2(-(now_s - rows.columns["published_s"]) / HALF_LIFE_S).astype(np.float32),
            View.of(owner, policy, "1", snapshot, counted),
        )
    return made


def questions(world: World, shelves_: dict[str, Shelf], most: int) -> list[Question]:
    """The first users that have a taste."""
    now_s = int(time.time())
    of = [user for user in users(world) if user.is_known][:most]
    made = []
    for user, journal in zip(of, journals(world, of, now_s), strict=True):
        shelf = shelves_[user.tenant.id]
        settings = shelf.view.policy.taste
        memory = remember(journal, settings, now_s=now_s)
        interests = taste(memory, shelf.vectors[memory.items], settings).interests
        made.append(Question(user.tenant.id, interests[0], memory, now_s))
    return made


class Peer:
    """One way to do the work, over the shelves of all tenants; `edition` says what it is. Its files are in `folder`."""

    edition: str

    def __init__(self, shelves: Mapping[str, Shelf], folder: Path) -> None:
        self.shelves = shelves
        self.folder = folder

    def near(self, question: Question) -> tuple[Int64, Float32]:
        """(rows int64[<= K] nearest to the query among the allowed ones, their cosine float32)."""
        raise NotImplementedError

    def top(self, question: Question) -> Int64:
        """int64[<= TOP]: rows, best first. This is what is measured."""
        return self.shelves[question.tenant].best(*self.near(question))

    def allowed(self, question: Question) -> Bool:
        """bool[n]: the rows that this peer may answer; the old enough ones."""
        return self.shelves[question.tenant].min_age <= MAX_AGE

    def close(self) -> None:
        """End what was started."""


def recall(peer: Peer, question: Question) -> float:
    """Share of the K nearest of the rows allowed to a peer that it finds."""
    allowed = peer.allowed(question)
    cosine = np.where(allowed, peer.shelves[question.tenant].vectors @ question.query, -np.inf)
    exact = np.argsort(-cosine, kind="stable")[: min(K, int(allowed.sum()))]
    return float(np.isin(exact, peer.near(question)[0]).mean())
