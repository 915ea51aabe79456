"""Whether a run is to end because of what has failed in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, TypeVar

from .._jobs import discard
from .crew import Crew
from .throttler_statistics import ThrottlerStatistics

I = TypeVar("I")  # noqa: E741 - an item
T = TypeVar("T")

#: Tells of the statistics of a run whether nothing more is to be started in it.
Halt: TypeAlias = Callable[[ThrottlerStatistics], bool]


def check_halt(value: object) -> None:
    """Raise unless something can be a ``halt``, or ``None``."""
    if value is not None and not callable(value):
        raise TypeError(f"halt must be a function of ThrottlerStatistics, not {value!r}")


def let_halt(
    crew: Crew[I, T], halt: Halt | None, statistics: Callable[[], ThrottlerStatistics]
) -> None:
    """
    Let a function end a run that is about to begin.

    :param crew: who runs the jobs
    :param halt: the function, ``None`` for none
    :param statistics: returns the state at an instant, over all runs

    """
    if halt is None:
        return

    before = statistics()

    def ask() -> None:
        if crew.is_ending:
            return

        try:
            answer = _answer(halt, _since(before, statistics()))
        except BaseException as exc:  # noqa: BLE001 - it ends the run, whatever it is
            crew.fail(exc, "halt")
            return

        if answer:
            crew.stop("halted")

    crew.on_failure(ask)


def _answer(halt: Halt, statistics: ThrottlerStatistics) -> bool:
    answer: object = halt(statistics)
    if not isinstance(answer, bool):
        discard(answer)
        raise TypeError(f"halt must return True or False, but {halt!r} returned {answer!r}")

    return answer


def _since(before: ThrottlerStatistics, now: ThrottlerStatistics) -> ThrottlerStatistics:
    """Return a state with what has been counted since another one."""
    return replace(
        now,
        started=now.started - before.started,
        done=now.done - before.done,
        failed=now.failed - before.failed,
        throttled=now.throttled - before.throttled,
        retried=now.retried - before.retried,
    )
