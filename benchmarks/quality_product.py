"""The product in `benchmarks/quality.py`: its own indexer, snapshot, counters, journals and `ranked`, in time order.

A rating becomes the events of somebody who watched it: an impression and a completion, and a like if it is one. Films
have no creator, and what they are about (genres, tags) is text: the categories of a CMS are few and edited, and a cap
on them would be a cap on genres. All films were published long ago: no publication time tells what is rated when.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.quality_data import PAGE, Feedback, Ints, Split, best
from indexer.encoder import Encoder
from indexer.generations import Contents
from indexer.held_out import counted, journals, until
from indexer.learn import Log, enough
from indexer.learning import learned
from ranking.context import Context
from ranking.policy import resolve
from retrieval.behaviour import Behaviour
from retrieval.counters import HOUR_S, Counts, Popularity, popularity, windows_of
from retrieval.journal import EMPTY, Journal, Signal
from retrieval.rows import Rows
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store
from retrieval.taste import remember, taste
from retrieval.tenants import Tenant
from retrieval.videos import OPEN_END_S, Video, embedded_text
from retrieval.view import View
from service.ranked import ranked

Float32 = npt.NDArray[np.float32]
BATCH: Final = 64
TENANT: Final = "films"
MADE_OF: Final = ((Signal.IMPRESSION, None), (Signal.COMPLETE, None), (Signal.LIKE, "like"))
"""Signals of a rating, and the column that must say so."""


def videos(data: Feedback) -> list[Video]:
    """The catalogue; item numbers are the data's."""
    return [
        Video(
            item=number, id=f"film-{number}", title=title, description="", transcript="", tags=tags, categories=(),
            creator=None, playlists=(), language=None, countries=(), ratings=(), media_url="https://films.invalid/",
            poster_url=None, duration_s=0, published_s=0, available_from_s=0, available_until_s=OPEN_END_S,
            status="published", vector=None, text_hash=b"", version=1, quarantine=None, created_s=0, updated_s=0,
        )
        for number, (title, tags) in enumerate(zip(data.titles, data.tags, strict=True))
    ]  # fmt: skip


def encoded(encoder: Encoder, data: Feedback) -> Float32:
    """float32[items, d] unit vectors of the texts."""
    texts = [embedded_text(video) for video in videos(data)]
    order = np.argsort([len(text) for text in texts], kind="stable")  # of like length together: less padding
    made = np.concatenate(
        [encoder.encode([texts[i] for i in order[start : start + BATCH]]) for start in range(0, len(texts), BATCH)]
    )
    vectors = np.empty_like(made)
    vectors[order] = made
    return vectors


def log_of(data: Feedback, rows: npt.NDArray[np.bool_]) -> Log:
    """The events of some interactions."""
    at = np.flatnonzero(rows)
    each = [at if column is None else at[getattr(data, column)[at]] for _, column in MADE_OF]
    events = np.concatenate(each)
    signals = np.repeat([int(signal) for signal, _ in MADE_OF], [len(one) for one in each])
    order = np.lexsort((signals, events))
    events = events[order]
    return Log(
        data.user[events],
        data.item[events].astype(np.uint32),
        data.at_s[events],
        signals[order].astype(np.uint8),
        np.ones(len(events), np.float32),
    )


def model(asked: Split, text: Float32) -> Behaviour | None:
    """What `indexer learn` learns of the known part; None where that is too little."""
    log = log_of(asked.data, asked.known)
    return learned(log, np.arange(asked.data.n_items, dtype=np.uint32), text, number=1) if enough(log) else None


def product(
    asked: Split, text: Float32, behaviour: Behaviour | None, folder: Path, *, cold: bool = False
) -> list[Ints]:
    """The first page of each user, served at the moment they are asked about."""
    view = _view(asked.data, text, behaviour, folder)
    log = log_of(asked.data, asked.known)
    mine = {} if cold else journals(log)
    lists = []
    for at, (user, popular) in enumerate(zip(asked.users.tolist(), _popularity(log, asked.asked_s), strict=True)):
        view = View.of(view.tenant, view.given or view.policy, "1", view.snapshot, popular, view)
        now_s = int(asked.asked_s[at])
        journal = mine.get(user, EMPTY)
        memory = remember(_before(journal, now_s), view.policy.taste, now_s=now_s)
        context = Context(now_s=now_s, seed=at)
        without = asked.seen[at].astype(np.uint32)  # journals forget after 90 days, the question does not
        lists.append(ranked(view, memory, context, PAGE, without=without).page.astype(np.int64))
    return lists


def text_only(asked: Split, text: Float32) -> list[Ints]:
    """By the product's taste, from texts alone: the cosine to the nearest interest."""
    policy, mine = resolve().taste, journals(log_of(asked.data, asked.known))
    interests = []
    for user, now_s in zip(asked.users.tolist(), asked.asked_s.tolist(), strict=True):
        memory = remember(_before(mine.get(user, EMPTY), now_s), policy, now_s=now_s)
        interests.append(taste(memory, text[memory.items], policy).interests)
    lists = []
    for start in range(0, len(interests), BATCH):
        some = interests[start : start + BATCH]
        cosine = np.concatenate(some) @ text.T  # at once: one by one it would take most of the time of this method
        ends = np.cumsum([len(each) for each in some])
        for own, seen in zip(np.split(cosine, ends[:-1]), asked.seen[start : start + BATCH], strict=True):
            lists.append(best(own.max(axis=0, initial=-1), seen))
    return lists


def _before(journal: Journal, now_s: int) -> Journal:
    return journal[journal["at_s"] <= now_s]


def _view(data: Feedback, text: Float32, behaviour: Behaviour | None, folder: Path) -> View:
    """A published snapshot, opened as a worker does."""
    store, items = Store(folder), np.arange(data.n_items, dtype=np.uint32)
    vectors = text if behaviour is None else behaviour.joined(items, text)
    facts = Manifest(TENANT, store.newest_generation(TENANT) + 1, 1, "text", vectors.shape[1], 0)
    if behaviour is not None:
        facts = Manifest(**{**vars(facts), "learned": store.models.write(TENANT, behaviour)})
    contents = Contents(None, Rows.from_videos(videos(data), vectors), np.zeros(0, np.uint32))
    manifest = contents.write(store, facts)
    store.publish(manifest)
    snapshot: Snapshot = store.open(manifest)
    tenant = Tenant(TENANT, TENANT, "active", b"p" * 32, 1, 0)
    return View.of(tenant, resolve(), "1", snapshot, Popularity.nothing())


def _popularity(log: Log, asked_s: Ints) -> Iterator[Popularity]:
    """What the counters say at each of the ascending times, of the events before it."""
    hours = (asked_s // HOUR_S).tolist()
    for now_s, (hour, before) in zip(asked_s.tolist(), until(counted(log), hours), strict=True):
        yield popularity(windows_of(_running(log, now_s), now_hour=hour, before=before))


def _running(log: Log, now_s: int) -> dict[int, Counts]:
    """The counts of the running hour so far."""
    begin, end = np.searchsorted(log.at_s, [now_s // HOUR_S * HOUR_S, now_s])
    return counted(log.take(np.arange(begin, end))) if end > begin else {}
