"""Who asks, when and where: everything about one request that ranking may know. No identity among it."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ranking.columns import Float32, UInt64

_NO_HASHES: Final[UInt64] = np.zeros(0, np.uint64)
_NO_WEIGHTS: Final[Float32] = np.zeros(0, np.float32)


def _no_hashes() -> UInt64:
    return _NO_HASHES


def _no_weights() -> Float32:
    return _NO_WEIGHTS


@dataclass(frozen=True, slots=True)
class Context:
    """One request. The liked creators and categories come from the user's taste, the hints from the host app."""

    now_s: int
    """Server time, unix seconds."""
    surface: str = ""
    """The place in the host app, such as "home"; "" when not given."""
    language: int = -1
    """Code of `hints.LANGUAGES`."""
    country: int = -1
    """Code of `hints.COUNTRIES`."""
    age_band: str = ""
    """A key of `hints.AGE_BANDS`; "" when not given."""
    max_age: int = 18
    """Maturity ceiling of the request; items with a higher minimum age are ineligible."""
    cohort: str = ""
    """Which fixed tenth of the users this one is in, for rules that are tried on some; "" = none."""
    seed: int = 0
    """Where chance is wanted; another seed, another mix."""
    liked_creators: UInt64 = field(default_factory=_no_hashes)
    liked_creator_weights: Float32 = field(default_factory=_no_weights)
    """float32[m], >= 0; only their proportions count."""
    liked_categories: UInt64 = field(default_factory=_no_hashes)
    liked_category_weights: Float32 = field(default_factory=_no_weights)

    def __post_init__(self) -> None:
        for name in ("creator", "category"):
            keys = self.liked_creators if name == "creator" else self.liked_categories
            weights = self.liked_creator_weights if name == "creator" else self.liked_category_weights
            if keys.dtype != np.uint64 or weights.dtype != np.float32 or keys.shape != weights.shape or keys.ndim != 1:
                raise ValueError(f"liked_{name}_weights (float32[m]) does not fit the hashes (uint64[m])")
