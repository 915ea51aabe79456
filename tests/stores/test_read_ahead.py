"""How many turns are fetched ahead."""

from __future__ import annotations

import pytest

from anythrottle.stores.read_ahead import ReadAhead

pytestmark = pytest.mark.promise("S17")


WINDOW = 1.0


def use(ahead: ReadAhead, count: int) -> None:
    for _ in range(count):
        ahead.note_use((1,))


def after(
    ahead: ReadAhead,
    stock: int = 0,
    *,
    now: float = 0.0,
    others: bool = False,
    lasted: float = 0.0,
) -> int:
    return ahead.next(stock, now, others=others, lasted=lasted, round_trip=0.001)


def test_as_many_as_were_used_then_twice_as_many() -> None:
    ahead = ReadAhead(None, WINDOW)
    assert after(ahead) == 0
    use(ahead, 3)
    assert ahead.amounts == (1,)
    assert after(ahead) == 3
    use(ahead, 3)
    assert after(ahead) == 6
    use(ahead, 2)
    assert after(ahead, 4) == 6
    assert ahead.count == 6
    use(ahead, 100)
    assert after(ahead) == 100
    use(ahead, 5000)
    assert after(ahead) == 1000


def test_half_after_waste_and_none_while_others_wait() -> None:
    ahead = ReadAhead(None, WINDOW)
    use(ahead, 8)
    assert after(ahead) == 8
    ahead.note_waste()
    assert ahead.count == 4
    use(ahead, 1)
    assert after(ahead, others=True) == 0


def test_none_for_a_window_after_others_have_waited() -> None:
    ahead = ReadAhead(None, WINDOW)
    use(ahead, 8)
    assert after(ahead, now=5.0, others=True) == 0
    use(ahead, 8)
    assert after(ahead, now=5.99) == 0
    use(ahead, 8)
    assert after(ahead, now=6.0) == 8


def test_who_uses_none_keeps_what_is_there() -> None:
    ahead = ReadAhead(None, WINDOW)
    use(ahead, 8)
    assert after(ahead) == 8
    assert after(ahead, 5) == 5
    assert after(ahead, 0) == 0


def test_slow_use_fetches_nothing() -> None:
    ahead = ReadAhead(None, WINDOW)
    use(ahead, 3)
    assert after(ahead, lasted=0.0061) == 0
    use(ahead, 3)
    assert after(ahead, lasted=0.0059) == 3


def test_a_fixed_number() -> None:
    ahead = ReadAhead(10, WINDOW)
    assert ahead.count == 10
    assert after(ahead, 0) == 0
    use(ahead, 1)
    assert ahead.is_low(4)
    assert not ahead.is_low(5)
    assert after(ahead, 2, others=True, lasted=100.0) == 10
    # The next ones are fetched when some have been used.
    assert not ahead.is_low(0)
    assert after(ahead, 7) == 7
    assert after(ahead, 12) == 10
    none = ReadAhead(0)
    use(none, 5)
    assert after(none) == 0
