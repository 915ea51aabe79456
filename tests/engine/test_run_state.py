"""The state of a run: where it stands, how it ends, and which error it keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import pytest

from anythrottle._engine.change import Change
from anythrottle._engine.run_state import Phase, RunState
from anythrottle._loops.clock import loop_of, native_loop

pytestmark = pytest.mark.timing

ACTS: dict[str, Callable[[RunState], None]] = {
    "exhaust": RunState.exhaust,
    "stop": RunState.stop,
    "halt": lambda run: run.stop("halted"),
    "finish": RunState.finish,
    "cancel": RunState.cancel,
    "win": RunState.win,
    "fail": lambda run: run.fail(ValueError()),
    "note_end": RunState.note_end,
}

RUNNING, STOPPING, CANCELLED, WON, DONE = Phase


def begun() -> tuple[RunState, anyio.CancelScope]:
    run = RunState(Change(), loop_of(native_loop()), host_waits=True)
    scope = anyio.CancelScope()
    run.task_scope = scope
    return run, scope


@pytest.mark.parametrize(
    ("acts", "phase", "how"),
    [
        ("", RUNNING, "done"),
        ("exhaust", STOPPING, "done"),
        ("exhaust stop", STOPPING, "stopped"),
        ("stop", STOPPING, "stopped"),
        ("stop halt exhaust", STOPPING, "stopped"),
        ("halt stop", STOPPING, "halted"),
        ("exhaust finish", DONE, "done"),
        ("stop finish", DONE, "stopped"),
        ("finish stop", DONE, "stopped"),
        ("finish note_end", DONE, "done"),
        ("finish fail", CANCELLED, "done"),
        ("stop note_end", CANCELLED, "stopped"),
        ("note_end", CANCELLED, "done"),
        ("cancel finish", CANCELLED, "done"),
        ("cancel stop exhaust", CANCELLED, "stopped"),
        ("fail finish", CANCELLED, "done"),
        ("win finish note_end", WON, "done"),
        ("win fail", WON, "done"),
    ],
)
async def test_where_it_stands(acts: str, phase: Phase, how: str) -> None:
    run, scope = begun()
    for act in acts.split():
        ACTS[act](run)

    assert (run.phase, run.how) == (phase, how)
    assert scope.cancel_called == bool({*acts.split()} & {"cancel", "win", "fail"})


@pytest.mark.parametrize(
    ("acts", "is_ending"),
    [("", False), ("exhaust", False), ("cancel", False), ("stop", True), ("win", True)],
)
async def test_whether_it_ends_before_all_is_done(acts: str, is_ending: bool) -> None:
    run, _ = begun()
    for act in acts.split():
        ACTS[act](run)

    assert run.is_ending == is_ending


async def test_to_stop_cuts_off_what_waits_for_a_turn() -> None:
    run, _ = begun()
    with anyio.CancelScope() as run.entering:
        run.stop()
        await anyio.sleep_forever()

    assert anyio.current_time() == 0


class TestFailure:
    async def test_the_first_is_raised_once(self, caplog: pytest.LogCaptureFixture) -> None:
        run, _ = begun()
        first, second = ValueError("first"), OSError("second")
        for error in (first, first, second):
            run.fail(error)

        assert caplog.messages == ["another error while the run ended: OSError('second')"]
        with pytest.raises(ValueError, match="first") as caught:
            run.raise_failure()

        assert caught.value is first
        assert caught.value.__notes__ == [
            "While the run ended because of this, another error: OSError('second')"
        ]
        run.raise_failure()
        run.log_failure()
        assert len(caplog.records) == 1

    async def test_is_logged_instead(self, caplog: pytest.LogCaptureFixture) -> None:
        run, _ = begun()
        run.fail(ValueError())
        run.log_failure()
        assert run.failure is None
        assert caplog.messages == ["error in a run that was cancelled"]

    async def test_is_late(self, caplog: pytest.LogCaptureFixture) -> None:
        run, _ = begun()
        run.win()
        run.fail(ValueError("late"))
        assert run.failure is None
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert caplog.messages == ["error after all was done: ValueError('late')"]
        run.fail(KeyboardInterrupt())
        assert isinstance(run.failure, KeyboardInterrupt)
