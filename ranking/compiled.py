"""Loops that numpy cannot say, as machine code.

They are compiled for one signature each: by `compile_all`, which a worker calls before it answers, so that no request
waits for a compiler; elsewhere at the first call. The machine code is kept beside the source, or wherever
`NUMBA_CACHE_DIR` says; where neither can be written it is made anew in every process (many seconds; an image brings it
along, see `ranking.kept`). A change of the
source is noticed; a change of a constant from another file is not, so none that could change is used.

`function.__wrapped__` is the same in plain Python.
"""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


class _Compiled:
    def __init__(self, function: Callable[..., Any], signature: str, any_order: bool) -> None:
        update_wrapper(self, function)
        self._signature, self._any_order = signature, any_order

    def __call__(self, *arguments: Any) -> Any:
        return self.machine_code(*arguments)

    @cached_property
    def machine_code(self) -> Callable[..., Any]:
        from numba import njit  # costs half a second, which a command that ranks nothing need not wait for

        function = self.__wrapped__  # type: ignore[attr-defined]
        names = function.__globals__
        for name, value in list(names.items()):
            if callable(value) and value in _PARTS:
                names[name] = njit(**_options(_PARTS[value]))(value)
        try:
            return cast(Callable[..., Any], njit(self._signature, cache=True, **_options(self._any_order))(function))
        except (RuntimeError, OSError) as error:  # nowhere to keep it, or not allowed to
            if isinstance(error, RuntimeError) and "no locator available" not in str(error):
                raise
            return cast(Callable[..., Any], njit(self._signature, **_options(self._any_order))(function))


_COMPILED: Final[list[_Compiled]] = []
_PARTS: Final[dict[Callable[..., Any], bool]] = {}


def compiled(signature: str, *, any_order: bool = False) -> Callable[[F], F]:
    """A function of arrays and numbers, compiled for one signature: "result(argument, ...)" in numba's names of types.

    Arrays are written as `column` says, or `uint64[::1]` if they are contiguous and writable. any_order: floats may be
    summed in any order, which lets long sums run several numbers at a time; the last bit may then differ.
    """

    def declare(function: F) -> F:
        _COMPILED.append(_Compiled(function, signature, any_order))
        return cast(F, _COMPILED[-1])

    return declare


def column(dtype: str, ndim: int = 1, layout: str = "A") -> str:
    """For a signature: an array that is only read, wherever and however it lies in memory; layout "C": in one piece."""
    return f"Array({dtype}, {ndim}, '{layout}', True, None, False)"


def part(*, any_order: bool = False) -> Callable[[F], F]:
    """A function that only compiled ones of the same file call; it is compiled with them. any_order: see `compiled`."""

    def declare(function: F) -> F:
        _PARTS[function] = any_order
        return function

    return declare


def compile_all() -> None:
    """Compile every function of the modules imported by now, or load what was kept."""
    for each in _COMPILED:
        _ = each.machine_code


def _options(any_order: bool) -> dict[str, Any]:
    return {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"} if any_order else False}
