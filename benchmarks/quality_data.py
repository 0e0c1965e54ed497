"""Feedback on disk -> splits, and what a list is worth: for `benchmarks/quality.py`.

A folder holds `interactions.parquet` (user_id, item_id, ts, signal, like, dislike, split_*) and `items.parquet`
(item_id, title, genres, tags). Users, items and times are as in the file; rows are put in the order of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import scipy.sparse as sparse

Ints = npt.NDArray[np.int64]
PAGE: Final = 20
SPLITS: Final = ("split_loo", "split_time", "split_user80")
MIN_EVENTS: Final = 5
"""Users with fewer are left out, but of split_time, where users who have a past at all are evaluated."""


@dataclass(frozen=True)
class Feedback:
    """e events by e interactions: user, item (numbers from 0), at_s int64[e]; signal float32[e] in [0, 1], like and
    dislike bool[e]; `splits` name -> "train", "valid" or "test" of each. texts: a sentence per item."""

    name: str
    user: Ints
    item: Ints
    at_s: Ints
    signal: npt.NDArray[np.float32]
    like: npt.NDArray[np.bool_]
    dislike: npt.NDArray[np.bool_]
    splits: Mapping[str, npt.NDArray[np.str_]]
    titles: Sequence[str]
    tags: Sequence[tuple[str, ...]]

    @property
    def n_users(self) -> int:
        return int(self.user.max()) + 1

    @property
    def n_items(self) -> int:
        return len(self.titles)


@dataclass(frozen=True)
class Split:
    """What is known and what is asked. `known` bool[e]: events that may be learned from and counted.

    `users` int64[u] who are asked about, by time; `answers`: what each took to afterwards; `asked_s` int64[u]: when
    the first of it was; `seen`: what each knew.
    """

    name: str
    data: Feedback
    known: npt.NDArray[np.bool_]
    users: Ints
    answers: Sequence[Ints]
    asked_s: Ints
    seen: Sequence[Ints]

    def matrix(self) -> sparse.csr_matrix:
        """float32[users, items]: 1 where a user is known to have taken to an item."""
        ones = np.ones(int(self.known.sum()), np.float32)
        where = self.data.user[self.known], self.data.item[self.known]
        matrix = sparse.csr_matrix((ones, where), (self.data.n_users, self.data.n_items))
        matrix.data[:] = 1
        return matrix


def folders(root: Path) -> list[Path]:
    """`root` itself or the folders in it that hold feedback."""
    found = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return [path for path in found if (path / "interactions.parquet").exists() and (path / "items.parquet").exists()]


def read(folder: Path) -> Feedback:
    """The feedback in a folder."""
    events: dict[str, Any] = pq.read_table(folder / "interactions.parquet").to_pydict()
    items: dict[str, Any] = pq.read_table(folder / "items.parquet").to_pydict()
    number = {item: i for i, item in enumerate(items["item_id"])}
    _, user = np.unique(np.array(events["user_id"], str), return_inverse=True)
    order = np.argsort(np.array(events["ts"], np.int64), kind="stable")
    return Feedback(
        name=folder.name,
        user=user.astype(np.int64)[order],
        item=np.array([number[item] for item in events["item_id"]], np.int64)[order],
        at_s=np.array(events["ts"], np.int64)[order],
        signal=np.array(events["signal"], np.float32)[order],
        like=np.array(events["like"], bool)[order],
        dislike=np.array(events["dislike"], bool)[order],
        splits={name: np.array(events[name], str)[order] for name in SPLITS if name in events},
        titles=[title or item for title, item in zip(items["title"], items["item_id"], strict=True)],
        tags=[
            tuple(dict.fromkeys([*(genres or ()), *(tags or ())]))
            for genres, tags in zip(items["genres"], items["tags"], strict=True)
        ],
    )


def split(data: Feedback, name: str, *, cold: bool = False, part: str = "test") -> Split:
    """A split of the data: `part` is asked about, what comes before it in the split is known.

    cold: asked about are users of whom nothing is known; in a split where everybody has a past, everybody, to be
    answered as if they had none, though not with what they have seen.
    """
    of = data.splits[name]
    known = (of == "train") | ((of == "valid") & (part == "test"))
    asked = np.flatnonzero(of == part)
    events = np.bincount(data.user, minlength=data.n_users)
    past = np.bincount(data.user[known], minlength=data.n_users)
    enough = past > 0 if name == "split_time" else (past > 0) & (events >= MIN_EVENTS)
    if cold:
        strangers = (past == 0) & (np.bincount(data.user[asked], minlength=data.n_users) > 0)
        enough = strangers if strangers.any() else enough
    asked = asked[enough[data.user[asked]]]
    users, first = np.unique(data.user[asked], return_index=True)
    users = users[np.argsort(first, kind="stable")]
    answers, seen = _lists(data, asked), _lists(data, np.flatnonzero(known))
    nothing = np.zeros(0, np.int64)
    return Split(
        name,
        data,
        known,
        users,
        [answers[user] for user in users.tolist()],
        data.at_s[np.sort(asked[first])],
        [seen.get(user, nothing) for user in users.tolist()],
    )


def best(score: npt.NDArray[Any], seen: Ints) -> Ints:
    """The PAGE items of the highest score float[items] that are not in `seen`."""
    score = score.astype(np.float64)
    score[seen] = -np.inf
    top = np.argpartition(-score, PAGE)[:PAGE]
    return top[np.argsort(-score[top], kind="stable")]


def measured(asked: Split, lists: Sequence[Ints], text: npt.NDArray[np.float32]) -> dict[str, float]:
    """What the lists are worth: means over users, and the half-width of 95 % intervals of the first two."""
    recall, ndcg = np.array(
        [_gain(page, answers) for page, answers in zip(lists, asked.answers, strict=True)] or [(0.0, 0.0)]
    ).T
    share = (1 + np.bincount(asked.data.item[asked.known], minlength=asked.data.n_items)) / (1 + int(asked.known.sum()))
    shown = np.concatenate([*lists, np.zeros(0, np.int64)])
    alike = [
        float((text[page].sum(axis=0) ** 2).sum() - len(page)) / max(len(page) * (len(page) - 1), 1) for page in lists
    ]
    return {
        "recall20": float(recall.mean()),
        "ndcg20": float(ndcg.mean()),
        "recall20_ci": _half_width(recall),
        "ndcg20_ci": _half_width(ndcg),
        "coverage": len(np.unique(shown)) / asked.data.n_items,
        "novelty": float(-np.log2(share[shown]).mean()) if len(shown) else 0.0,
        "novelty_ci": _half_width(np.array([-np.log2(share[page]).mean() for page in lists if len(page)])),
        "diversity": 1 - float(np.mean(alike)) if alike else 0.0,
        "diversity_ci": _half_width(np.array(alike)),
        "users": len(lists),
    }


def _gain(page: Ints, answers: Ints) -> tuple[float, float]:
    """(recall, NDCG) of a list."""
    hits = np.flatnonzero(np.isin(page, answers))
    ideal = (1 / np.log2(np.arange(2, 2 + min(len(answers), PAGE)))).sum()
    return len(hits) / len(answers), float((1 / np.log2(hits + 2)).sum() / ideal)


def _half_width(values: npt.NDArray[np.float64]) -> float:
    return float(1.96 * values.std() / np.sqrt(len(values))) if len(values) else 0.0


def _lists(data: Feedback, rows: Ints) -> dict[int, Ints]:
    """Items of each user at these events, by time."""
    order = rows[np.argsort(data.user[rows], kind="stable")]
    users, first = np.unique(data.user[order], return_index=True)
    return dict(zip(users.tolist(), np.split(data.item[order], first[1:]), strict=True))
