"""Feedback on disk -> splits, and what a list is worth: for `benchmarks/quality.py`.

A folder holds `interactions.parquet` (user_id, item_id, ts in unix seconds, and at least one of SPLITS; signal, like
and dislike may be missing) and `items.parquet` (item_id; title, genres and tags may be missing). Rows are put in the
order of time. An item that is in no row of `items.parquet` has its id for a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sparse

Ints = npt.NDArray[np.int64]
PAGE: Final = 20
EVENTS: Final = "interactions.parquet"
ITEMS: Final = "items.parquet"
DESCRIBED: Final = ("title", "genres", "tags")
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


class BadFeedback(Exception):
    """A folder that cannot be read: which file, which column, what is wanted."""


def folders(root: Path) -> list[Path]:
    """`root` itself or the folders in it that hold feedback, or a part of it. Raises BadFeedback if there is none."""
    found = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    found = [path for path in found if any((path / file).exists() for file in (EVENTS, ITEMS))]
    if not found:
        raise BadFeedback(f"{root}: neither it nor a folder in it holds {EVENTS} and {ITEMS}")
    return found


def read(folder: Path) -> Feedback:
    """The feedback in a folder. Raises BadFeedback."""
    events = _columns(folder / EVENTS, ("user_id", "item_id", "ts"))
    items = _columns(folder / ITEMS, ("item_id",))
    splits = [name for name in SPLITS if name in events]
    if not splits:
        raise BadFeedback(f"{folder / EVENTS}: none of the columns {', '.join(SPLITS)}: at least one is wanted")
    n = len(events["ts"])
    if not n:
        raise BadFeedback(f"{folder / EVENTS}: holds no event: at least one is wanted")
    known = dict(zip(items["item_id"], zip(*(_or_none(items, name) for name in DESCRIBED), strict=True), strict=True))
    described = {item: known.get(item, (None, None, None)) for item in dict.fromkeys([*known, *events["item_id"]])}
    number = {item: i for i, item in enumerate(described)}
    _, user = np.unique(np.array(events["user_id"], str), return_inverse=True)
    at_s = _seconds(events["ts"], folder / EVENTS)
    order = np.argsort(at_s, kind="stable")
    signal = np.array(events.get("signal", [1.0] * n), np.float32)
    return Feedback(
        name=folder.name,
        user=user.astype(np.int64)[order],
        item=np.array([number[item] for item in events["item_id"]], np.int64)[order],
        at_s=at_s[order],
        signal=signal[order],
        like=np.array(events.get("like", [False] * n), bool)[order],
        dislike=np.array(events.get("dislike", [False] * n), bool)[order],
        splits={name: np.array(events[name], str)[order] for name in splits},
        titles=[str(title or item) for item, (title, _, _) in described.items()],
        tags=[tuple(dict.fromkeys([*(genres or ()), *(tags or ())])) for _, genres, tags in described.values()],
    )


def _columns(file: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    try:
        table = pq.read_table(file)
    except FileNotFoundError as error:
        raise BadFeedback(f"{file}: is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise BadFeedback(f"{file}: is no Parquet file: {error}") from error
    for name in wanted:
        if name not in table.column_names:
            raise BadFeedback(f"{file}: column {name} is missing, there are {', '.join(table.column_names)}")
        if table.column(name).null_count:
            raise BadFeedback(f"{file}: column {name} has {table.column(name).null_count} empty rows, none is allowed")
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def _or_none(columns: Mapping[str, list[Any]], name: str) -> list[Any]:
    return columns.get(name, [None] * len(columns["item_id"]))


def _seconds(values: list[Any], file: Path) -> Ints:
    try:
        return np.array(values, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadFeedback(f"{file}: column ts: {error}: whole unix seconds are wanted") from error


def cut(data: Feedback, share: float) -> Feedback:
    """The same feedback asked about earlier: split_time alone, its test part a tenth of what was its training part,
    after this share of it; at 1 that is in what was its valid part. So that something can be chosen for users who come
    later without a look at what is tested on."""
    of = data.splits["split_time"]
    (blind,) = np.nonzero(of != "test")
    ends = np.array([share * 8 / 9, share, share + 0.1]) * np.count_nonzero(of == "train")
    ends = ends.astype(np.int64).clip(max=len(blind))
    of = np.full(len(data.item), "later", "<U5")
    for part, begin, end in zip(("train", "valid", "test"), (0, *ends[:2].tolist()), ends.tolist(), strict=True):
        of[blind[begin:end]] = part
    return replace(data, splits={"split_time": of})


def earlier(data: Feedback) -> Feedback:
    """The same feedback, every split asked about one step earlier: its valid part or, where it has none, the last fifth
    of what is known of each user. The test part is neither known nor asked about, so this is what to choose on."""
    splits = {}
    for name, of in data.splits.items():
        blind = np.where(of == "test", "later", of)
        has_valid = bool((of == "valid").any())
        blind[of == "valid" if has_valid else _last_fifth(data, np.flatnonzero(of == "train"))] = "test"
        splits[name] = blind
    return replace(data, splits=splits)


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


def _last_fifth(data: Feedback, rows: Ints) -> Ints:
    """Of these events, in the order of time, the last fifth of each user's."""
    by_user = rows[np.argsort(data.user[rows], kind="stable")]
    _, begin, count = np.unique(data.user[by_user], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(begin, count)
    return by_user[place >= 0.8 * np.repeat(count, count)]


def best(score: npt.NDArray[Any], seen: Ints) -> Ints:
    """The PAGE items (fewer if there are no more) of the highest score float[items] that are not in `seen`."""
    score = score.astype(np.float64)
    score[seen] = -np.inf
    size = min(PAGE, len(score))
    top = np.argpartition(-score, size - 1)[:size]
    top = top[np.argsort(-score[top], kind="stable")]
    return top[score[top] > -np.inf]


def measured(asked: Split, lists: Sequence[Ints], text: npt.NDArray[np.float32]) -> dict[str, float]:
    """What the lists are worth: means over users, and the half-width of 95 % intervals of the first two."""
    recall, ndcg = gains(asked, lists).T if lists else np.zeros((2, 1))
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


def gains(asked: Split, lists: Sequence[Ints]) -> npt.NDArray[np.float64]:
    """float64[u, 2]: recall and NDCG of each user's list."""
    each = [_gain(page, answers) for page, answers in zip(lists, asked.answers, strict=True)]
    return np.array(each, np.float64).reshape(-1, 2)


def _gain(page: Ints, answers: Ints) -> tuple[float, float]:
    """(recall, NDCG) of a list."""
    hits = np.flatnonzero(np.isin(page, answers))
    ideal = (1 / np.log2(np.arange(2, 2 + min(len(answers), PAGE)))).sum()
    return len(hits) / len(answers), float((1 / np.log2(hits + 2)).sum() / ideal)


def _half_width(values: npt.NDArray[np.float64]) -> float:
    return float(1.96 * values.std() / np.sqrt(len(values))) if len(values) else 0.0


def _lists(data: Feedback, rows: Ints) -> dict[int, Ints]:
    """Items of each user at these events, by time."""
    if not len(rows):
        return {}
    order = rows[np.argsort(data.user[rows], kind="stable")]
    users, first = np.unique(data.user[order], return_index=True)
    return dict(zip(users.tolist(), np.split(data.item[order], first[1:]), strict=True))
