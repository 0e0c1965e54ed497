"""What each worker process runs: the application, compiled, and loaded without looking for garbage.

A thousand modules and a hundred tenants are no garbage, and going through them again and again while more of them come
is a seventh of the CPU of their import. `service.app` looks once when all is there, and turns the collector on again.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def create() -> FastAPI:
    """The application, configured from the environment."""
    gc.disable()
    from ranking.compiled import compile_all
    from retrieval import logs
    from service.app import application
    from service.settings import ServiceSettings

    logs.configure()
    compile_all()
    return application(ServiceSettings())
