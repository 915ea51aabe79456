"""Jobs that keep a diary, a consumer that does, and the plain questions to ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import anyio

from anythrottle import Throttler, ThrottlerStatistics
from anythrottle._jobs import JobOf

Job = Callable[[], Awaitable[object]]

#: Returned by a job that has not been told what else to return.
OWN_NAME = object()


class Diary:
    """Who has started, been cut off, ended and been consumed, and when."""

    def __init__(self) -> None:
        #: (event, name of the job, instant)
        self.entries: list[tuple[str, object, float]] = []
        self.consumed: list[object] = []
        self.running = 0
        self.most_running = 0
        self.consuming = 0

    def note(self, event: str, name: object) -> None:
        self.entries.append((event, name, anyio.current_time()))

    def job(
        self,
        name: object,
        *,
        seconds: float | None = None,
        errors: Iterable[BaseException] = (),
        result: object = OWN_NAME,
    ) -> Job:
        """Make a job; each of its first starts raises one of ``errors``, if there are any."""
        to_raise = list(errors)

        async def job() -> object:
            self.note("start", name)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                if seconds is not None:
                    await anyio.sleep(seconds)
            except anyio.get_cancelled_exc_class():
                self.note("cut off", name)
                raise
            finally:
                self.running -= 1

            if to_raise:
                self.note("raise", name)
                raise to_raise.pop(0)

            self.note("end", name)
            return name if result is OWN_NAME else result

        job.__qualname__ = f"job {name!r}"
        return job

    def jobs(self, count: int, *, seconds: float | None = None) -> list[Job]:
        """Make jobs that are called 0, 1, 2, and so on, and return that."""
        return [self.job(number, seconds=seconds) for number in range(count)]

    def consumer(self, seconds: float | None = None) -> Callable[[object], Awaitable[None]]:
        """Make a consumer that notes each result when it is done with it."""

        async def consume(result: object) -> None:
            assert not self.consuming, "two results are consumed at once"
            self.consuming += 1
            try:
                if seconds is not None:
                    await anyio.sleep(seconds)
            finally:
                self.consuming -= 1

            self.consumed.append(result)

        return consume

    def when(self, event: str) -> list[float]:
        return [instant for what, _, instant in self.entries if what == event]

    def who(self, event: str) -> list[object]:
        return [name for what, name, _ in self.entries if what == event]

    @property
    def starts(self) -> list[object]:
        """Who has started, in that order."""
        return self.who("start")


def most_in_any_window(instants: list[float], window: float) -> int:
    """Count, by brute force, the most instants that any half-open window holds."""
    return max((sum(a <= b < a + window for b in instants) for a in instants), default=0)


async def finish(
    throttler: Throttler[JobOf[object], object], *, within: float = 1000.0
) -> ThrottlerStatistics:
    """Run a throttler to its end, and fail if it hangs."""
    with anyio.fail_after(within):
        return await throttler.run()


def failures(
    throttler: Throttler[JobOf[object], object],
) -> list[tuple[JobOf[object], BaseException]]:
    """Read all that has failed so far."""
    found: list[tuple[JobOf[object], BaseException]] = []
    while True:
        try:
            outcome = throttler.exceptions.receive_nowait()
        except (anyio.WouldBlock, anyio.EndOfStream):
            return found

        assert outcome.error is not None
        found.append((outcome.item, outcome.error))


def doubled(things: Iterable[object]) -> list[object]:
    """Return what there is more than once."""
    return [thing for thing, count in Counter(things).items() if count > 1]


__all__ = (
    "OWN_NAME",
    "Diary",
    "Job",
    "doubled",
    "failures",
    "finish",
    "most_in_any_window",
)
