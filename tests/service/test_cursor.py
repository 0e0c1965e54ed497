"""Cursors by themselves: nothing is lost in them, nothing can be changed in them, nobody else can use them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cursor import DAY_S, MAX_CHARS, BadCursor, Cursors, Frozen, local_secret
from service.ranked import WHOLE

NOW_S = 1_800_000_000
OLD, NEW = b"an old secret of the operator", b"a new secret of the operator"
CURSORS = Cursors([NEW])


def frozen(n: int = 20, **more: object) -> Frozen:
    """A list of n items."""
    facts: dict[str, object] = {
        "chain": b"8 bytes!",
        "made_s": NOW_S,
        "seed": 7,
        "mode": 0,
        "chance": 0.25,
        "before": 0,
        "offset": 0,
        "final": False,
        "items": np.arange(n, dtype=np.uint32) * 3,
        "reasons": np.arange(n, dtype=np.uint8) % 5,
    }
    return Frozen(**(facts | more))  # type: ignore[arg-type]  # a test's own table


lists = st.builds(
    frozen,
    n=st.integers(0, WHOLE.candidates),
    chain=st.binary(min_size=8, max_size=8),
    made_s=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 2**32 - 1),
    mode=st.integers(0, 4),
    before=st.integers(0, 2**32 - 1),
    offset=st.integers(0, WHOLE.candidates),
    final=st.booleans(),
)


@given(lists, st.text(max_size=20), st.none() | st.text(min_size=1, max_size=40))
def test_what_is_sealed_is_what_is_opened(given_list: Frozen, tenant: str, user: str | None) -> None:
    """Every field of every list comes back, for its own tenant and user."""
    opened = CURSORS.open(CURSORS.seal(given_list, tenant, user, now_s=NOW_S), tenant, user)
    assert np.array_equal(opened.items, given_list.items)
    assert np.array_equal(opened.reasons, given_list.reasons)
    for name in ("chain", "made_s", "seed", "mode", "chance", "before", "offset", "final"):
        assert getattr(opened, name) == getattr(given_list, name)


def test_the_longest_list_fits() -> None:
    """A cursor is under 2 KB also with a whole list in it, so it fits into any address."""
    longest = frozen(WHOLE.candidates, items=np.full(WHOLE.candidates, 2**32 - 1, np.uint32), before=2**32 - 1)
    assert len(CURSORS.seal(longest, "t" * 63, "u" * 32, now_s=NOW_S)) < MAX_CHARS == 2048


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    """Any character changed, cut off or added: refused, as is every other text."""
    token = CURSORS.seal(frozen(3), "acme", None, now_s=NOW_S)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[at]))
    for changed in (token[:at] + other + token[at + 1 :], token[:at], token + other, token[:at] + other + token[at:]):
        with pytest.raises(BadCursor):
            CURSORS.open(changed, "acme", None)


@given(st.text(max_size=3000))
def test_no_text_is_an_accident(text: str) -> None:
    """Whatever an app sends, it is refused and never an error of another kind."""
    with pytest.raises(BadCursor):
        CURSORS.open(text, "acme", None)


@pytest.mark.parametrize(("tenant", "user"), [("other", "u"), ("acme", "v"), ("acme", None), ("acme\0u", None)])
def test_nobody_else_can_use_it(tenant: str, user: str | None) -> None:
    """Another tenant's and another user's cursor are refused, and so is one shifted from the user to the tenant."""
    token = CURSORS.seal(frozen(), "acme", "u", now_s=NOW_S)
    with pytest.raises(BadCursor):
        CURSORS.open(token, tenant, user)


def test_it_tells_an_app_nothing() -> None:
    """Two seals of one list share only the key's number and the day: nothing of the list can be read or compared."""
    one, two = (CURSORS.seal(frozen(), "acme", "u", now_s=NOW_S) for _ in range(2))
    assert one[:8] == two[:8]
    assert one[8:] != two[8:]
    assert sum(a == b for a, b in zip(one[24:], two[24:], strict=True)) < len(one) / 8


def test_the_secret_is_rotated_with_overlap() -> None:
    """With the new secret in front, old cursors still open; without the old one behind it they do not."""
    of_old = Cursors([OLD]).seal(frozen(), "acme", None, now_s=NOW_S)
    both = Cursors([NEW, OLD])
    assert len(both.open(of_old, "acme", None).items) == 20
    assert len(CURSORS.open(both.seal(frozen(), "acme", None, now_s=NOW_S), "acme", None).items) == 20
    with pytest.raises(BadCursor):
        CURSORS.open(of_old, "acme", None)


def test_each_day_has_its_own_key() -> None:
    """A cursor of late evening opens after midnight; one that claims another day than it was sealed on does not."""
    evening = NOW_S - NOW_S % DAY_S - 1
    token = CURSORS.seal(frozen(), "acme", None, now_s=evening)
    tomorrow = CURSORS.seal(frozen(), "acme", None, now_s=evening + 1)
    assert len(CURSORS.open(token, "acme", None).items) == 20
    with pytest.raises(BadCursor):
        CURSORS.open(tomorrow[:8] + token[8:], "acme", None)


@pytest.mark.parametrize("secrets", [[], [b"short"], [NEW, b"short"]])
def test_weak_secrets_are_refused(secrets: list[bytes]) -> None:
    """No secret, or one of fewer than 16 bytes, is a mistake that must not start."""
    with pytest.raises(ValueError, match="16 bytes"):
        Cursors(secrets)


def test_all_workers_of_a_machine_find_one_secret(tmp_path: Path) -> None:
    """However many workers start at once, they agree; and nobody else may read the file."""
    found: list[bytes] = []
    path = tmp_path / "state" / "cursor.secret"
    path.parent.mkdir()
    starts = [threading.Thread(target=lambda: found.append(local_secret(path))) for _ in range(8)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert path.stat().st_mode & 0o077 == 0
