"""When each turn in line will go, if nothing unforeseen happens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import inf
from typing import NamedTuple, TypeAlias, final

from .._policies.bucket import Bucket
from .local_gate import LocalGate
from .max_wait import is_after
from .queue import TurnQueue
from .turn import Turn

#: A place, or one that lies between places.
Bound: TypeAlias = tuple[float, float]

#: Before and behind all places.
_FIRST: Bound = (-inf, -inf)
_LAST: Bound = (inf, inf)

#: With at least so many buckets, it matters which one makes a turn wait longest.
_SEVERAL = 2

#: After how many turns a state is marked.
_GAP = 32


class Answer(NamedTuple):
    """
    When a newcomer will go.

    :ivar due: the instant at which it may go; infinity if that is unknown
    :ivar delays: for how long each bucket will make it wait when it is the next
    :ivar inserted: how many turns, at most, have joined before it that were left out of account
    :ivar left: how many turns, at most, have left before it that were taken into account

    """

    due: float
    delays: list[float]
    inserted: int
    left: int


@final
class Forecast:
    """
    The buckets of a gate as they will be when some of the turns in line have passed.

    Slots are left out: how long calls take is unknown.

    :ivar buckets: copies of the gate's
    :ivar instant: when the last one of these turns will have passed

    """

    __slots__ = ("buckets", "instant")

    def __init__(self, buckets: list[Bucket], instant: float) -> None:
        self.buckets = buckets
        self.instant = instant

    @classmethod
    def of(cls, gate: LocalGate, now: float, *, ended: bool = False) -> Forecast:
        """
        Return the buckets as they are when no turn has passed yet.

        :param ended: whether to assume that calls end as soon as they can; else it is unknown when

        """
        buckets = [bucket.ahead(now, ended=ended) for bucket in gate.buckets]
        return cls(buckets, max(now, gate.paused_until))

    def copy(self) -> Forecast:
        """Return a copy from which to go on."""
        return Forecast([bucket.ahead(self.instant) for bucket in self.buckets], self.instant)

    def delays(self, amounts: Sequence[int]) -> list[float]:
        """Return how long each bucket will make the next turn wait, from ``instant`` on."""
        charges = zip(self.buckets, amounts, strict=True)
        return [bucket.delay(self.instant, amount) if amount else 0.0 for bucket, amount in charges]

    def answer(self, amounts: Sequence[int], inserted: int = 0, left: int = 0) -> Answer:
        """Return when the next turn may go."""
        delays = self.delays(amounts)
        return Answer(self.instant + max(delays, default=0.0), delays, inserted, left)

    def gives_up(self, turn: Turn) -> bool:
        """Return whether a turn, as the next one, will have given up before it may pass."""
        if turn.latest == inf:
            return False

        due = self.instant + max(self.delays(turn.amounts), default=0.0)
        return due < inf and is_after(due, turn.latest)

    def go_on_without(self, turn: Turn) -> None:
        """Pass the next turn over, which gives up: the turns behind it have to wait for that."""
        self.instant = max(self.instant, turn.latest)

    def pass_by(self, turn: Turn) -> None:
        """Simulate the next turn, whether it passes or gives up."""
        if self.gives_up(turn):
            self.go_on_without(turn)
        else:
            self.add(turn.amounts)

    def add(self, amounts: Sequence[int]) -> list[float]:
        """Add one more turn to those that pass; return for how long each bucket makes it wait."""
        delays = self.delays(amounts)
        self.instant = instant = self.instant + max(delays, default=0.0)
        for bucket, amount in zip(self.buckets, amounts, strict=True):
            if amount and instant < inf:
                bucket.take(instant, amount)
                bucket.start(instant, amount)

        return delays


@final
class Timetable:
    """
    When the turns in line will go: simulated in their order, as far back as has been asked for.

    While all cost the same, an instant belongs to a rank, whichever turn has it: turns that join or
    leave change nothing. When costs differ, it belongs to a turn: turns that join in between are
    left out of account, turns that leave stay in it, and both are counted. So it is, too, as soon
    as a turn in line is found that will have given up before it may go.

    For a newcomer in the middle, the simulation goes on from a copy of the nearest state before it
    that was marked.

    :param gate: the gate
    :param queue: the turns in line, of which there is one at least
    :param now: the present instant
    :param ended: whether to assume that calls end as soon as they can; else it is unknown when
    :param marked: whether to mark states: else there is no answer for most places in the middle

    """

    __slots__ = (
        "_amounts",
        "_count",
        "_delays",
        "_end",
        "_inserted",
        "_inserted_from",
        "_instants",
        "_left",
        "_left_from",
        "_marks",
        "_origin",
        "_places",
        "_queue",
        "_reached",
        "_without",
        "ended",
        "events",
        "late",
        "made",
        "marked",
    )

    def __init__(
        self, gate: LocalGate, queue: TurnQueue, now: float, *, ended: bool, marked: bool
    ) -> None:
        self._queue = queue
        self.made = now
        self.ended = ended
        self.marked = marked
        #: By how much grants were late since the timetable was made, in all.
        self.late = 0.0
        #: How often a turn has joined or left, or a question was asked, since then.
        self.events = 0
        #: The state behind the last turn that was simulated.
        self._end = Forecast.of(gate, now, ended=ended)
        #: How many turns were simulated, without those that have been forgotten.
        self._count = 0
        amounts = queue.blocks[0][0].amounts
        alike = all(turn.amounts == amounts for block in queue.blocks for turn in block)
        #: What each turn costs; ``None`` when they differ.
        self._amounts: Sequence[int] | None = amounts if alike else None
        #: While all cost the same: how many had gone before the first of them, when each will go,
        #: and for how long each bucket makes the last of them wait.
        self._origin = queue.popped
        self._instants: list[float] = []
        self._delays: list[float] = []
        #: When costs differ: the place of the last turn that was simulated.
        self._reached: Bound = _FIRST
        #: The states after every few turns; when costs differ, others between them as well, and the
        #: places of the last turns that have passed.
        self._marks: list[Forecast] = []
        self._places: list[Bound] = []
        #: How many turns have joined or left where it was simulated, and their first places.
        self._inserted = self._left = 0
        self._inserted_from = self._left_from = _LAST
        #: When costs differ: the turns that will have given up.
        self._without: set[Turn] = set()

    @property
    def covered(self) -> int:
        """How many ranks were simulated; 0 or less if all their turns have gone."""
        if self._amounts is None:
            return self._queue.rank(self._reached)

        return self._count - self._passed

    @property
    def _passed(self) -> int:
        return self._queue.popped - self._origin

    def answer(self, amounts: Sequence[int], priority: float, ahead: int) -> Answer | None:
        """
        Return when a newcomer will go.

        :param ahead: how many turns go before it
        :return: ``None`` if there is no state to start from

        """
        covered = self.covered
        if covered <= 0 < self._count:
            return None

        if self._amounts is None:
            return self._by_place(amounts, covered, priority, ahead)

        return self._by_rank(amounts, priority, ahead)

    def note_newcomer(self, turn: Turn) -> bool:
        """Note that a turn is about to join the line; return whether this table is still of use."""
        self.events += 1
        if turn.amounts == self._amounts:
            return True

        if self._amounts is not None and not self._differ():
            return False

        place = turn.place
        if place < self._reached:
            self._inserted += 1
            self._inserted_from = min(self._inserted_from, place)
        elif self._queue.blocks[-1][-1].place <= self._reached:
            # It goes behind the last turn, so it need not be looked up later.
            self._append(turn)

        return True

    def note_leaving(self, turn: Turn) -> None:
        """Note that a turn has left the line."""
        self.events += 1
        place = turn.place
        if turn in self._without:
            self._without.remove(turn)
        elif self._amounts is None and place <= self._reached:
            self._left += 1
            self._left_from = min(self._left_from, place)

    def _by_rank(self, amounts: Sequence[int], priority: float, ahead: int) -> Answer | None:
        """Answer while all turns in line cost the same."""
        assert self._amounts is not None
        if self._passed * 2 > self._count:
            self._forget_passed()

        rank = self._passed + ahead
        for turn in self._queue.ranked(self.covered, ahead):
            if self._end.gives_up(turn):
                self._differ()
                return self._by_place(amounts, self.covered, priority, ahead)

            if self._end.instant < inf:
                self._add(self._amounts)

        same = amounts == self._amounts
        # If the newcomer costs the same, one more turn stands for it.
        if self._count == rank and same and self._end.instant < inf:
            self._add(self._amounts)

        if rank >= self._count:
            return self._end.answer(amounts)

        if same and (rank == self._count - 1 or len(self._delays) < _SEVERAL):
            return Answer(self._instants[rank], self._delays, 0, 0)

        if not self._marks:
            return None

        forecast = self._marks[rank // _GAP].copy()
        for _ in range(rank % _GAP):
            forecast.add(self._amounts)

        return forecast.answer(amounts)

    def _by_place(
        self, amounts: Sequence[int], covered: int, priority: float, ahead: int
    ) -> Answer | None:
        """Answer when costs differ."""
        if covered < ahead and self._end.instant < inf:
            for turn in self._queue.ranked(covered, ahead):
                self._append(turn)

        if covered <= ahead:
            return self._accounted(self._end, amounts, self._reached)

        index = bisect_left(self._places, (priority, inf)) - 1
        base = self._places[index] if index >= 0 else _FIRST
        start = self._queue.rank(base)
        if not start:
            # Some of the turns behind the mark may have gone.
            return None

        forecast = self._marks[index].copy()
        turns = self._queue.ranked(start, ahead)
        for turn in turns:
            forecast.pass_by(turn)

        if len(turns) > _GAP and forecast.instant < inf:
            # So many turns have joined here.
            self._marks.insert(index + 1, forecast)
            self._places.insert(index + 1, turns[-1].place)

        return self._accounted(forecast, amounts, base)

    def _accounted(self, forecast: Forecast, amounts: Sequence[int], base: Bound) -> Answer:
        """Answer from a state that was foreseen with the turns up to a place as they were then."""
        inserted = self._inserted if base >= self._inserted_from else 0
        left = self._left if base >= self._left_from else 0
        return forecast.answer(amounts, inserted, left)

    def _add(self, amounts: Sequence[int]) -> None:
        """Simulate one more turn."""
        self._count_one()
        self._delays = self._end.add(amounts)
        if self._amounts is not None:
            self._instants.append(self._end.instant)

    def _append(self, turn: Turn) -> None:
        """Simulate the turn behind the last one that was simulated, when costs differ."""
        if self._end.gives_up(turn):
            self._count_one()
            self._end.go_on_without(turn)
            self._without.add(turn)
            self._reached = turn.place
        elif self._end.instant < inf:
            self._add(turn.amounts)
            self._reached = turn.place

    def _count_one(self) -> None:
        """Count one more turn that is simulated; mark the state before it if it is time to."""
        if self.marked and self._count % _GAP == 0:
            self._marks.append(self._end.copy())
            if self._amounts is None:
                self._forget_gone()
                self._places.append(self._reached)

        self._count += 1

    def _differ(self) -> bool:
        """Go over from ranks to turns, because these differ; return whether that is possible."""
        covered = self.covered
        if not self._count:
            self._amounts = None
            return True

        if not 0 < covered <= len(self._queue):
            return False

        turns = self._queue.ranked(0, covered)
        passed = self._passed
        useless = passed // _GAP + 1
        del self._marks[:useless]
        if self.marked:
            behind = range(_GAP * useless - passed - 1, covered - 1, _GAP)
            self._places = [turns[index].place for index in behind]

        self._reached = turns[-1].place
        self._amounts = None
        self._instants = []
        return True

    def _forget_passed(self) -> None:
        """Forget the ranks that have passed, while all turns in line cost the same."""
        marks = self._passed // _GAP
        del self._marks[:marks]
        del self._instants[: marks * _GAP]
        self._count -= marks * _GAP
        self._origin += marks * _GAP

    def _forget_gone(self) -> None:
        """Forget the marks from before the first in line, when costs differ."""
        gone = bisect_left(self._places, self._queue.blocks[0][0].place)
        del self._marks[:gone]
        del self._places[:gone]
