"""The base of the tests of limiters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from ..abc import Limiter
from ._backends import wait_idle

E = TypeVar("E", bound=BaseException)

#: What the limiters under test allow in a window.
LIMIT = 3


class ConformanceBase(ABC):
    """The settings of :class:`.LimiterConformance`, and what its tests share."""

    #: The length of the windows in the tests, in seconds.
    window: float = 10.0

    #: By how much a turn may come too late, in seconds.
    slack: float = 0.0

    #: By how much a turn may seem to come too early, as clocks differ, in seconds.
    resolution: float = 0.0

    @abstractmethod
    def make_limiter(self, limit: int, window: float, *, concurrency: int | None = None) -> Limiter:
        """
        Return a new limiter, which counts calls alone.

        :param limit: the most that may begin in any window
        :param window: its length in seconds
        :param concurrency: how many calls may run at once; ``None`` for no bound

        """

    async def settle_down(self) -> None:
        """
        Wait until all tasks but the caller's have done what they can for now.

        By default as :func:`.wait_idle` does. Override it if tasks wait for a server meanwhile.
        """
        await wait_idle()

    def _limiter(self, limit: int = LIMIT, *, concurrency: int | None = None) -> Limiter:
        return self.make_limiter(limit, self.window, concurrency=concurrency)

    async def _call(self, limiter: Limiter, cost: int = 1, max_wait: float | None = None) -> None:
        async with limiter.permit(cost, max_wait=max_wait):
            pass

    async def _spend(self, limiter: Limiter) -> None:
        await self._call(limiter, LIMIT)

    async def _assert_full(self, limiter: Limiter) -> None:
        start = anyio.current_time()
        await self._spend(limiter)
        self._assert_passed(start, 0)

    def _assert_passed(self, start: float, seconds: float) -> None:
        passed = anyio.current_time() - start
        assert passed >= seconds - self.resolution, f"after {passed} s, too early for {seconds}"
        late = passed - seconds - self.slack
        # By so much sums of floats may differ.
        assert late <= 1e-9 * (1 + passed), f"after {passed} s, too late for {seconds}"


@contextmanager
def raises(error: type[E]) -> Generator[list[E]]:
    caught: list[E] = []
    try:
        yield caught
    except error as exc:
        caught.append(exc)

    assert caught, f"{error.__name__} was not raised"


def go_wrong() -> None:
    raise ZeroDivisionError("on purpose")
