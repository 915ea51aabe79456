"""
A cancellation sweep: the same scenario again and again, cancelled one suspension later each time.

>>> for strike in sweep():                                      # doctest: +SKIP
...     ...  # run the scenario: strike.wrap() what may be struck, give it what to call
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Strike:
    """
    Calls something at the n-th suspension of the coroutines that it wraps.

    :param number: at which suspension, from 1 on, counted over all that is wrapped
    :param when_woken: strike when the suspension is about to end (on asyncio: what it waits for
        has come, but its task has not resumed) instead of when it begins
    """

    def __init__(self, number: int, *, when_woken: bool = False) -> None:
        self._number = number
        self._when_woken = when_woken
        self._count = 0
        #: What to call; set by the scenario.
        self.blow: Callable[[], object] = lambda: None

    @property
    def struck(self) -> bool:
        """Whether there were as many suspensions."""
        return self._count >= self._number

    @types.coroutine
    def wrap(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Drive ``coroutine``, and count its suspensions."""
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                trap = coroutine.send(answer) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

            self._count += 1
            if self._count == self._number:
                self._strike(trap)

            answer, error = None, None
            try:
                answer = yield trap
            except BaseException as exc:  # noqa: BLE001 - it is thrown on
                error = exc

    def _strike(self, trap: object) -> None:
        if not self._when_woken:
            self.blow()
        elif isinstance(trap, asyncio.Future):
            # Before the callback of the task itself, which is added when it gets the trap.
            trap.add_done_callback(lambda _: self.blow())
        else:
            asyncio.get_running_loop().call_soon(self.blow)


def sweep(*, when_woken: bool = False, limit: int = 1000) -> Iterator[Strike]:
    """Yield a strike at each suspension in turn, until one comes too late to strike."""
    for number in range(1, limit):
        strike = Strike(number, when_woken=when_woken)
        yield strike
        if not strike.struck:
            assert number > 1, "nothing was suspended: the sweep has tested nothing"
            return

    raise AssertionError(f"the scenario still goes on after {limit} suspensions")


def striker(
    monkeypatch: pytest.MonkeyPatch, methods: Iterable[tuple[type, str]]
) -> Callable[[Strike], None]:
    """Return what lets a strike count the suspensions of methods, from the next run on."""
    plain = [(owner, name, getattr(owner, name)) for owner, name in methods]

    def wrapped(
        strike: Strike, method: Callable[..., Coroutine[Any, Any, object]]
    ) -> Callable[..., Coroutine[Any, Any, object]]:
        async def wrapper(self: object, *args: object) -> object:
            # Not at once: what is not started would never be awaited.
            return await strike.wrap(method(self, *args))

        return wrapper

    def strike_all(strike: Strike) -> None:
        for owner, name, method in plain:
            monkeypatch.setattr(owner, name, wrapped(strike, method))

    return strike_all
