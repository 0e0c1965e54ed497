"""What was learned from behaviour: a small vector per item beside the text's, and what to make of it. One file.

    8 bytes length | JSON: number, document, layout | arrays, 64-byte aligned

A stored row joins both parts and stays a unit vector, so that index, snapshot and search work on it as on any other:

    [ text (unit)  |  behaviour (length up to 1)  |  what its length lacks ] / sqrt(2)

A query has the weights in itself and 0 in the last place: sqrt(1 - share) of a text direction and sqrt(share) of a
behaviour direction. So the share is a number of the policy that acts at the next request, and a video nobody watched
yet, whose behaviour is short, is near in text alone. Filling up vectors to one length so that inner products become
cosines is from Bachrach et al., RecSys 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from ranking.errors import PolicyError
from ranking.policy import resolve, with_learned
from retrieval.errors import SnapshotCorrupt
from retrieval.files import checksum

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

ALIGNMENT: Final = 64
HALF: Final = np.float32(0.5**0.5)
RARE: Final = np.array([0.5, 1e-1, 1e-2, 1e-3, 1e-4])
"""Shares of the (user, item) pairs: one of ten thousand is as near as it gets."""
VALUES: Final = np.linspace(0, 1, len(RARE), dtype=np.float32)
_ARRAYS: Final = {"near": "<f4", "items": "<u4", "factors": "<f4", "ridge": "<f4"}


@dataclass(frozen=True, eq=False)
class Behaviour:
    """A learned model, number `number` of its tenant.

    `document`: a policy layer, see `ranking.policy.with_learned`. near float32[RARE]: how near an item is to a user's
    interests in that share of all pairs. items uint32[n], ascending, and their factors float32[n, k], of length up
    to 1. ridge float32[t, k]: text -> behaviour, for everything else.
    """

    number: int
    document: Mapping[str, Mapping[str, float]]
    near: Float32
    items: npt.NDArray[np.uint32]
    factors: Float32
    ridge: Float32

    @property
    def text_dim(self) -> int:
        """Numbers of a row that are the text's."""
        return len(self.ridge)

    @property
    def dim(self) -> int:
        """Numbers of a joined row."""
        return self.text_dim + int(self.ridge.shape[1]) + 1

    def of(self, items: Array, text: Float32) -> Float32:
        """float32[m, k]: behaviour of items: what was learned, or what their text (unit float32[m, t]) lets expect."""
        found = shortened(text @ self.ridge)
        if len(self.items):
            at = np.searchsorted(self.items, items).clip(max=len(self.items) - 1)
            known = self.items[at] == items
            found[known] = self.factors[at[known]]
        return found

    def joined(self, items: Array, text: Float32) -> Float32:
        """float32[m, dim] unit rows of items with text float32[m, t]."""
        unit = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), np.float32(1e-9))
        behaviour = self.of(items, unit)
        lacking = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", behaviour, behaviour), 0))
        joined: Float32 = np.hstack([unit, behaviour, lacking[:, None]]).astype(np.float32) * HALF
        return joined

    def rarity(self, nearness: Float32) -> Float32:
        """float32[n] in [0, 1]: inner products with a user's interests on a scale that means the same for every model:
        0.5 is nearer than 99 % of all pairs, 1 nearer than 99.99 %."""
        return np.interp(nearness, self.near, VALUES).astype(np.float32)

    def dumps(self) -> bytes:
        """The file."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), dtype) for name, dtype in _ARRAYS.items()}
        shapes = {name: array.shape for name, array in arrays.items()}
        head = orjson.dumps({"number": self.number, "document": self.document, "shapes": shapes})
        content = bytearray(len(head).to_bytes(8, "little") + head)
        for array in arrays.values():
            content += b"\0" * (-len(content) % ALIGNMENT) + array.tobytes()
        return bytes(content)

    @staticmethod
    def loads(content: bytes) -> Behaviour:
        """What `dumps` wrote. Raises SnapshotCorrupt."""
        try:
            end = 8 + int.from_bytes(content[:8], "little")
            head = orjson.loads(content[8:end])
            arrays = {}
            for name, dtype in _ARRAYS.items():
                begin = end + -end % ALIGNMENT
                shape = tuple(head["shapes"][name])
                arrays[name] = np.frombuffer(content, dtype, int(np.prod(shape)), begin).reshape(shape)
                end = begin + arrays[name].nbytes
            with_learned(resolve(), head["document"])
            return Behaviour(int(head["number"]), head["document"], **arrays)
        except (ValueError, KeyError, TypeError, PolicyError) as error:
            raise SnapshotCorrupt(f"not a model as this program writes it: {error!r}") from error


def read(path: Path, expected_checksum: str) -> Behaviour:
    """The model in a file. Raises SnapshotCorrupt when it is missing, or differs from its checksum."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SnapshotCorrupt(f"{path.name}: {error}") from error
    if checksum(content) != expected_checksum:
        raise SnapshotCorrupt(f"{path.name}: its checksum differs from {expected_checksum}")
    return Behaviour.loads(content)


def query(interests: Float32, behaviour: Float32, share: float) -> Float32:
    """float32[m, dim] unit queries: text directions (unit float32[m, t]), each with the one behaviour direction
    float32[k] of the user; zeros if there is none."""
    length = float(np.linalg.norm(behaviour))
    share = share if length > 0 else 0.0
    made = np.zeros((len(interests), interests.shape[1] + len(behaviour) + 1), np.float32)
    made[:, : interests.shape[1]] = interests * np.float32((1 - share) ** 0.5)
    made[:, interests.shape[1] : -1] = behaviour * np.float32(share**0.5 / max(length, 1e-9))
    return made


def text_of(joined: Float32, text_dim: int) -> Float32:
    """float32[n, t] unit text parts of rows, joined or not."""
    return joined if joined.shape[1] == text_dim else joined[:, :text_dim] / HALF


def shortened(vectors: Float32) -> Float32:
    """The rows that are longer than 1 scaled to 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    short: Float32 = (vectors / np.maximum(lengths, 1)).astype(np.float32)
    return short
