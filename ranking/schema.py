"""Plain JSON -> typed sections, collecting every problem on the way. The dataclass IS the schema.

A field says its own bounds (`whole(2, 1, 50)`), so default, limits and documentation stand on one line.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final

from ranking.errors import Problem

MAX_SHOWN: Final = 60
"""Characters of a refused value that are repeated back."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number in [low, high]; `whole` refuses fractions."""

    low: float
    high: float
    whole: bool
    options: tuple[int | str, ...] = ()

    @property
    def allowed(self) -> str:
        """Say in words what fits."""
        if self.options:
            return "one of " + ", ".join(map(str, self.options))
        return f"a {'whole ' if self.whole else ''}number from {self.low:,.12g} to {self.high:,.12g}"

    def fits(self, value: object) -> bool:
        """Tell whether a JSON value fits. true and false are not numbers."""
        if self.options:
            return any(type(value) is type(option) and value == option for option in self.options)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(value, float) and self.whole:
            return False
        return self.low <= value <= self.high  # false for NaN


def number(default: float | None, low: float, high: float) -> Any:
    """Declare a field: a real number in [low, high]; default None = must be given."""
    return _declare(default, Bounds(low, high, whole=False))


def whole(default: int | None, low: int, high: int) -> Any:
    """Declare a field: a whole number in [low, high]; default None = must be given."""
    return _declare(default, Bounds(low, high, whole=True))


def choice(default: int | str | None, options: tuple[int | str, ...]) -> Any:
    """Declare a field: one of `options`; default None = must be given."""
    return _declare(default, Bounds(0, 0, whole=True, options=options))


def bounds_of(section: type) -> dict[str, Bounds]:
    """Return field name -> bounds of a section."""
    return {f.name: f.metadata["bounds"] for f in fields(section)}


def read_section(section: type, document: object, pointer: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the fields that `document` gives and that fit; append what does not to `problems`."""
    required = [f.name for f in fields(section) if f.default is MISSING]
    return read_numbers(bounds_of(section), document, pointer, problems, required)


def read_numbers(
    table: Mapping[str, Bounds], document: object, pointer: str, problems: list[Problem], required: list[str]
) -> dict[str, Any]:
    """Return the entries of `document` that fit `table`; append unknown, missing and unfit ones to `problems`."""
    given = read_object(document, tuple(table), pointer, problems)
    if given is None:
        return {}
    problems.extend(
        Problem(f"{pointer}/{name}", "is missing", table[name].allowed) for name in required if name not in given
    )
    values: dict[str, Any] = {}
    for name, value in given.items():
        if table[name].fits(value):
            values[name] = value if table[name].whole else float(value)
        else:
            problems.append(Problem(f"{pointer}/{name}", f"{shown(value)} does not fit", table[name].allowed))
    return values


def read_object(
    document: object, known: tuple[str, ...], pointer: str, problems: list[Problem]
) -> dict[str, Any] | None:
    """Return the known keys of a JSON object, None if it is not an object; unknown keys become problems."""
    if not isinstance(document, Mapping):
        problems.append(Problem(pointer, f"{shown(document)} is not an object", "an object with " + ", ".join(known)))
        return None
    allowed = "one of " + ", ".join(known)
    problems.extend(
        Problem(f"{pointer}/{escaped(key)}", "is not known", allowed) for key in document if key not in known
    )
    return {key: document[key] for key in known if key in document}


def read_list(
    document: object, most: int, pointer: str, problems: list[Problem], read: Callable[[object, str], Any]
) -> list[Any]:
    """Return `read(entry, pointer)` of the first `most` entries; not a list, or more than that, is a problem."""
    if not isinstance(document, list):
        problems.append(Problem(pointer, f"{shown(document)} is not a list", f"a list of at most {most}"))
        return []
    if len(document) > most:
        problems.append(Problem(pointer, f"has {len(document)} entries", f"at most {most}"))
    return [read(entry, f"{pointer}/{i}") for i, entry in enumerate(document[:most])]


def shown(value: object) -> str:
    """Repeat a refused value back, shortened; a container only by its kind, since it may be huge or endless deep."""
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**MAX_SHOWN:
        return "a huge number"  # str() of thousands of digits raises
    text = repr(value[: MAX_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def escaped(key: object) -> str:
    """Return a key as one token of a JSON pointer."""
    return str(key)[:MAX_SHOWN].replace("~", "~0").replace("/", "~1")


def _declare(default: Any, bounds: Bounds) -> Any:
    metadata = {"bounds": bounds}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)
