"""
The only place where a task waits its turn: it parks and wakes tasks, and tells the observer.

Only the head of the line sleeps, or waits for a slot of a capacity limiter that is shared with
others. All other turns are parked, without a timer (a ``max_wait`` apart). No ``await`` stands
between looking at the state and parking. Which turn is granted is the scheduler's matter.

A call begins in three steps: its turn is held, then the observer is told, then, after a last
look, the instant is read from which on the call counts. No code of a user's own runs after that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import final

from .._errors import LimitExceeded
from .._events import Abandoned, Event, Granted, Observer, Refused, tell
from .._loops.clock import LoopClock, weakly
from .._loops.event_loop import EventLoop
from .._policies.policy import Cost, Decision, PolicyState
from .head import Head
from .holding import is_inside, waiting_for_slots
from .max_wait import MaxWait, is_after, latest_turn
from .scheduling import Scheduler
from .turn import Turn


@final
class WaitLine:
    """
    The line of tasks before a gate.

    :param scheduler_of: returns the scheduler, given the line's clock
    :param name: the limiter's name
    :param observer: the function that is told of events

    """

    __slots__ = ("__weakref__", "_head", "clock", "gate", "name", "observer", "queue", "scheduler")

    def __init__(
        self,
        scheduler_of: Callable[[LoopClock], Scheduler],
        name: str | None,
        observer: Observer | None,
    ) -> None:
        owner = "the limiter" if name is None else f"the limiter {name!r}"
        self.clock = LoopClock(weakly(self._change_loops), owner)
        self.scheduler = scheduler_of(self.clock)
        self.gate = self.scheduler.gate
        self.queue = self.scheduler.queue
        self.name = name
        self.observer = observer
        #: Made when a task waits for the first time.
        self._head: Head | None = None

    async def wait(
        self,
        turn: Turn,
        *,
        fast: bool,
        max_wait: MaxWait = None,
        newcomer: bool = True,
        begins: bool = True,
        due: float = inf,
    ) -> float:
        """
        Wait until ``turn``, which has its place, has been granted, and let its call begin.

        :param fast: whether a turn that is due at once shall not be a checkpoint
        :param max_wait: how long to wait at most
        :param newcomer: whether the turn may be refused because too many wait already
        :param begins: whether the call begins; else the turn is only held, for :func:`.begin_call`
        :param due: when the turn will be due, if the line is empty and the gate has just been asked
            on its behalf: then it knows its loop already, and when it came
        :return: how long the turn has waited, in seconds
        :raises ~anythrottle.LimitExceeded: if the turn would have to wait too long, or for too many

        """
        if due == inf or turn.loop is None:
            turn.loop = self.clock.loop()
            turn.came = turn.loop.time()

        loop, arrived = turn.loop, turn.came
        now = arrived
        patient = max_wait is None
        alone = False
        try:
            if self._arrive(turn, now, max_wait, newcomer=newcomer, due=due) and not fast:
                await loop.checkpoint()
                if loop.suspect is not None and loop.is_alarmed():
                    await loop.look()

                now = loop.time()
                alone = self.scheduler.arrivals == turn.place[1]

            while loop is self.clock.latest:
                if not (turn.granted and self.gate.may_start(turn, now)):
                    fast = alone = False
                    await self._next_change(turn, loop, now, patient=patient)
                elif self.observer is not None and not turn.told:
                    self.tell_granted(turn, now - arrived)
                else:
                    return (self.start(turn, now, alone=alone) if begins else now) - arrived

                # No loop cancels a task that has been woken: the task has to look by itself.
                if (turn.granted and not fast) and (
                    (loop.suspect is not None and loop.is_alarmed()) or loop.deadline() == -inf
                ):
                    await loop.look()

                now = loop.time()
                if now >= turn.give_up:
                    self._check_max_wait(turn, loop, now)
        except BaseException as exc:
            self._break_off(turn, exc, arrived)
            raise

        # Another loop has used the limiter while this one stood still, and what was granted here
        # was let go then.
        turn.granted = turn.in_line = turn.told = False
        turn.amounts = self.gate.amounts(turn.cost)
        return await self.wait(turn, fast=True, newcomer=False, begins=begins)

    def _break_off(self, turn: Turn, error: BaseException, arrived: float) -> None:
        """Take a turn out whose task is refused, is cancelled, or ends with an error."""
        self.leave(turn)
        # It is raised now, and its traceback leads here.
        turn.error = None
        if not isinstance(error, Exception):
            self.tell(Abandoned, turn.cost, self.clock.estimate() - arrived)

    def _arrive(
        self, turn: Turn, now: float, max_wait: MaxWait, *, newcomer: bool, due: float
    ) -> bool:
        """Grant a turn that is due, or put it in line; return whether it is granted."""
        scheduler = self.scheduler
        latest = inf
        if max_wait is not None:
            latest, turn.give_up = latest_turn(max_wait, now)
            turn.latest = latest

        if turn.in_line and latest < inf:
            # The call goes again, and is in line for that; but perhaps it cannot go in time.
            scheduler.withdraw(turn)

        if turn.in_line or turn.granted or turn.error is not None:
            return turn.granted

        if scheduler.due <= now:
            self.serve(now)

        turn.due = due
        if due < inf or not scheduler.try_now(turn, now):
            shed = None
            if max_wait is not None or scheduler.max_waiting < inf:
                shed = self._make_room(turn, now, latest, newcomer=newcomer)

            scheduler.join(turn)
            if latest < inf and self.gate.answers_later:
                self.gate.await_answer(turn, latest)
                # One answer is waited for even by a call that must go at once.
                turn.give_up = inf if latest <= now else turn.give_up

            if shed is not None:
                # Only now that all is in order, because the observer may change the limiter.
                self.tell(Refused, *shed)

        return turn.granted

    def _make_room(
        self, turn: Turn, now: float, latest: float, *, newcomer: bool
    ) -> tuple[Cost, Decision] | None:
        """
        Refuse a turn that would wait too long for sure, or one turn if too many would wait.

        :return: what to tell of another turn that was refused: its cost, and why
        """
        refused = self.scheduler.one_too_many(turn, now, latest, newcomer=newcomer)
        if refused is turn:
            try:
                raise self.refuse(turn, now)
            finally:
                self.serve(now)

        if refused is None:
            return None

        decision = self.scheduler.decide(refused, now)
        self.dismiss(refused, LimitExceeded(decision, self.quotas()))
        return refused.cost, decision

    def dismiss(self, turn: Turn, error: Exception) -> None:
        """Take a turn that will never be granted out of the line, with an error."""
        self.scheduler.dismiss(turn, error)
        turn.wake()
        self.stop_seeking(turn)

    def _next_change(
        self, turn: Turn, loop: EventLoop, now: float, *, patient: bool
    ) -> Awaitable[object]:
        """Wait until something may have changed for a turn that may not go."""
        if turn.error is not None:
            # The turn can never be granted any more, because the limiter was reconfigured.
            raise turn.error

        if turn.granted:
            # A pause has begun between the grant and now.
            self.call_back(turn, now)

        if patient and self.gate.holds and is_inside():
            return self._change_inside(turn, loop, now)

        if self.queue.head is turn:
            head = self._head = self._head or Head(self.scheduler)
            return head.watch(turn, loop, now, self.serve)

        return loop.park(turn) if turn.give_up == inf else loop.park_until(turn, turn.give_up)

    async def _change_inside(self, turn: Turn, loop: EventLoop, now: float) -> None:
        """
        Wait for a change inside of jobs, and count as waiting inside of them.

        :raises RuntimeError: if all that could be let go is held by jobs that wait for it as well
        """
        gate = self.gate
        with waiting_for_slots(gate.slots, stuck=gate.is_stuck(turn.amounts, now)):
            await self._next_change(turn, loop, now, patient=False)

    def _check_max_wait(self, turn: Turn, loop: EventLoop, now: float) -> None:
        """Raise if a turn in line has waited for as long as it may."""
        if turn.in_line and loop is self.clock.latest:
            # Perhaps the turn is due just now.
            self.serve(now)
            if turn.granted:
                return

            due = self.scheduler.due
            if self.queue.head is turn and not is_after(due, now):
                # Or almost now: sums of floats differ with the order in which they are made.
                turn.give_up = due
                return

            self.leave(turn)
            raise self.refuse(turn, now)

    def start(self, turn: Turn, now: float, *, alone: bool = False) -> float:
        """
        Begin the call of a turn that is held.

        :param alone: whether no other turn has come since, which may be at the same point
        :return: the instant from which on the call counts
        """
        if self.gate.slow:
            self.gate.start_slow(turn, now)
            now = self.clock.estimate()

        if turn.loop is not None:
            if not alone:
                turn.loop.note_actor()

            if self.gate.holds:
                turn.task_id = id(turn.loop.task())

        self.scheduler.start(turn, now)
        if self.queue.head is not None:
            self.look_again(now)

        return now

    def look_again(self, now: float) -> None:
        """Serve the line, now that a call has begun, if the head waits for what such calls hold."""
        if self.scheduler.due < inf or self.gate.answers_later:
            return

        head = self.queue.head
        if self.gate.slow and head is not None:
            # Slow buckets are not asked here, because the call has begun.
            self.scheduler.expect_head(now)
            head.wake()
        else:
            self.serve(now)

    def call_back(self, turn: Turn, now: float) -> None:
        """Put a granted turn, whose call has not begun, back into its place in line."""
        self.scheduler.call_back(turn, now)
        self.serve(now)

    def leave(self, turn: Turn) -> None:
        """Take a turn out of the line, or hand on what it was granted."""
        if turn.loop is self.clock.latest:
            now = self.clock.estimate()
            if self.scheduler.leave(turn, now):
                # Even if it was not the head, because its task may have watched the clock.
                self.serve(now)

    def serve(self, now: float, spare: object = None, *, watcher: Turn | None = None) -> None:
        """
        Grant all turns that are due, and make the new head watch the clock.

        :param spare: what a shared slot has been borrowed for already
        :param watcher: the head, if it is its task that looks

        """
        woken, due = self.scheduler.grant_due(now, spare)
        for turn in woken:
            if turn.parked is not None:
                turn.wake()

            if turn.error is not None:
                self.stop_seeking(turn)

        if woken and woken[-1] is not watcher and self.clock.latest is not None:
            # The current task may fail in this step, and the woken ones may be of its task group.
            self.clock.latest.note_actor()

        head = self.queue.head
        if head is None or head.parked is None:
            # A head that is awake looks by itself.
            return

        if self._head is None or self._head.must_wake(head, due):
            head.wake()

    def serve_anew(self, now: float) -> None:
        """Serve the line, now that something has happened that could not be foreseen."""
        self.scheduler.outlook.invalidate()
        self.serve(now)

    def catch_up(self, now: float) -> None:
        """Grant the turns that have fallen due, before something else is done to the line."""
        if self.scheduler.due <= now:
            self.serve(now)

    def prepare(self) -> float:
        """Catch up, because something is about to be changed; return the present instant."""
        now = self.clock.now()
        self.catch_up(now)
        if self.queue.head is None:
            self.gate.notice(now)

        return now

    def wake_all(self) -> None:
        """Wake all tasks in line: some may wait now for what they hold themselves."""
        for turn in self.queue.ahead_of():
            turn.wake()

    def recount(self) -> None:
        """Compute anew what the turns in line cost; wake those that can never be granted now."""
        for turn in self.scheduler.recount():
            turn.wake()
            self.stop_seeking(turn)

    def stop_seeking(self, turn: Turn | None = None) -> None:
        """Seek a slot of a capacity limiter no longer: at all, or on behalf of a turn."""
        if self._head is not None:
            self._head.stop_seeking(turn)

    def quotas(self) -> tuple[PolicyState, ...]:
        """Return what each policy has left."""
        loop = self.clock.latest
        if loop is not None and loop.is_current():
            return self.gate.quotas(loop.time(), here=True)

        return self.gate.quotas(self.clock.peek(), here=False)

    def refuse(self, turn: Turn, now: float) -> LimitExceeded:
        """Return the error of a turn that would have to wait but may not; tell the observer."""
        decision = self.scheduler.decide(turn, now)
        self.tell(Refused, turn.cost, decision)
        return LimitExceeded(decision, self.quotas())

    def tell(self, event: Callable[..., Event], *fields: object) -> None:
        """Send an event, made of the limiter's name and more fields, to the observer if any."""
        if self.observer is not None:
            tell(self.observer, event(self.name, *fields))

    def tell_granted(self, turn: Turn, waited: float) -> None:
        """Report to the observer, which exists, that a turn is granted, and held."""
        assert self.observer is not None
        turn.told = True
        try:
            tell(self.observer, Granted(self.name, turn.cost, waited))
        except BaseException:
            # The error ends the program, and the call does not begin.
            self.leave(turn)
            raise

    def _change_loops(self, shift: float) -> None:
        """Forget what waits and what is held, because another loop with its own clock goes on."""
        for turn in self.scheduler.change_loops(shift):
            # The other loop may be suspended rather than closed, so its waiters are woken.
            turn.wake()

        self._head = None
