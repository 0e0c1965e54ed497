"""Data sets made from one: the same form, other proportions. Does what was chosen on two sets hold on others?

    python benchmarks/quality_parts.py --data DIR --out FOLDER
    python benchmarks/quality.py --data FOLDER

Of each data set in DIR, as far as its columns allow: the items of 2000 and later, and a sixth of the users, by lot.
Splits stay what they are.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path
from typing import Final

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file, not only as a module

from benchmarks.quality_data import EVENTS, ITEMS, BadFeedback, folders

LATER: Final = 2000
ONE_IN: Final = 6


def parts(events: pl.DataFrame, items: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """Name -> (events, items) of each part. Every event is of an item that is there."""
    drawn = [user for user in events["user_id"].unique() if zlib.crc32(str(user).encode()) % ONE_IN == 0]
    found = {"sixth": (events.filter(pl.col("user_id").is_in(drawn)), items)}
    if "year" in items.columns:
        later = items.filter(pl.col("year") >= LATER)
        found["later"] = (events.join(later.select("item_id"), on="item_id", how="semi"), later)
    return found


def run(root: Path, out: Path) -> list[Path]:
    """Write the parts of every data set as folders in `out`; which they are. Raises BadFeedback."""
    written = []
    for folder in folders(root):
        for name, (events, items) in parts(pl.read_parquet(folder / EVENTS), pl.read_parquet(folder / ITEMS)).items():
            path = out / f"{folder.name}-{name}"
            path.mkdir(parents=True, exist_ok=True)
            events.write_parquet(path / EVENTS)
            items.write_parquet(path / ITEMS)
            written.append(path)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set, or a folder of data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the new folders go")
    options = parser.parse_args()
    try:
        print(*run(options.data, options.out), sep="\n")
    except BadFeedback as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
