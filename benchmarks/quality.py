"""How good the feed is, on feedback of real users: the product and the plain methods, on the same questions.

    python benchmarks/quality.py --data /path/to/feedback            # a folder of data sets, or one data set
    python benchmarks/quality.py --data /path/to/feedback --json     # and one JSON object as the last line
    python benchmarks/quality.py --data /path/to/feedback --valid    # the parts to choose on, not those to test on

The product is replayed through its own code with its one default policy: events become journals and counters in the
order of time, `indexer learn` learns from the known part of each split, and `service.ranked` answers at the moment each
user is asked about (`benchmarks/quality_product.py`). Every item the user has not seen may be the answer. Nothing of
the part that is asked about is learned from, counted or calibrated on; counters stop at the moment of the question,
for every method. What the splits mean, and what was chosen on which part: docs/quality.md.

The row `cold`: the same for users about whom nothing is known (in a split where everybody has a past, for everybody
without it), to be compared with `cold recent-popular`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, not only as a module

from benchmarks import quality_plain as plain
from benchmarks import quality_product as ours
from benchmarks.quality_data import (
    SPLITS,
    BadFeedback,
    Feedback,
    Ints,
    Split,
    cut,
    earlier,
    folders,
    measured,
    read,
    split,
)
from indexer.encoder import Encoder
from indexer.encoders import open_encoder

Report = dict[str, dict[str, dict[str, dict[str, float]]]]
SHOWN: Final = ("recall20", "ndcg20", "coverage", "novelty", "diversity")
DEFAULT_ENCODER: Final = "all-MiniLM-L6-v2"


def evaluated(data: Feedback, text: ours.Float32, say: Callable[[str], None]) -> dict[str, dict[str, dict[str, float]]]:
    """Every method on every split: {split: {method: {metric: value}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in [name for name in SPLITS if name in data.splits]:
        asked, strangers = split(data, name), split(data, name, cold=True)
        say(f"\n{data.name} {name}: {len(asked.users)} users, {int(asked.known.sum())} events known")
        if not len(asked.users):
            continue
        found[name] = {}
        with tempfile.TemporaryDirectory() as folder:
            for method, lists, of in methods(asked, strangers, text, Path(folder), say):
                began = time.monotonic()
                found[name][method] = measured(of, lists(), text)
                say(_line(method, found[name][method], time.monotonic() - began))
    return found


def methods(
    asked: Split, strangers: Split, text: ours.Float32, folder: Path, say: Callable[[str], None] = lambda _line: None
) -> list[tuple[str, Callable[[], list[Ints]], Split]]:
    """(name, what makes its lists, what they answer) of every method; says what was learned for it."""
    days = plain.recent_days(asked)
    behaviour = ours.model(asked, text)
    found = orjson.dumps(behaviour.document).decode() if behaviour else "nothing, too few events"
    say(f"  recent-popular: {days} days, chosen one step earlier; learned: {found}")
    return [
        ("random", lambda: plain.random(asked), asked),
        ("popular", lambda: plain.popular(asked), asked),
        ("recent-popular", lambda: plain.recent(asked, days), asked),
        ("item-knn", lambda: plain.item_knn(asked), asked),
        ("als", lambda: plain.als(asked), asked),
        ("ease", lambda: plain.ease(asked), asked),
        ("text", lambda: ours.text_only(asked, text), asked),
        ("product", lambda: ours.product(asked, text, behaviour, folder), asked),
        ("cold recent-popular", lambda: plain.recent(strangers, days), strangers),
        ("cold", lambda: ours.product(strangers, text, behaviour, folder, cold=True), strangers),
    ]


def _line(method: str, metrics: dict[str, float], seconds: float) -> str:
    cells = [f"{metrics[name]:.4f}{_interval(metrics, name)}" for name in SHOWN]
    return f"  {method:20}" + "".join(f"{cell:18}" for cell in cells) + f"{seconds:5.1f} s"


def _interval(metrics: dict[str, float], name: str) -> str:
    return f" ±{metrics[f'{name}_ci']:.4f}" if f"{name}_ci" in metrics else ""


def run(
    root: Path, encoder: Encoder, say: Callable[[str], None], share: float | None = None, *, valid: bool = False
) -> Report:
    """Every data set in a folder; share: asked about earlier, see `cut`; valid: see `earlier`. Raises BadFeedback."""
    report: Report = {}
    found = [read(folder) for folder in folders(root)]
    if valid:
        found = [earlier(each) for each in found]
    elif share is not None:
        found = [cut(each, share) for each in found if "split_time" in each.splits]
    for data in found:
        began = time.monotonic()
        text = ours.encoded(encoder, data)
        say(f"\n{data.name}: {data.n_items} texts encoded in {time.monotonic() - began:.0f} s")
        say("  " + f"{'':20}" + "".join(f"{name:18}" for name in SHOWN))
        report[data.name] = evaluated(data, np.ascontiguousarray(text, np.float32), say)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set, or a folder of data sets")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--model", default=DEFAULT_ENCODER, help="encoder of the texts, as FEED_MODEL")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--valid", action="store_true", help="ask about the parts to choose on, test parts unseen")
    part.add_argument("--cut", type=float, help="ask at this share of split_time's training part, test part unseen")
    options = parser.parse_args()
    try:
        report = run(options.data, open_encoder(options.model), print, options.cut, valid=options.valid)
    except BadFeedback as error:
        raise SystemExit(str(error)) from error
    if options.json:
        print(orjson.dumps(report).decode())


if __name__ == "__main__":
    main()
