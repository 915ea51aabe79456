"""The progress display: what it counts, what it draws, where, and when no more."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from rich.console import Console
from rich.progress import Progress

import anythrottle.integrations.rich as module
from anythrottle import (
    Abandoned,
    Decision,
    Failed,
    Finished,
    Granted,
    Paused,
    RateLimiter,
    Refused,
    Resumed,
    Retried,
    Started,
    Throttled,
    ThrottleException,
    Throttler,
)
from anythrottle.abc import Event
from anythrottle.integrations.rich import JobProgress
from tests.engine.diary import Diary, failures

ERROR = ValueError("mine")


def started(index: int, attempts: int = 1) -> Started:
    return Started(index, None, attempts, 0.0)


def finished(index: int) -> Finished:
    return Finished(index, None, 1, 0.0)


def failed(index: int) -> Failed:
    return Failed(index, None, 1, 0.0, ERROR)


def throttled(index: int | None) -> Throttled:
    return Throttled(None, index, 1, ERROR)


def retried(index: int) -> Retried:
    return Retried(index, None, 1, 2.0, ERROR)


class Terminal:
    """A terminal of 90 columns without colours, and its clock."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.file = io.StringIO()
        self.now = 1000.0
        self.console = Console(
            file=self.file,
            force_terminal=True,
            color_system=None,
            no_color=True,
            width=90,
            height=25,
            get_time=clock or self.time,
        )

    def time(self) -> float:
        return self.now

    @property
    def line(self) -> str:
        """The display as it was drawn last."""
        text = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", self.file.getvalue())
        return re.split(r"[\r\n]", text.rstrip())[-1]

    def look(self, display: JobProgress) -> str:
        """Draw, and return the display without its bar, single spaces between its columns."""
        assert display._drawn is not None
        display._drawn[0].refresh()
        return words(self.line)

    def bar(self, display: JobProgress) -> str:
        self.look(display)
        bar = re.search(r"^Jobs (.*?) +\d+/", self.line)
        assert bar is not None
        return bar[1]


def words(line: str) -> str:
    return " ".join(re.sub(r"[━╸╺]", "", line).split())


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing draw by itself."""
    monkeypatch.setattr(module, "Progress", partial(Progress, auto_refresh=False))


@pytest.fixture
def terminal(by_hand: None) -> Terminal:
    return Terminal()


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameters", "error", "message"),
        [
            ({"total": "3"}, TypeError, "total must be an int, not '3'"),
            ({"total": True}, TypeError, "total must be an int, not True"),
            ({"total": 2.5}, TypeError, "total must be an int, not 2.5"),
            ({"total": -1}, ValueError, "total must be at least 0, not -1"),
            ({"completed": -1}, ValueError, "completed must be at least 0, not -1"),
            ({"completed": None}, TypeError, "completed must be an int, not None"),
            ({"description": 5}, TypeError, "description must be a str, not 5"),
            ({"description": None}, TypeError, "description must be a str, not None"),
            ({"console": 5}, TypeError, "console must be a rich.console.Console, not 5"),
        ],
        ids=str,
    )
    def test_is_refused(
        self, parameters: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error) as caught:
            JobProgress(**parameters)

        assert str(caught.value) == message

    def test_a_total_of_zero_is_none(self, terminal: Terminal) -> None:
        with JobProgress(0, console=terminal.console) as display:
            assert terminal.look(display) == "Jobs 0/0 ?/s 0:00:00 0 running"

    @pytest.mark.parametrize("name", ["description", "console"])
    def test_only_the_total_has_a_place(self, name: str) -> None:
        with pytest.raises(TypeError):
            JobProgress(3, "Pages")  # type: ignore[call-arg, arg-type]


class TestLine:
    def test_at_first(self, terminal: Terminal) -> None:
        with JobProgress(30, console=terminal.console):
            assert words(terminal.line) == "Jobs 0/30 ?/s -:--:-- 0 running"

    def test_without_a_total(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(started(0))
            terminal.now += 2
            display(finished(0))
            assert terminal.look(display) == "Jobs 1/? 0.5/s 0 running"

    def test_the_description_is_taken_as_it_is(self, terminal: Terminal) -> None:
        with JobProgress(3, description="[red]{}", console=terminal.console):
            assert terminal.line.startswith("[red]{} ")

    @pytest.mark.parametrize("width", [10, 20, 30, 60, 90, 200])
    def test_it_is_one_line_as_wide_as_the_terminal(self, terminal: Terminal, width: int) -> None:
        terminal.console.width = width
        with JobProgress(10**6, console=terminal.console) as display:
            display(throttled(0))
            display(failed(0))
            terminal.look(display)
            assert len(terminal.line) == width
            assert "\n" not in terminal.file.getvalue()

    def test_where_there_is_little_room_the_bar_gives_way_first(self, terminal: Terminal) -> None:
        terminal.console.width = 70
        with JobProgress(10**6, console=terminal.console) as display:
            display(throttled(0))
            display(failed(0))
            shown = "Jobs 1/1000000 ?/s -:--:-- 0 running, 1 failed, 1 throttled"
            assert terminal.look(display) == shown

    def test_the_bar_fills(self, terminal: Terminal) -> None:
        with JobProgress(4, console=terminal.console) as display:
            display(started(0))
            assert terminal.bar(display) == ""
            display(finished(0))
            quarter = terminal.bar(display)
            for index in (1, 2, 3):
                display(failed(index))

            full = terminal.bar(display)
            assert {*full} == {"━"}
            assert len(full) > 40
            assert len(quarter) == pytest.approx(len(full) / 4, abs=5)

    def test_the_bar_pulses_without_a_total(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(started(0))
            before = terminal.bar(display)
            terminal.now += 0.5
            assert terminal.bar(display) != before

    def test_the_bar_pulses_until_a_job_has_started(self, terminal: Terminal) -> None:
        with JobProgress(4, console=terminal.console) as display:
            display(Paused(None, 60))
            before = terminal.bar(display)
            terminal.now += 0.5
            assert terminal.bar(display) != before
            display(started(0))
            before = terminal.bar(display)
            terminal.now += 0.5
            assert terminal.bar(display) == before


class TestCounts:
    def test_jobs_that_run(self, terminal: Terminal) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(started(1))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 2 running"
            display(finished(0))
            display(failed(1))
            assert terminal.look(display).endswith(" 0 running, 1 failed")

    def test_a_job_that_has_failed_is_done(self, terminal: Terminal) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(failed(0))
            assert terminal.look(display).startswith("Jobs 1/3 ")

    def test_a_job_that_is_throttled_runs_no_longer_until_it_starts_again(
        self, terminal: Terminal
    ) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(started(1))
            display(throttled(0))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 1 running, 1 throttled"
            display(started(0, attempts=2))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 2 running, 1 throttled"
            display(throttled(0))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 1 running, 2 throttled"

    def test_neither_does_one_that_is_retried(self, terminal: Terminal) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(started(1))
            display(retried(0))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 1 running, 1 retried"
            display(started(0, attempts=2))
            assert terminal.look(display) == "Jobs 0/3 ?/s -:--:-- 2 running, 1 retried"

    def test_a_job_that_was_cut_off_and_starts_again_runs_once(self, terminal: Terminal) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(started(0))
            assert terminal.look(display).endswith(" 1 running")

    @pytest.mark.parametrize(
        "event",
        [
            throttled(None),
            Granted(None, 1, 0.0),
            Refused(None, 1, Decision(False, "rate", 1.0, 0, 1.0, 1, None)),
            Abandoned(None, 1, 0.0),
        ],
        ids=lambda event: type(event).__name__,
    )
    def test_what_tells_of_no_job_changes_nothing(self, terminal: Terminal, event: Event) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            before = terminal.look(display), repr(display)
            display(event)
            assert (terminal.look(display), repr(display)) == before

    def test_the_repr(self, terminal: Terminal) -> None:
        display = JobProgress(9, console=terminal.console)
        for index in range(5):
            display(started(index))

        display(failed(0))
        display(finished(1))

        for _ in range(3):
            display(throttled(2))

        for _ in range(4):
            display(retried(3))

        counts = "2 of 9 done, 1 failed, 3 throttled, 4 retried, 1 running"
        assert repr(display) == f"<JobProgress {counts}>"
        without_total = "0 done, 0 failed, 0 throttled, 0 retried, 0 running"
        assert repr(JobProgress()) == f"<JobProgress {without_total}>"


class TestRate:
    def test_it_is_the_average_since_the_first_start(self, terminal: Terminal) -> None:
        with JobProgress(30, console=terminal.console) as display:
            terminal.now += 3600
            display(started(0))
            # a burst, and then nothing for a while
            terminal.now += 0.5
            for index in range(10):
                display(finished(index))

            assert terminal.look(display) == "Jobs 10/30 20/s 0:00:01 0 running"
            terminal.now += 7.5
            assert terminal.look(display) == "Jobs 10/30 1.25/s 0:00:16 0 running"

    def test_the_first_start_may_come_later_than_others_of_its_events(
        self, terminal: Terminal
    ) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(failed(0))  # an awaitable that an earlier run has cut off
            terminal.now += 5
            assert terminal.look(display) == "Jobs 1/3 ?/s -:--:-- 0 running, 1 failed"
            display(started(1))
            terminal.now += 1
            assert terminal.look(display) == "Jobs 1/3 1/s 0:00:02 1 running, 1 failed"

    def test_no_time_has_passed_yet(self, terminal: Terminal) -> None:
        with JobProgress(3, console=terminal.console) as display:
            display(started(0))
            display(finished(0))
            assert terminal.look(display) == "Jobs 1/3 ?/s -:--:-- 0 running"

    @pytest.mark.parametrize(
        ("seconds", "rate"),
        [
            (1 / 3, "3/s"),
            (3, "0.333/s"),
            (0.0301, "33.2/s"),
            (1 / 98765, "98800/s"),
            (36, "0.0278/s"),
        ],
    )
    def test_it_has_three_digits(self, terminal: Terminal, seconds: float, rate: str) -> None:
        # a clock that starts at 0 has the digits
        terminal.now = 0.0
        with JobProgress(console=terminal.console) as display:
            display(started(0))
            terminal.now += seconds
            display(finished(0))
            assert terminal.look(display) == f"Jobs 1/? {rate} 0 running"

    @pytest.mark.parametrize(
        ("total", "left"),
        [
            (1, "0:00:00"),
            (2, "0:00:08"),
            (8, "0:00:53"),
            (9, "0:01:00"),
            (1000, "2:04:53"),
            (10**9, "2083333:19:53"),
        ],
    )
    def test_the_time_left(self, terminal: Terminal, total: int, left: str) -> None:
        with JobProgress(total, console=terminal.console) as display:
            display(started(0))
            terminal.now += 7.5
            display(finished(0))
            assert terminal.look(display) == f"Jobs 1/{total} 0.133/s {left} 0 running"

    def test_more_jobs_than_expected_leave_no_time(self, terminal: Terminal) -> None:
        with JobProgress(1, console=terminal.console) as display:
            display(started(0))
            terminal.now += 1
            for index in range(3):
                display(finished(index))

            assert terminal.look(display) == "Jobs 3/1 3/s 0:00:00 0 running"


class TestPause:
    def test_it_is_counted_down_and_ends_by_itself(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(Paused(None, 7.5))
            assert terminal.look(display) == "Jobs 0/? ?/s 0 running, paused for 8 s"
            terminal.now += 7
            assert terminal.look(display).endswith(", paused for 1 s")
            terminal.now += 0.5
            assert terminal.look(display).endswith(" 0 running")

    def test_without_end(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(Paused(None, float("inf")))
            assert terminal.look(display).endswith(", paused")

    def test_it_is_ended(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(Paused(None, 60))
            display(Resumed(None))
            assert terminal.look(display).endswith(" 0 running")
            display(Resumed(None))
            assert terminal.look(display).endswith(" 0 running")

    def test_a_later_record_counts(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(Paused(None, 60))
            display(Resumed(None))
            display(Paused(None, 5))
            assert terminal.look(display).endswith(", paused for 5 s")

    def test_of_several_limiters_the_longest_is_shown(self, terminal: Terminal) -> None:
        with JobProgress(console=terminal.console) as display:
            display(Paused("a", 60))
            display(Paused("b", 10))
            assert terminal.look(display).endswith(", paused for 60 s")
            display(Resumed("a"))
            assert terminal.look(display).endswith(", paused for 10 s")

    def test_a_clock_may_be_below_zero(self, terminal: Terminal) -> None:
        terminal.now = -10.0
        with JobProgress(console=terminal.console) as display:
            assert terminal.look(display).endswith(" 0 running")
            display(Paused(None, 5))
            assert terminal.look(display).endswith(", paused for 5 s")

    def test_what_has_passed_is_not_kept(self) -> None:
        terminal = Terminal()
        display = JobProgress(console=terminal.console)
        for name in range(1000):
            display(Paused(str(name), 10))
            terminal.now += 1

        assert len(display._paused_until) == 10


class TestEnd:
    def test_the_line_remains_and_nothing_comes_after_it(self, terminal: Terminal) -> None:
        display = JobProgress(2, console=terminal.console)
        with display:
            display(started(0))
            terminal.now += 2
            display(finished(0))
            before = terminal.file.getvalue()

        after = terminal.file.getvalue()
        assert len(after) > len(before)
        assert words(terminal.line) == "Jobs 1/2 0.5/s 0:00:02 0 running"
        assert after.endswith("\n\x1b[?25h")
        for event in (started(1), Paused(None, 60), failed(1)):
            display(event)

        assert terminal.file.getvalue() == after
        assert "2 of 2 done, 1 failed" in repr(display)

    def test_nothing_runs_any_more(self, terminal: Terminal) -> None:
        with JobProgress(2, console=terminal.console) as display:
            display(started(0))

        assert words(terminal.line) == "Jobs 0/2 ?/s -:--:-- 0 running"
        assert repr(display).endswith(" 0 running>")

    def test_an_error_passes(self, terminal: Terminal) -> None:
        display = JobProgress(2, console=terminal.console)
        display(started(0))
        display(finished(0))
        with pytest.raises(ValueError, match="mine"), display:
            raise ERROR

        assert words(terminal.line) == "Jobs 1/2 ?/s -:--:-- 0 running"
        assert display._drawn is None

    def test_a_terminal_that_is_gone(self, terminal: Terminal) -> None:
        display = JobProgress(2, console=terminal.console)
        with pytest.raises(ValueError, match="closed file"), display:
            terminal.file.close()

        assert display._drawn is None
        display(started(0))
        assert repr(display).endswith(" 1 running>")

    def test_what_is_printed_stands_above_the_line(
        self, terminal: Terminal, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = sys.stdout
        with JobProgress(2, console=terminal.console):
            sys.stdout.write("above\n")

        sys.stdout.write("below\n")
        assert sys.stdout is before
        assert capsys.readouterr().out == "below\n"
        assert "above\n" in terminal.file.getvalue()
        assert words(terminal.line) == "Jobs 0/2 ?/s -:--:-- 0 running"


class TestThread:
    def test_it_draws_now_and_then_and_ends(self) -> None:
        before = {*threading.enumerate()}
        terminal = Terminal()
        with JobProgress(2, console=terminal.console) as display:
            assert display._drawn is not None
            live = display._drawn[0].live
            assert live.auto_refresh
            assert live.refresh_per_second == 4
            (thread,) = {*threading.enumerate()} - before
            display(started(0))

        thread.join()
        assert words(terminal.line) == "Jobs 0/2 ?/s -:--:-- 0 running"


class TestElsewhere:
    @pytest.mark.parametrize(
        ("environment", "options"),
        [
            ({}, {}),
            ({}, {"force_terminal": False}),
            ({}, {"force_terminal": True, "force_interactive": False}),
            ({}, {"force_interactive": True}),
            ({"TERM": "dumb"}, {"force_terminal": True}),
            ({"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0"}, {}),
        ],
        ids=str,
    )
    def test_nothing_is_written_and_nothing_touched(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: dict[str, Any]
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        before = sys.stdout, sys.stderr, {*threading.enumerate()}
        file = io.StringIO()
        with JobProgress(2, console=Console(file=file, **options)) as display:
            for event in (started(0), throttled(0), Paused(None, 5), started(0), finished(0)):
                display(event)

            assert (sys.stdout, sys.stderr, {*threading.enumerate()}) == before
            counts = "1 of 2 done, 0 failed, 1 throttled, 0 retried, 0 running"
            assert repr(display) == f"<JobProgress {counts}>"

        assert file.getvalue() == ""

    def test_the_console_is_standard_output_by_default(self) -> None:
        program = (
            "from anythrottle.integrations.rich import JobProgress\nwith JobProgress(): print(5)"
        )
        command = [sys.executable, "-c", program]
        written = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        assert written == "5\n"
        environment = {**os.environ, "TTY_COMPATIBLE": "1"}
        written = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        ).stdout
        assert "5\n" in written
        assert "Jobs" in written

    def test_a_terminal_that_is_none_any_more(self, terminal: Terminal) -> None:
        display = JobProgress(2, console=terminal.console)
        with display:
            display(started(0))

        written = terminal.file.getvalue()
        terminal.console.is_interactive = False
        with display:
            display(started(0))

        assert terminal.file.getvalue() == written


class TestLog:
    def lines(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "anythrottle"]

    def test_a_line_a_minute_where_there_is_no_terminal(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 1000.0
        console = Console(file=io.StringIO(), get_time=lambda: now)
        caplog.set_level("INFO", "anythrottle")
        with JobProgress(9, completed=3, description="Pages", console=console) as display:
            for seconds in (0, 59.9, 0.1, 30, 29, 1, 200):
                now += seconds
                display(finished(0))

        counts = "0 failed, 0 throttled, 0 retried, 0 running"
        assert self.lines(caplog) == [f"Pages: {done} of 9 done, {counts}" for done in (6, 9, 10)]

    def test_not_outside_of_the_block(self, caplog: pytest.LogCaptureFixture) -> None:
        now = 1000.0
        console = Console(file=io.StringIO(), get_time=lambda: now)
        caplog.set_level("INFO", "anythrottle")
        display = JobProgress(9, console=console)
        now += 100
        display(finished(0))
        with display:
            now += 59
            display(finished(0))

        now += 100
        display(finished(0))
        assert self.lines(caplog) == []

    def test_not_where_there_is_one(
        self, terminal: Terminal, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "anythrottle")
        with JobProgress(9, console=terminal.console) as display:
            terminal.now += 100
            display(finished(0))

        assert self.lines(caplog) == []


class TestResumed:
    def test_what_was_done_before_is_done(self, terminal: Terminal) -> None:
        with JobProgress(10, completed=4, console=terminal.console) as display:
            assert terminal.look(display) == "Jobs 4/10 ?/s -:--:-- 0 running"
            display(started(0))
            terminal.now += 2
            display(finished(0))
            # The rate is that of this process.
            assert terminal.look(display) == "Jobs 5/10 0.5/s 0:00:10 0 running"


class TestEntering:
    @pytest.mark.parametrize("force_terminal", [True, False])
    def test_what_is_entered_already(self, by_hand: None, force_terminal: bool) -> None:
        console = Console(file=io.StringIO(), force_terminal=force_terminal)
        with JobProgress(2, console=console) as display:
            with pytest.raises(RuntimeError, match="entered already") as caught, display:
                pass

            assert "leave it first" in str(caught.value)
            display(started(0))
            assert repr(display).endswith(" 1 running>")

    def test_again_carries_on(self, terminal: Terminal) -> None:
        with JobProgress(5, console=terminal.console) as display:
            display(started(0))
            display(started(1))
            display(throttled(0))
            terminal.now += 100
            display(failed(1))

        display(started(2))
        terminal.now += 100
        display(finished(2))
        with display:
            state = "0 running, 1 failed, 1 throttled"
            assert words(terminal.line) == f"Jobs 2/5 ?/s -:--:-- {state}"
            display(started(0, attempts=2))
            terminal.now += 4
            display(finished(0))
            assert terminal.look(display) == f"Jobs 3/5 0.25/s 0:00:08 {state}"

    def test_in_the_middle_of_a_run(self, terminal: Terminal) -> None:
        display = JobProgress(4, console=terminal.console)
        display(started(0))
        display(started(1))
        terminal.now += 100
        with display:
            assert words(terminal.line) == "Jobs 0/4 ?/s -:--:-- 2 running"
            terminal.now += 2
            display(finished(0))
            assert terminal.look(display) == "Jobs 1/4 0.5/s 0:00:06 1 running"

    def test_a_terminal_that_refuses_leaves_it_as_it_was(self, terminal: Terminal) -> None:
        display = JobProgress(4, console=terminal.console)
        terminal.file.close()
        with pytest.raises(ValueError, match="closed file"), display:
            pass

        # Not entered: the same error again, and not that it has been.
        with pytest.raises(ValueError, match="closed file"), display:
            pass


@pytest.mark.timing
class TestThrottler:
    async def test_jobs_that_end_fail_and_are_throttled(self, by_hand: None) -> None:
        terminal = Terminal(anyio.current_time)
        diary = Diary()
        jobs = [
            diary.job(0, seconds=1),
            diary.job(1, seconds=2, errors=[ThrottleException(retry_after=5)]),
            diary.job(2, seconds=3, errors=[ERROR]),
            diary.job(3, seconds=4),
        ]
        lines: list[str] = []

        async def watch() -> None:
            await anyio.sleep(0.5)
            while True:
                lines.append(terminal.look(display))
                await anyio.sleep(1)

        with JobProgress(4, console=terminal.console) as display:
            limiter = RateLimiter("3/s", observer=display)
            throttler = Throttler(jobs, limiter=limiter, observer=display)
            async with anyio.create_task_group() as task_group:
                task_group.start_soon(watch)
                await throttler.run()
                task_group.cancel_scope.cancel()

        failures(throttler)
        assert lines == [
            "Jobs 0/4 ?/s -:--:-- 3 running",
            "Jobs 1/4 0.667/s 0:00:05 3 running",
            "Jobs 1/4 0.4/s 0:00:08 2 running, 1 throttled, paused for 5 s",
            "Jobs 2/4 0.571/s 0:00:04 1 running, 1 failed, 1 throttled, paused for 4 s",
            "Jobs 2/4 0.444/s 0:00:05 1 running, 1 failed, 1 throttled, paused for 3 s",
            "Jobs 3/4 0.545/s 0:00:02 0 running, 1 failed, 1 throttled, paused for 2 s",
            "Jobs 3/4 0.462/s 0:00:03 0 running, 1 failed, 1 throttled, paused for 1 s",
            "Jobs 3/4 0.4/s 0:00:03 1 running, 1 failed, 1 throttled",
            "Jobs 3/4 0.353/s 0:00:03 1 running, 1 failed, 1 throttled",
        ]

    async def test_a_run_that_was_cancelled_and_carries_on(self, by_hand: None) -> None:
        terminal = Terminal(anyio.current_time)
        jobs = Diary().jobs(5, seconds=10)
        display = JobProgress(5, console=terminal.console)
        throttler = Throttler(jobs, limiter="1/4s", concurrency=3, observer=display)
        with display, anyio.move_on_after(11):
            await throttler.run()

        assert words(terminal.line) == "Jobs 1/5 0.0909/s 0:00:44 0 running"
        with display:
            await throttler.run()
            assert terminal.look(display).startswith("Jobs 5/5 ")

        assert repr(display).startswith("<JobProgress 5 of 5 done, 0 failed, 0 throttled, ")


class TestWithThrottler:
    async def test_its_counts_are_those_of_the_throttler(self, by_hand: None) -> None:
        terminal = Terminal()
        jobs = [
            Diary().job(number, errors=[ThrottleException(retry_after=0.001)] * (number % 3 == 0))
            for number in range(20)
        ]
        jobs.append(Diary().job("failing", errors=[ERROR]))
        with JobProgress(len(jobs), console=terminal.console) as display:
            throttler = Throttler(jobs, limiter=RateLimiter(observer=display), observer=display)
            statistics = await throttler.run()

        failures(throttler)
        assert (statistics.done, statistics.failed, statistics.throttled) == (20, 1, 7)
        assert repr(display).startswith("<JobProgress 21 of 21 done, 1 failed, 7 throttled, ")
        assert "21/21" in terminal.line
        assert "0 running, 1 failed, 7 throttled" in terminal.line


class TestImport:
    def test_the_root_does_not_need_rich(self) -> None:
        program = """if True:
            import sys
            sys.modules["rich"] = None
            import anythrottle, anythrottle.abc, anythrottle.testing
            import anythrottle.integrations
            """
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_the_display_does_not_need_trio(self) -> None:
        program = "import anythrottle.integrations.rich, sys; assert 'trio' not in sys.modules"
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_all_is_what_is_public(self) -> None:
        assert module.__all__ == ("JobProgress",)
