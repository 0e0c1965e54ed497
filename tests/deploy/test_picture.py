"""The README's picture is drawn from answers as they are."""

from __future__ import annotations

from xml.etree import ElementTree

from deploy.local.picture import COLOURS, SHOWN, Feed, drawn
from ranking.rank import REASONS


def test_what_was_answered_is_what_is_drawn() -> None:
    """Valid XML, a phone per person, each title and reason, whatever characters a title has."""
    items = [
        {"title": f"<Bread> & friends, part {n}", "creator": "Ö", "reason": reason}
        for n, reason in enumerate(["for_you", "popular", "explore"])
    ]
    picture = ElementTree.fromstring(drawn([Feed(None, "cold_start", items), Feed("bread", "personalised", items)]))  # noqa: S314 - our own text
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("<Bread> & friends, part 0") == 2
    assert {"somebody new", "has just liked: bread", "mode: personalised", "for_you", "popular"} <= set(texts)
    assert len(items) <= SHOWN


def test_every_reason_has_a_colour() -> None:
    """A reason the service gives is not drawn as unknown."""
    assert set(REASONS) <= set(COLOURS)
