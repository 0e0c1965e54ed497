"""What one method is better by than another, on the same questions: a paired bootstrap over users.

    python benchmarks/quality_paired.py --data DIR --methods product recent-popular
    python benchmarks/quality_paired.py --data DIR --methods product recent-popular --cut .4 .5 .6 .7 .8 .9 1

Methods are named as in the table of `benchmarks/quality.py`, of which these are the same lists. Several moments
(`--cut`) are also put together; a user who is asked about at more than one of them is drawn as one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, not only as a module

from benchmarks import quality_product as ours
from benchmarks.quality import DEFAULT_ENCODER, methods
from benchmarks.quality_data import SPLITS, BadFeedback, Feedback, Ints, cut, folders, gains, read, split
from indexer.encoder import Encoder
from indexer.encoders import open_encoder

Gains = npt.NDArray[np.float64]
MEASURES: Final = ("Recall@20", "NDCG@20")
DRAWS: Final = 2000
LEVELS: Final = (0.025, 0.975)


def paired(data: Feedback, name: str, text: ours.Float32, wanted: tuple[str, str]) -> tuple[Ints, Gains, Gains] | None:
    """(users int64[u], gains float64[u, 2] of the first method, and of the second) on a split; None if it asks about
    nobody. Raises BadFeedback if there is no such method, or they are asked about different users."""
    asked, strangers = split(data, name), split(data, name, cold=True)
    if not len(asked.users):
        return None
    with tempfile.TemporaryDirectory() as folder:
        known = {method: (lists, of) for method, lists, of in methods(asked, strangers, text, Path(folder))}
        for method in wanted:
            if method not in known:
                raise BadFeedback(f"--methods: {method} is none of {', '.join(known)}")
        (_, one), (_, other) = (known[method] for method in wanted)
        if not np.array_equal(one.users, other.users):
            raise BadFeedback(f"--methods: {' and '.join(wanted)} are asked about different users of {name}")
        first, second = (gains(of, lists()) for lists, of in (known[method] for method in wanted))
    return one.users, first, second


def interval(users: Ints, difference: Gains) -> Gains:
    """float64[2, 2]: LEVELS of the mean of difference float64[n, 2] over redrawn users int64[n], per measure."""
    each, number = np.unique(users, return_inverse=True)
    sums = np.stack([np.bincount(number, column) for column in (*difference.T, np.ones(len(users)))])
    rng = np.random.default_rng(0)
    drawn = np.array([sums[:, rng.integers(0, len(each), len(each))].sum(1) for _ in range(DRAWS)])
    found: Gains = np.quantile(drawn[:, :2] / drawn[:, 2:], LEVELS, axis=0)
    return found


def run(
    root: Path, encoder: Encoder, say: Callable[[str], None], wanted: tuple[str, str], cuts: Sequence[float]
) -> None:
    """Say the difference on every split, or at every cut and at all of them. Raises BadFeedback."""
    for data in [read(folder) for folder in folders(root)]:
        text = np.ascontiguousarray(ours.encoded(encoder, data), np.float32)
        moments = [(f"cut {share:g}", cut(data, share), "split_time") for share in cuts if "split_time" in data.splits]
        found = []
        for title, one, name in moments or [(name, data, name) for name in SPLITS if name in data.splits and not cuts]:
            answer = paired(one, name, text, wanted)
            if answer is not None:
                found.append(answer)
                say(_line(f"{data.name} {title}", wanted, *answer))
        if len(found) > 1 and moments:
            users, first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
            say(_line(f"{data.name} all cuts", wanted, users, first, second))


def _line(title: str, wanted: tuple[str, str], users: Ints, first: Gains, second: Gains) -> str:
    low, high = interval(users, first - second)
    cells = [
        f"{measure} {first[:, at].mean():.4f} - {second[:, at].mean():.4f} = "
        f"{(first - second)[:, at].mean():+.4f} ({low[at]:+.4f} to {high[at]:+.4f})"
        for at, measure in enumerate(MEASURES)
    ]
    return f"{title}, {len(users)} users, {' less '.join(wanted)}: " + "; ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set, or a folder of data sets")
    parser.add_argument("--methods", nargs=2, required=True, help="two rows of the table of quality.py")
    parser.add_argument("--cut", type=float, nargs="+", default=[], help="shares of split_time's training part")
    parser.add_argument("--model", default=DEFAULT_ENCODER, help="encoder of the texts, as FEED_MODEL")
    options = parser.parse_args()
    try:
        run(options.data, open_encoder(options.model), print, tuple(options.methods), options.cut)
    except BadFeedback as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
