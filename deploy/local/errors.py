"""What can go wrong on somebody's machine, each as one message with the way out."""

from __future__ import annotations


class StartError(Exception):
    """The demo cannot start or go on. `str(error)` is shown to the person as it is: what is wrong and what to do."""
