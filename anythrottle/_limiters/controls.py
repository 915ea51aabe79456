"""The limiter's controls and questions: everything that does not wait."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from .._events import Paused, Resumed, Tightened
from .._policies.checks import check_count, check_seconds
from .._policies.policy import Cost, Policy, PolicyState
from .base_limiter import BaseLimiter
from .cost import check_counted, named_amounts
from .line import WaitLine
from .live import Live
from .turn import KeptTurn


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """
    The state of a :class:`RateLimiter` at one instant.

    :ivar int tasks_waiting: how many tasks wait for their turn
    :ivar int borrowed_tokens: how many calls hold a slot (or a charge) while they run
    :ivar float total_tokens: how many may, at most: the concurrency; infinity without one
    :ivar int kept: how many of the calls that hold something go on, by :meth:`.abc.Permit.keep`,
        though their functions have returned
    :ivar float paused_for: for how many seconds the limiter is still paused

    """

    tasks_waiting: int
    borrowed_tokens: int
    total_tokens: float
    paused_for: float
    kept: int = 0


class Controls(Live, BaseLimiter):
    """
    The part of :class:`.LineLimiter` that waits for nothing.

    :param line: the line of tasks that wait for the limiter

    """

    __slots__ = ("_line",)

    def __init__(self, line: WaitLine) -> None:
        self._line = line

    def pause(self, seconds: float | None = None) -> None:
        """
        Hold up, for a while, all calls that have not begun, even if their turns were just granted.

        Calls that run go on. Of overlapping pauses, the later end holds.

        :param seconds: how long, 0 or more, infinity for until :meth:`resume`; ``None`` for the
            shortest window of the policies, 1 second if there is none
        :raises TypeError: if ``seconds`` is no number
        :raises ValueError: if ``seconds`` is negative or NaN

        """
        if seconds is None:
            seconds = min((policy.window for policy in self.policies), default=1.0)

        seconds = check_seconds("seconds", seconds, zero=True, infinite=True)
        line = self._line
        now = line.clock.now()
        line.gate.pause_until(now + seconds)
        line.scheduler.outlook.invalidate()
        line.tell(Paused, line.gate.paused_until - now)

    def resume(self) -> None:
        """End any pause at once."""
        line = self._line
        now = line.clock.now()
        paused = line.gate.resume(now)
        line.serve_anew(now)
        if paused:
            line.tell(Resumed)

    def penalize(self, cost: Cost) -> None:
        """
        Charge a cost at once, due or not, that no call of this limiter was charged for.

        It may be what another process has used of the same budget. If it exceeds the window, later
        calls wait until that is paid back.

        :param cost: how much: calls, 0 or more, or amounts by unit; units that are not named are
            not charged
        :raises TypeError: if ``cost`` is of the wrong type
        :raises ValueError: if ``cost`` is negative or names a unit that the limiter doesn't count

        """
        line = self._line
        amounts = named_amounts(cost, line.gate.units)
        now = line.prepare()
        line.gate.penalize(now, amounts)
        line.serve_anew(now)

    def tighten(
        self, *, remaining: int, reset_after: float | None = None, unit: str = "calls"
    ) -> None:
        """
        Take a server's figures: let at most ``remaining`` pass before its window is over.

        This only ever tightens, and each policy of the unit only within its own window: what is
        longer than that is for :meth:`pause`. What a permit settles or refunds later comes back
        on top, so settle a call first, and then hand on what its answer says.

        :param remaining: how much the server lets pass before the reset, 0 or more, in ``unit``
        :param reset_after: in how many seconds the server counts anew, 0 or more; ``None`` if
            that isn't known: then it is as if what is left above ``remaining`` had been charged
            just now
        :param unit: what ``remaining`` counts
        :raises TypeError: if a parameter is of the wrong type
        :raises ValueError: if a parameter is out of its range, or the limiter does not count
            ``unit``

        """
        check_count("remaining", remaining, least=0)
        if reset_after is not None:
            reset_after = check_seconds("reset_after", reset_after, zero=True, infinite=True)

        line = self._line
        unit = check_counted(unit, line.gate.units)
        now = line.prepare()
        line.gate.tighten(now, remaining, reset_after, unit)
        line.serve_anew(now)
        line.tell(Tightened, unit, remaining, reset_after)

    @property
    def name(self) -> str | None:
        """The name that errors and events call the limiter by; ``None`` if it has none."""
        return self._line.name

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies in force: they stay the same until :meth:`reconfigure`."""
        return self._line.gate.policies

    def quotas(self) -> tuple[PolicyState, ...]:
        """
        Return what each policy has left, in the order of :attr:`policies`.

        Use it for the headers of an answer, say. Calls in line don't count, unlike with
        :meth:`peek`. Asking changes nothing, and costs little however often it is done.
        """
        return self._line.quotas()

    def statistics(self) -> RateLimiterStatistics:
        """Return the state at this instant."""
        line, gate = self._line, self._line.gate
        now = line.clock.peek()
        return RateLimiterStatistics(
            tasks_waiting=len(line.queue),
            borrowed_tokens=len(gate.slots.holders) if gate.holds else 0,
            total_tokens=gate.slots.total,
            paused_for=max(gate.paused_until - now, 0.0),
            kept=sum(isinstance(turn, KeptTurn) for turn in gate.slots.holders),
        )

    def load(self) -> tuple[int, int]:
        """
        Return how many calls wait, and how many hold something; to be asked from any thread.

        Unlike :meth:`statistics`, it lets nothing go that an ended loop still held.
        """
        line, gate = self._line, self._line.gate
        loop = line.clock.latest
        if loop is None or loop.has_ended():
            return 0, 0

        return len(line.queue), len(gate.slots.holders) if gate.holds else 0

    def __repr__(self) -> str:
        statistics = self.statistics()
        name = "" if self._line.name is None else f" {self._line.name!r}"
        parts = [
            f"{p.limit} {p.unit}/{p.window:g}s{' end' if p.holds else ''}"
            for p in self._line.gate.policies
        ]
        if statistics.total_tokens < inf:
            parts.append(f"{statistics.borrowed_tokens}/{statistics.total_tokens:g} at once")

        if statistics.tasks_waiting:
            parts.append(f"{statistics.tasks_waiting} waiting")

        if statistics.paused_for:
            parts.append(f"paused for {statistics.paused_for:.3g}s")

        return f"<{type(self).__name__}{name} {', '.join(parts) or 'without limit'}>"
