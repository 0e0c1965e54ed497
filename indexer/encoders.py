"""Which encoders there are.

open_encoder("all-MiniLM-L6-v2")                        the default: onnxruntime, no torch (`indexer.minilm`)
open_encoder("all-MiniLM-L6-v2:/models/minilm")         the same weights, from a folder
open_encoder("sentence-transformers:NAME_OR_FOLDER")    any other model; needs the extra of that name
open_encoder("python:PACKAGE.MODULE:NAME")              an encoder of your own: what NAME() returns
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from indexer.encoder import DEFAULT_MODEL, Encoder, ModelError

# The openers import inside: onnxruntime takes 0.3 s and torch 9 s, and commands that embed nothing should not wait.


def _open_minilm(folder: str, threads: int | None) -> Encoder:
    from indexer.minilm import MiniLM

    return MiniLM(Path(folder) if folder else None, threads=threads)


def _open_sentence_transformer(name_or_folder: str, threads: int | None) -> Encoder:
    from indexer.sentence_transformer import SentenceTransformerEncoder

    return SentenceTransformerEncoder(name_or_folder, threads=threads)


def _open_python(place: str, threads: int | None) -> Encoder:
    module, _, name = place.partition(":")
    try:
        make: Callable[[], Encoder] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"no encoder at python:{place}: {error}; expected python:PACKAGE.MODULE:NAME") from error
    return make()


# family -> opener of (what follows the colon or "", threads)
ENCODERS: Mapping[str, Callable[[str, int | None], Encoder]] = MappingProxyType(
    {
        DEFAULT_MODEL: _open_minilm,
        "sentence-transformers": _open_sentence_transformer,
        "python": _open_python,
    }
)


def open_encoder(name: str, *, threads: int | None = None) -> Encoder:
    """The encoder called `name`: a family of ENCODERS, optionally followed by `:` and a model name or folder.

    threads: CPU threads of one `encode` call; None means every core this process may use.
    Raises ModelError.
    """
    family, _, model = name.partition(":")
    opener = ENCODERS.get(family)
    if opener is None:
        raise ModelError(f"unknown encoder {name!r}; expected one of {', '.join(ENCODERS)}, optionally with ':MODEL'")
    return opener(model, threads)


def default_encoder(*, threads: int | None = None) -> Encoder:
    """`open_encoder` of the default model."""
    return open_encoder(DEFAULT_MODEL, threads=threads)
