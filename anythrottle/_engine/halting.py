"""Asks the user's ``halt`` whether a run is to end because jobs have failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from .._jobs import discard
from .run_state import RunState
from .throttler_statistics import ThrottlerStatistics

#: Takes the statistics of a run, and returns whether the run is to start nothing more.
Halt: TypeAlias = Callable[[ThrottlerStatistics], bool]


def check_halt(value: object) -> None:
    """Raise if a value is neither ``None`` nor a function that can be a ``halt``."""
    if value is not None and not callable(value):
        raise TypeError(f"halt must be a function of ThrottlerStatistics, not {value!r}")


def asking(
    halt: Halt | None, run: RunState, statistics: Callable[[], ThrottlerStatistics]
) -> Callable[[], None] | None:
    """
    Return the function to be called after each failure of a run that is about to begin.

    :param halt: the function that may end the run, ``None`` for none
    :param run: the run
    :param statistics: returns the state at this instant, over all runs
    :return: ``None`` if there is no ``halt``

    """
    if halt is None:
        return None

    before = statistics()

    def ask() -> None:
        if run.is_ending:
            return

        try:
            answer = _answer(halt, _since(before, statistics()))
        except BaseException as exc:  # noqa: BLE001 - it ends the run, whatever it is
            run.fail(exc, "halt")
            return

        if answer:
            run.stop("halted")

    return ask


def _answer(halt: Halt, statistics: ThrottlerStatistics) -> bool:
    answer: object = halt(statistics)
    if not isinstance(answer, bool):
        discard(answer)
        raise TypeError(f"halt must return True or False, but {halt!r} returned {answer!r}")

    return answer


def _since(before: ThrottlerStatistics, now: ThrottlerStatistics) -> ThrottlerStatistics:
    """Return a state that counts from an earlier one on."""
    return replace(
        now,
        started=now.started - before.started,
        done=now.done - before.done,
        failed=now.failed - before.failed,
        throttled=now.throttled - before.throttled,
        retried=now.retried - before.retried,
    )
