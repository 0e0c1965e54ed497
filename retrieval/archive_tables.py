"""The two tables of the archive: their columns, and rows as Arrow has them.

events   date tenant user_key event_id signal item at_s received_s value request_id position
serves   date, then the fields of `retrieval.serves.Serve`; items is a list of {item, position, reason, score,
         propensity}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from arro3.core import Array, DataType, Field, RecordBatch, Schema, list_array, struct_array

from retrieval.journal import DAY_S

EVENTS: Final = "events"
SERVES: Final = "serves"

_TEXT, _WHOLE, _LONG, _REAL = DataType.string(), DataType.int32(), DataType.int64(), DataType.float32()

ITEM_FIELDS: Final = (
    Field("item", _WHOLE),
    Field("position", _WHOLE),
    Field("reason", _TEXT),
    Field("score", _REAL),
    Field("propensity", _REAL),
)
_ITEMS: Final = DataType.list(Field("item", DataType.struct(list(ITEM_FIELDS)), nullable=True))

COLUMNS: Final[Mapping[str, tuple[Field, ...]]] = {
    EVENTS: (
        Field("date", DataType.date32()),
        Field("tenant", _TEXT),
        Field("user_key", _TEXT),
        Field("event_id", _TEXT),
        Field("signal", _WHOLE),
        Field("item", _WHOLE),
        Field("at_s", _LONG),
        Field("received_s", _LONG),
        Field("value", _REAL),
        Field("request_id", _TEXT),
        Field("position", _WHOLE),
    ),
    SERVES: (
        Field("date", DataType.date32()),
        Field("tenant", _TEXT),
        Field("user_key", _TEXT),
        Field("request_id", _TEXT),
        Field("at_s", _LONG),
        Field("mode", _TEXT),
        Field("surface", _TEXT),
        Field("generation", _LONG),
        Field("policy_version", _TEXT),
        Field("seed", _LONG),
        Field("journal_position", _LONG),
        Field("language", _TEXT),
        Field("country", _TEXT),
        Field("age_band", _TEXT),
        Field("max_age", _WHOLE),
        Field("wanted", _WHOLE),
        Field("popularity", _TEXT),
        Field("down", DataType.list(Field("item", _WHOLE))),
        Field("chain", _TEXT),
        Field("degraded", DataType.list(Field("item", _TEXT))),
        Field("items", _ITEMS),
    ),
}
"""The tables. `signal` is a `retrieval.journal.Signal`; `item` the permanent item number of the catalogue."""


def batch(table: str, rows: Sequence[tuple[Any, ...]]) -> RecordBatch:
    """Rows as Arrow columns, sorted by day, tenant and user."""
    fields = COLUMNS[table]
    at = [field.name for field in fields].index("at_s") - 1
    rows = sorted(rows, key=lambda row: (row[at] // DAY_S, row[0], row[1], row[at]))
    days = Array(np.array([row[at] // DAY_S for row in rows], np.int32)).cast(DataType.date32())
    columns = [_column(field, list(values)) for field, values in zip(fields[1:], zip(*rows, strict=True), strict=True)]
    return RecordBatch.from_arrays([days, *columns], schema=Schema(list(fields)))


def _column(field: Field, values: list[Any]) -> Array:
    if field.type.value_field is None:
        return Array(values, type=field.type)
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(each) for each in values], out=offsets[1:])
    flat = [one for each in values for one in each]
    elements = _items(flat) if field.name == "items" else Array(flat, type=field.type.value_field.type)
    return list_array(Array(offsets), elements, type=field.type)


def _items(flat: list[tuple[Any, ...]]) -> Array:
    columns = list(zip(*flat, strict=True)) or [()] * len(ITEM_FIELDS)
    parts = [Array(list(column), type=part.type) for part, column in zip(ITEM_FIELDS, columns, strict=True)]
    return struct_array(parts, fields=list(ITEM_FIELDS))
