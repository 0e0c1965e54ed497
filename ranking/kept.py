"""Machine code that an image brings along, read where nothing can be written.

Named to numba by `NUMBA_CACHE_LOCATOR_CLASSES` in deploy/docker/Dockerfile: its own locators want to write beside what
they read, which a read-only file system refuses.
"""

from numba.core.caching import UserProvidedCacheLocator


class Kept(UserProvidedCacheLocator):  # type: ignore[misc]
    """The folder `NUMBA_CACHE_DIR`, as it is."""

    def ensure_cache_path(self) -> None:
        """Nothing to ensure: what is not there is compiled, and kept if it can be."""
