"""Any model that sentence-transformers can load, behind the same protocol as the default encoder.

Needs the extra `sentence-transformers` (torch: 1.5 GB, 9 s to import), which is why nothing here is imported before an
encoder is opened.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encoder import EncodingError, ModelError, checked_rows, well_formed


class SentenceTransformerEncoder:
    """Sentence vectors of a model by its public name or from a folder, on a GPU if torch sees one."""

    def __init__(self, name_or_folder: str, *, threads: int | None = None) -> None:
        """threads: torch's CPU threads, which it keeps per process, not per model; None leaves them as they are.

        Raises ModelError if the extra is not installed or the model cannot be loaded.
        """
        if not name_or_folder:
            raise ModelError("sentence-transformers: name a model or a folder, as in 'sentence-transformers:NAME'")
        self._model = _load(name_or_folder, threads)
        dim = self._model.get_embedding_dimension()
        if not dim:
            raise ModelError(f"sentence-transformers: {name_or_folder!r} does not state the dimension of its vectors")
        self.dim = int(dim)
        # The same folder lies elsewhere on another machine: only its last name belongs to the identity.
        name = Path(name_or_folder).name if Path(name_or_folder).is_dir() else name_or_folder
        self.model_id = f"{name}@{_content_checksum(self._model)}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n, dim], unit rows; see `indexer.encoder.Encoder`."""
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        try:
            # `encode_document`: a model that tells queries from documents gets its document prompt.
            rows = self._model.encode_document(
                [well_formed(text) for text in texts], normalize_embeddings=True, show_progress_bar=False
            )
        except RuntimeError as error:  # torch's base for everything that goes wrong in a run, memory included
            raise EncodingError(range(len(texts)), str(error)) from error
        return checked_rows(np.asarray(rows, dtype=np.float32), len(texts), self.dim)


def _load(name_or_folder: str, threads: int | None) -> Any:
    """A `sentence_transformers.SentenceTransformer`."""
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ModelError(
            "sentence-transformers is not installed: pip install 'verticalfeed[sentence-transformers]'"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return SentenceTransformer(name_or_folder)
    except (OSError, ValueError, RuntimeError) as error:  # not found, not a model, weights that do not fit it
        raise ModelError(f"sentence-transformers: cannot load {name_or_folder!r}: {error}") from error


def _content_checksum(model: Any) -> str:
    """12 hex digits over everything that moves a vector: tensors, tokens, prompts and how the modules are set.

    A library version that describes the same settings otherwise gives another checksum: vectors are then computed
    again, which is the safe way to be wrong.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As float64, which holds the value of every kind of tensor; numpy has no bfloat16.
        digest.update(tensor.detach().cpu().double().contiguous().numpy())
    settings = [
        [[type(module).__name__, module.get_config_dict()] for module in model],
        model.max_seq_length,
        model.prompts,
        model.default_prompt_name,
        model.tokenizer.get_vocab(),
    ]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]
