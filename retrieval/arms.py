"""Which arm of a tenant's experiment a user is in, and the view they are served from.

One bucket says whether a user takes part, another which arm it is; nothing is stored, and every worker says the same.
So an experiment whose arms grow in proportion keeps everybody where they are and only takes in new users. Another
proportion, or another name, parts the users anew.
"""

from __future__ import annotations

from itertools import accumulate

from ranking.experiment import Experiment
from retrieval.flags import PARTS, bucket
from retrieval.view import View


def arm_of(experiment: Experiment, tenant_id: str, user_key: str) -> str:
    """The name of a user's arm, "" for none."""
    edges = list(accumulate(arm.percent for arm in experiment.arms))
    taking_part = edges[-1]
    if bucket(tenant_id, f"experiment.{experiment.name}", user_key) >= round(taking_part * PARTS / 100):
        return ""
    place = taking_part * (bucket(tenant_id, f"arm.{experiment.name}", user_key) + 0.5) / PARTS
    return next(arm.name for arm, edge in zip(experiment.arms, edges, strict=True) if place < edge)


def in_arm(view: View, user_key: str | None) -> View:
    """The view of the user's arm; the tenant's own for users in none, and for who cannot be told apart (None)."""
    experiment = view.policy.experiment
    if experiment is None or user_key is None:
        return view
    return view.arms.get(arm_of(experiment, view.tenant.id, user_key), view)
