"""Batches of an Arrow stream, waited for without the interpreter's lock.

arro3 (0.9) holds the lock while it waits for a batch. A query on object storage that does not answer would then stop
every thread of a worker, feeds included. Here the stream is asked through the Arrow C stream interface
(https://arrow.apache.org/docs/format/CStreamInterface.html), and ctypes lets go of the lock for a call. pyarrow would
do the same for another 130 MB.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p, py_object, pythonapi
from typing import Any, Final, Protocol

from arro3.core import RecordBatch


class Stream(Protocol):
    """What offers its batches through the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


class _Schema(Structure):
    _fields_ = (
        ("format", c_void_p), ("name", c_void_p), ("metadata", c_void_p), ("flags", c_int64), ("n_children", c_int64),
        ("children", c_void_p), ("dictionary", c_void_p), ("release", c_void_p), ("private_data", c_void_p),
    )  # fmt: skip


class _Array(Structure):
    _fields_ = (
        ("length", c_int64), ("null_count", c_int64), ("offset", c_int64), ("n_buffers", c_int64),
        ("n_children", c_int64), ("buffers", c_void_p), ("children", c_void_p), ("dictionary", c_void_p),
        ("release", c_void_p), ("private_data", c_void_p),
    )  # fmt: skip


class _Stream(Structure):
    pass


_GET_SCHEMA: Final = ctypes.CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Schema))
_GET_NEXT: Final = ctypes.CFUNCTYPE(c_int, POINTER(_Stream), POINTER(_Array))
_GET_LAST_ERROR: Final = ctypes.CFUNCTYPE(c_char_p, POINTER(_Stream))
_Stream._fields_ = (
    ("get_schema", _GET_SCHEMA), ("get_next", _GET_NEXT), ("get_last_error", _GET_LAST_ERROR), ("release", c_void_p),
    ("private_data", c_void_p),
)  # fmt: skip

_pointer: Final[Any] = pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = c_void_p, (py_object, c_char_p)
_capsule: Final[Any] = pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = py_object, (c_void_p, c_char_p, c_void_p)


def batches(stream: Stream) -> Iterator[RecordBatch]:
    """The batches as they come. Raises OSError with what the stream says when it cannot go on."""
    owner = stream.__arrow_c_stream__()  # releases the stream when it is collected
    source = _Stream.from_address(_pointer(owner, b"arrow_array_stream"))
    while True:
        array, schema = _Array(), _Schema()
        _checked(source, source.get_next(byref(source), byref(array)))
        if not array.release:  # a released array is the end
            return
        _checked(source, source.get_schema(byref(source), byref(schema)))
        # Whoever is given the capsules moves the contents out of our structures, and releases them.
        yield RecordBatch.from_arrow_pycapsule(
            _capsule(ctypes.addressof(schema), b"arrow_schema", None),
            _capsule(ctypes.addressof(array), b"arrow_array", None),
        )


def _checked(source: _Stream, code: int) -> None:
    if code:
        said = source.get_last_error(byref(source))
        raise OSError(code, (said or b"").decode(errors="replace"))
