"""What each worker process runs: the application, compiled, and loaded without looking for garbage.

A thousand modules and a hundred tenants are no garbage, and going through them again and again while more of them come
is a seventh of the CPU of their import. `service.app` looks once when all is there, and turns the collector on again.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp


SWITCH_S: Final = 0.0005
"""How long the event loop waits for the interpreter while a thread of this worker opens a snapshot. Python's own 5 ms
would be waited for again and again within one page: at each search and each look at the sockets."""


def create() -> ASGIApp:
    """The application, configured from the environment."""
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    from ranking.compiled import compile_all
    from retrieval import logs
    from service.app import application, asgi
    from service.settings import ServiceSettings

    logs.configure()
    compile_all()
    return asgi(application(ServiceSettings()))
