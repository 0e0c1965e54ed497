"""How fast the default encoder is, and what it costs to have: texts/s by threads, time to import and open, memory.

Each row is measured in a process of its own, because imports, memory and threads are a process's. The last line
printed is one JSON object.

    python -m benchmarks.encode
    python -m benchmarks.encode --texts catalogue.jsonl    # one JSON object a line: title, description, tags
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

THREADS = (1, 2)
N_TEXTS = 300
SEED = 20240501

# Words of talks about software; what a text says does not change its cost, only how many tokens it has does.
WORDS = (
    "the a of to and in for with we how you this talk data python code test model service users video learning cloud "
    "deploying asynchronous databases visualisation scientific packaging performance notebooks community open-source "
    "will show from scratch, why; when it breaks: lessons learned! (and more) in 2019, using numpy's arrays"
)


def generated_texts(rng: random.Random, n: int) -> list[str]:
    """n texts of a title and a description, as long as those of a real catalogue: median 100 words, a few empty."""
    words = WORDS.split()
    lengths = [min(int(rng.lognormvariate(4.4, 0.9)), 800) for _ in range(n)]
    return [" ".join(rng.choices(words, k=8 + length)) for length in lengths]


def read_texts(path: Path, n: int) -> list[str]:
    """Up to n texts, evenly spread over a file of JSON lines with title, description and tags."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    parts = [(row["title"], row.get("description") or "", " ".join(row.get("tags") or [])) for row in rows]
    return ["\n".join(filter(None, part)) for part in parts[:: max(1, len(parts) // n)][:n]]


def measure(texts: list[str], threads: int) -> dict[str, Any]:
    """One row of the table, for this process."""
    started = time.perf_counter()
    import indexer.minilm  # noqa: F401 -- its import is what is measured

    imported = time.perf_counter()
    from indexer.encoders import default_encoder

    encoder = default_encoder(threads=threads)
    opened = time.perf_counter()
    encoder.encode(texts[:8])
    singles = []
    for text in texts[:20]:
        single = time.perf_counter()
        encoder.encode([text])
        singles.append(time.perf_counter() - single)
    batch = time.perf_counter()
    encoder.encode(texts)
    batch_s = time.perf_counter() - batch
    return {
        "threads": threads,
        "texts_per_s": round(len(texts) / batch_s, 1),
        "one_text_ms": round(sorted(singles)[len(singles) // 2] * 1e3, 1),
        "import_s": round(imported - started, 2),
        "open_s": round(opened - imported, 2),
        "max_rss_mb": round(max_rss_bytes() / 1e6),
    }


def max_rss_bytes() -> int:
    """The most memory this process has had, in bytes; Linux counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_new_process(texts_path: Path | None, threads: int) -> dict[str, Any]:
    """`measure` by another process of this program."""
    command = [sys.executable, "-m", "benchmarks.encode", "--threads", str(threads)]
    if texts_path is not None:
        command += ["--texts", str(texts_path)]
    row: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="JSON lines to encode instead of generated texts")
    parser.add_argument("--threads", type=int, help="measure only this, in this process, and print only its JSON")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        texts = read_texts(arguments.texts, N_TEXTS) if arguments.texts else None
        print(json.dumps(measure(texts or generated_texts(random.Random(SEED), N_TEXTS), arguments.threads)))
        return
    rows = [in_new_process(arguments.texts, threads) for threads in THREADS]
    print("  ".join(f"{column:>12}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>12}" for value in row.values()))
    print(json.dumps({"benchmark": "encode", "texts": N_TEXTS, "rows": rows}))


if __name__ == "__main__":
    main()
