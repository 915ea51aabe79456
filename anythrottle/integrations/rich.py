"""A progress display for jobs, drawn in the terminal by rich: ``pip install anythrottle[rich]``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import ceil, inf, isinf
from types import TracebackType
from typing import Self, final

from rich import get_console
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from .._events import Event, Failed, Finished, Paused, Resumed, Retried, Started, Throttled
from .._limiters.live import Live
from .._policies.checks import check_count

__all__ = ("JobProgress",)

_FRAMES_PER_SECOND = 4

#: The seconds from one line in the log to the next, where there is no terminal.
_SECONDS_PER_LINE = 60

_logger = logging.getLogger("anythrottle")


@final
class JobProgress(Live):
    """
    Shows in the terminal how far a throttler's jobs are; to be given to it as its observer.

    >>> import anyio
    >>> from anythrottle import Throttler
    >>> from anythrottle.integrations.rich import JobProgress
    >>> async def job():
    ...     await anyio.sleep(1)
    >>> with JobProgress(3) as progress:
    ...     statistics = anyio.run(Throttler([job, job, job], observer=progress).run)
    >>> progress
    <JobProgress 3 of 3 done, 0 failed, 0 throttled, 0 retried, 0 running>

    There is no terminal here, so nothing was drawn. Where there is one, a line shows for as long as
    the block lasts:

    - the description and a bar, which pulses until a job has started, and without a total all along
    - how many jobs are done, those that have failed included, and of how many
    - how many were done per second, on average since the first start in this block
    - with a total, how long the others will take at that rate
    - how many run; how many have failed; how often one was throttled or is retried, and so runs no
      longer, until it is started again
    - for how long a limiter that has the same observer is paused.

    What is printed meanwhile appears above the line. When the block ends, the line remains as it is
    then, and nothing is drawn any more.

    Nothing is drawn in a pipe, a file, a notebook or on a dumb terminal. There, as long as the
    block lasts, a line a minute goes to the logger ``anythrottle`` (level INFO) that says how far
    the jobs are. Rich decides what an interactive terminal is. With ``FORCE_COLOR`` in the
    environment everything is one, unless there is ``TTY_INTERACTIVE=0`` as well.

    A thread of rich's draws four times a second. The event loop waits for the terminal only where
    the block begins and ends. Time is the console's: the event loop may have another, virtual one.

    A later block may enter the same display again, and carries on: for a throttler's next run,
    after one that was cancelled. One display is for one throttler at a time, because jobs are told
    apart by their index. There may be several limiters, each with a name of its own.

    :param total: how many jobs there are in all, at least 0, with those completed before; ``None``
        if that is not known
    :param completed: how many of them had been done before, at least 0: by the process before this
        one, say
    :param description: what stands in front of the bar
    :param console: where to draw, a ``rich.console.Console``; ``None`` for rich's global one, which
        is standard output
    :raises TypeError: if a parameter is of the wrong type
    :raises ValueError: if ``total`` or ``completed`` is negative

    """

    __slots__ = (
        "_console",
        "_description",
        "_drawn",
        "_ended",
        "_entered",
        "_failed",
        "_logged_at",
        "_paused_until",
        "_retried",
        "_running",
        "_throttled",
        "_total",
    )

    def __init__(
        self,
        total: int | None = None,
        *,
        completed: int = 0,
        description: str = "Jobs",
        console: Console | None = None,
    ) -> None:
        if not isinstance(description, str):
            raise TypeError(f"description must be a str, not {description!r}")

        if console is not None and not isinstance(console, Console):
            raise TypeError(f"console must be a rich.console.Console, not {console!r}")

        self._total = None if total is None else check_count("total", total, least=0)
        self._description = description
        self._console = get_console() if console is None else console
        self._entered = False
        self._drawn: tuple[Progress, TaskID] | None = None
        self._ended = check_count("completed", completed, least=0)
        self._failed = 0
        self._throttled = 0
        self._retried = 0
        #: The indexes of the jobs that run. A job that is cut off sends no record, but has the same
        #: index when it goes again.
        self._running: set[int] = set()
        #: When each limiter's pause ends, by the limiter's name and the console's clock.
        self._paused_until: dict[str | None, float] = {}
        #: When the last line was logged, by the console's clock.
        self._logged_at = inf

    def __call__(self, event: Event) -> None:
        """
        Count what an event tells of.

        :param event: any event; those that tell of no job and no pause change nothing

        """
        match event:
            case Started():
                self._running.add(event.index)
            case Finished():
                self._end(event.index)
            case Failed():
                self._failed += 1
                self._end(event.index)
            case Throttled(index=int(index)):
                self._throttled += 1
                self._running.discard(index)
            case Retried():
                self._retried += 1
                self._running.discard(event.index)
            case Paused():
                self._pause(event.name, event.seconds)
            case Resumed():
                self._paused_until.pop(event.name, None)
            case _:
                return

        self._show()

    def __enter__(self) -> Self:
        """
        Begin to draw, if there is a terminal.

        :raises RuntimeError: if it was entered and not left

        """
        if self._entered:
            raise RuntimeError("this display has been entered already: leave it first")

        if self._console.is_terminal and self._console.is_interactive:
            progress = _new_progress(self._console)
            task = progress.add_task(
                self._description,
                start=bool(self._running),
                total=self._total,
                ended_before=self._ended,
            )
            self._update(progress, task)
            progress.start()
            self._drawn = progress, task
        else:
            self._logged_at = self._console.get_time()

        self._entered = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw for the last time."""
        self._entered = False
        self._logged_at = inf
        # A run that was cancelled sends no record of the jobs that it has cut off.
        self._running.clear()
        if self._drawn is not None:
            progress, task = self._drawn
            self._drawn = None
            self._update(progress, task)
            progress.stop()

    def __repr__(self) -> str:
        return f"<JobProgress {self._counts()}>"

    def _show(self) -> None:
        """Show the counts in the terminal, or now and then in the log."""
        if self._drawn is not None:
            progress, task = self._drawn
            if self._running:
                progress.start_task(task)

            self._update(progress, task)
        elif self._console.get_time() - self._logged_at >= _SECONDS_PER_LINE:
            self._logged_at = self._console.get_time()
            _logger.info("%s: %s", self._description, self._counts())

    def _counts(self) -> str:
        of = "" if self._total is None else f" of {self._total}"
        return (
            f"{self._ended}{of} done, {self._failed} failed, {self._throttled} throttled, "
            f"{self._retried} retried, {len(self._running)} running"
        )

    def _end(self, index: int) -> None:
        self._ended += 1
        self._running.discard(index)

    def _pause(self, name: str | None, seconds: float) -> None:
        now = self._console.get_time()
        # A pause that has passed by itself sends no record.
        under_way = {limiter: end for limiter, end in self._paused_until.items() if end > now}
        self._paused_until = {**under_way, name: now + seconds}

    def _update(self, progress: Progress, task: TaskID) -> None:
        """Hand over the counts under rich's lock, because another thread draws them."""
        progress.update(
            task,
            completed=self._ended,
            running=len(self._running),
            failed=self._failed,
            throttled=self._throttled,
            retried=self._retried,
            paused_until=max(self._paused_until.values(), default=-inf),
        )


class _CountColumn(ProgressColumn):
    """A column that a function of the task writes."""

    def __init__(self, write: Callable[[Task], Text]) -> None:
        super().__init__(Column(no_wrap=True))
        self._write = write

    def render(self, task: Task) -> Text:
        return self._write(task)


def _new_progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        _CountColumn(_rate),
        _CountColumn(_time_left),
        _CountColumn(_state),
        console=console,
        refresh_per_second=_FRAMES_PER_SECOND,
    )


def _rate(task: Task) -> Text:
    rate = _jobs_per_second(task)
    digits = "?" if rate is None else f"{float(f'{rate:.3g}'):g}"
    return Text(f"{digits}/s", style="progress.data.speed")


def _time_left(task: Task) -> Text:
    if task.remaining is None:
        return Text()

    seconds = 0
    if task.remaining > 0:
        rate = _jobs_per_second(task)
        if rate is None:
            return Text("-:--:--", style="progress.remaining")

        seconds = ceil(task.remaining / rate)

    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")


def _state(task: Task) -> Text:
    fields = task.fields
    parts = [Text(f"{fields['running']} running")]
    if fields["failed"]:
        parts.append(Text(f"{fields['failed']} failed", style="red"))

    if fields["throttled"]:
        parts.append(Text(f"{fields['throttled']} throttled", style="yellow"))

    if fields["retried"]:
        parts.append(Text(f"{fields['retried']} retried", style="yellow"))

    paused_for: float = fields["paused_until"] - task.get_time()
    if paused_for > 0:
        how_long = "" if isinf(paused_for) else f" for {ceil(paused_for)} s"
        parts.append(Text(f"paused{how_long}", style="yellow"))

    return Text(", ").join(parts)


def _jobs_per_second(task: Task) -> float | None:
    """
    Return the average so far, or ``None`` if nothing has ended yet.

    Jobs under a limit come in bursts. Rich's own estimate sees too few of these, and too little of
    each.
    """
    ended = task.completed - task.fields["ended_before"]
    return ended / task.elapsed if ended and task.elapsed else None
