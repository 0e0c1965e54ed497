"""The default encoder against sentence-transformers itself, and the encoder of the extra.

Needs the extra `sentence-transformers`, so it runs in an environment of its own: make parity.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from indexer.encoder import Encoder, ModelError
from indexer.encoders import default_encoder, open_encoder
from indexer.minilm import WEIGHTS_FILE, packaged_folder
from tests.parity.texts import GOLDEN_TEXTS, TEXTS

TOLERANCE = 1e-5
GOLDEN = Path(__file__).parent.parent / "indexer" / "golden_minilm.npz"


def load_reference() -> Any:
    """A `SentenceTransformer` of the very weights that the default encoder reads."""
    return SentenceTransformer(str(packaged_folder()), device="cpu")


@pytest.fixture(scope="module")
def reference_rows() -> NDArray[np.float32]:
    rows: NDArray[np.float32] = load_reference().encode(TEXTS)
    return rows


@pytest.fixture(scope="module")
def extra() -> Encoder:
    return open_encoder(f"sentence-transformers:{packaged_folder()}")


def test_the_default_encoder_gives_the_reference_vectors(reference_rows: NDArray[np.float32]) -> None:
    """Without torch, in other batches, every text has the vector that sentence-transformers gives it."""
    difference = np.abs(default_encoder().encode(TEXTS) - reference_rows).max(axis=1)
    assert dict(zip(TEXTS, difference, strict=True)) == {text: pytest.approx(0, abs=TOLERANCE) for text in TEXTS}


def test_the_extra_gives_the_reference_vectors(extra: Encoder, reference_rows: NDArray[np.float32]) -> None:
    """Behind the protocol, sentence-transformers still gives its own vectors."""
    np.testing.assert_allclose(extra.encode(TEXTS), reference_rows, atol=TOLERANCE)


def test_the_golden_vectors_are_still_the_reference(reference_rows: NDArray[np.float32]) -> None:
    """What the ordinary suite compares with is what sentence-transformers gives today."""
    with np.load(GOLDEN) as golden:
        assert golden["texts"].tolist() == GOLDEN_TEXTS
        rows = [TEXTS.index(text) for text in GOLDEN_TEXTS]
        np.testing.assert_allclose(golden["vectors"], reference_rows[rows], atol=TOLERANCE)


def test_the_extra_keeps_the_protocol(extra: Encoder) -> None:
    """Shape, dtype, no texts, and a lone surrogate are as the protocol says."""
    assert extra.dim == 384
    rows = extra.encode(["one", "two \ud800", "two ?"])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[1], rows[2], atol=TOLERANCE)
    assert extra.encode([]).shape == (0, 384)


def test_other_weights_are_another_model(extra: Encoder, tmp_path: Path) -> None:
    """The same files elsewhere are the same model; one changed number makes another."""
    copy = tmp_path / packaged_folder().name
    shutil.copytree(packaged_folder(), copy)
    assert open_encoder(f"sentence-transformers:{copy}").model_id == extra.model_id
    tensors = load_file(copy / WEIGHTS_FILE)
    tensors["encoder.layer.3.output.dense.bias"][7] += 1e-3
    save_file(tensors, copy / WEIGHTS_FILE, metadata={"format": "pt"})
    assert open_encoder(f"sentence-transformers:{copy}").model_id != extra.model_id


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """A folder that holds no model is named in the error."""
    with pytest.raises(ModelError, match=str(tmp_path)):
        open_encoder(f"sentence-transformers:{tmp_path}")
