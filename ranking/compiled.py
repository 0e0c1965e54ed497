"""Loops that numpy cannot say, compiled to machine code when their module is imported.

Compiled at import and for one signature, so that no request ever waits for a compiler. The machine code is kept beside
the source, or wherever `NUMBA_CACHE_DIR` says; where neither can be written it is made anew at every start (seconds).
A change of the source is noticed; a change of a constant from another file is not, so none that could change is used.
`function.py_func` is the same in plain Python: for the debugger, and for the tests that hold the two together.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = {"nogil": True, "error_model": "numpy"}
_ANY_ORDER: Final = {"reassoc", "contract"}

part: Final[Callable[[F], F]] = njit(**_OPTIONS)
"""A function that only compiled ones of the same file call; it is compiled with them."""


def compiled(signature: str, *, any_order: bool = False) -> Callable[[F], F]:
    """Compile a function of arrays and numbers for one signature, "result(argument, ...)" in numba's names of types.

    Arrays that may lie any way in memory are written `uint64[:]`, contiguous ones `uint64[::1]`. any_order: floats may
    be summed in any order, which lets long sums run several numbers at a time; the last bit may then differ.
    """
    options = {**_OPTIONS, "fastmath": _ANY_ORDER if any_order else False}

    def compile_now(function: F) -> F:
        try:
            compiled_function: F = njit(signature, cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            compiled_function = njit(signature, **options)(function)
        return compiled_function

    return compile_now
