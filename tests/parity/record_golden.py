"""Writes tests/indexer/golden_minilm.npz: vectors of all-MiniLM-L6-v2 as sentence-transformers computes them.

Run in the environment of the parity tests: python -m tests.parity.record_golden
"""

from pathlib import Path

import numpy as np

from tests.parity.test_sentence_transformers import load_reference
from tests.parity.texts import GOLDEN_TEXTS

GOLDEN = Path(__file__).parent.parent / "indexer" / "golden_minilm.npz"

if __name__ == "__main__":
    np.savez_compressed(GOLDEN, texts=np.array(GOLDEN_TEXTS), vectors=load_reference().encode(GOLDEN_TEXTS))
