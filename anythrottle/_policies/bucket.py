"""The state of a policy: what a bucket must do, may do, and says of itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import floor
from types import FunctionType, MethodType
from typing import Literal, Protocol, Self, TypeAlias, TypeGuard, cast, final

#: Under which circumstances more charges can only make those after them wait longer.
Monotone: TypeAlias = Literal["always", "alone", "never"]


class Bucket(Protocol):
    """
    The state of one policy. It decides with the time passed in, and never waits.

    A charge has up to three stations: :meth:`take` holds it, :meth:`start` says that the call
    begins, :meth:`release` that it has ended. What is held counts at every instant, so nothing
    that happens between the stations can crowd a window. Times are seconds of any one clock.

    Charges for which :meth:`delay` was not asked (a correction, a penalty) may drive the bucket
    into debt; then later calls wait until that is paid back.

    A class that is derived from this one has to have :attr:`capacity`, :meth:`delay`,
    :meth:`take`, :meth:`start`, :meth:`give_back`, :meth:`shift`, :meth:`forget_held` and
    :meth:`ahead`. The rest it inherits, and overrides what it can do better.
    """

    __slots__ = ()

    quick: bool = False
    """
    Whether no method takes longer than a few microseconds, nor calls anything that might.

    Buckets that are not quick start a call before those that are, so that the instant from which
    an exact window counts is the one at which the call begins.
    """

    uses_since: bool = True
    """Whether :meth:`take` makes use of ``since``; if none does, it is not computed."""

    exact_history: bool = False
    """Whether :meth:`history` tells the latest charges one by one, not several as one."""

    monotone: Monotone = "never"
    """
    Whether one more charge, or a later one, can only make those after it wait longer.

    ``"alone"``: if a limiter has no other policy. Then a call that waits with a
    bound is refused sooner.
    """

    @property
    @abstractmethod
    def capacity(self) -> float:
        """The most that can be charged at once."""
        ...

    @abstractmethod
    def delay(self, now: float, cost: int) -> float:
        """
        Return how long ``cost`` has to wait. Asking changes nothing.

        :return: seconds: 0 if it may go now, infinity if not before something is given back or
            released, else it is due exactly at ``now + delay`` if no call comes in between

        """
        ...

    def take_free(self, cost: int) -> bool:
        """
        Hold ``cost`` if there is room for it whatever the time is; return whether it was held.

        By default it never is: the clock is asked first.
        """
        return False

    @abstractmethod
    def take(self, now: float, cost: int, since: float | None = None) -> None:
        """
        Hold ``cost``, which :meth:`delay` has found to be due, or which has to be held anyway.

        :param since: the instant at which it has fallen due, if that was before ``now``: a
            call that waited may be credited from then on, because a late timer shall cost no rate

        """
        ...

    @abstractmethod
    def start(self, now: float, cost: int) -> float:
        """
        Begin the call that holds ``cost``.

        :return: the receipt for :meth:`give_back`: the instant at which the charge comes back

        """
        ...

    def release(self, now: float, cost: int, receipt: float) -> float:
        """
        End the call that was charged ``cost``; by default that changes nothing.

        :param receipt: what :meth:`start` returned
        :return: the receipt from now on

        """
        return receipt

    @abstractmethod
    def give_back(self, now: float, cost: int, receipt: float | None) -> None:
        """
        Undo a charge: what is still out comes back at once, what has come back stays so.

        :param receipt: the latest receipt; ``None`` for a call that has not begun

        """
        ...

    def give_back_held(self, now: float, costs: Sequence[int]) -> None:
        """
        Undo the charges of all calls that have not begun, which go again at once if they may.

        By default each is given back.
        """
        for cost in costs:
            self.give_back(now, cost, None)

    def tighten(self, now: float, remaining: int, reset_after: float | None) -> None:
        """
        Allow at most ``remaining`` to be taken before ``reset_after`` seconds have passed.

        It only ever tightens: where less is left already, that stays so. By default what is left
        above ``remaining`` is charged now, and comes back as charges do, sooner or later.

        :param reset_after: seconds; more than the policy's window counts as the window. ``None``:
            as if what is left above ``remaining`` had been charged just now

        """
        excess = self.remaining(now) - remaining
        if excess > 0:
            self.take(now, excess)
            self.release(now, excess, self.start(now, excess))

    def remaining(self, now: float) -> int:
        """
        Return how much could be taken at this instant, 0 or more.

        By default that is found by asking :meth:`delay`, a few times.
        """
        least, most = 0, floor(self.capacity)
        while least < most:
            middle = (least + most + 1) // 2
            if self.delay(now, middle) > 0:
                most = middle - 1
            else:
                least = middle

        return least

    def reset_after(self, now: float) -> float:
        """
        Return the seconds until the bucket is full again, if nothing more is taken.

        By default that is when as much as the capacity would be due.
        """
        return self.ahead(now, ended=True).delay(now, floor(self.capacity))

    def left(self, now: float) -> tuple[int, float, float]:
        """
        Return what is left: :meth:`remaining`, the delay of one more, and :meth:`reset_after`.

        The delay is 0 if no more than that can be charged at once.
        """
        remaining = self.remaining(now)
        more = self.delay(now, remaining + 1) if remaining + 1 <= self.capacity else 0.0
        return remaining, more, self.reset_after(now)

    def drop_due(self, now: float) -> None:
        """Forget what has come back by ``now``; nothing that can be asked later changes by it."""
        return

    def history(self, now: float) -> list[tuple[float, int]]:
        """
        Return what a successor has to know: when how much was charged, the earliest first.

        Calls that have begun count, not what is held, and those whose charge has come back count
        too. Instants may be later than they were, never earlier. By default all that is missing
        was charged just now.

        """
        missing = floor(self.capacity) - self.remaining(now)
        return [(now, missing)] if missing else []

    def forgive(self, now: float, until: float) -> bool:
        """
        Forgive the debt that would be left after the instant ``until``; return whether any would.

        A policy under which a debt cannot outlast the window in which it was made forgives
        nothing, nor does one by default.

        """
        return False

    @abstractmethod
    def shift(self, seconds: float) -> None:
        """Move every instant that is remembered: the clock has been exchanged."""
        ...

    @abstractmethod
    def forget_held(self) -> None:
        """Drop all that is held: the calls that held it are gone."""
        ...

    @abstractmethod
    def ahead(self, now: float, *, ended: bool = False) -> Bucket:
        """
        Return a copy for forecasting, in which the calls that are due to begin begin now.

        :param ended: whether the calls that run end now, too

        """
        ...


class WallClockBucket(Bucket, Protocol):
    """A bucket that goes by UTC, which it has to be told."""

    __slots__ = ()

    @abstractmethod
    def set_utc(self, now: float, utc: float) -> None:
        """
        Take note that UTC is ``utc``, in seconds since the epoch, at the instant ``now``.

        This may be called before each question, and UTC may have jumped since.
        """
        ...


class LevelBucket(Bucket, Protocol):
    """
    A bucket that can begin where another one of its kind stands.

    Otherwise a bucket that comes by ``reconfigure()`` is charged what the other one's
    :meth:`~Bucket.history` tells.
    """

    __slots__ = ()

    @abstractmethod
    def unlikeness(self, old: Bucket) -> tuple[float, ...] | None:
        """
        Return how unlike another bucket is: of several, the one with the least is succeeded.

        :return: ``None`` if this one cannot begin where that one stands

        """
        ...

    @abstractmethod
    def succeed(self, old: Self, now: float, told: list[tuple[float, int]]) -> bool:
        """
        Begin where another bucket stands, in whose place this one comes.

        :param old: one that :meth:`unlikeness` returned a number for
        :param told: what a successor of this one has to know, as :meth:`~Bucket.history` returns it
        :return: whether some of its debt was forgiven: then nothing more of that comes back

        """
        ...

    def receipt_of(self, old: Self, now: float, receipt: float) -> float:
        """
        Return the receipt here for a charge of a bucket that this one succeeds.

        By default it is the same.
        """
        return receipt


def goes_by_utc(bucket: Bucket) -> TypeGuard[WallClockBucket]:
    """Return whether a bucket has to be told what UTC is."""
    return hasattr(bucket, "set_utc")


def has_level(bucket: Bucket) -> TypeGuard[LevelBucket]:
    """Return whether a bucket may begin where another one stands."""
    return hasattr(bucket, "unlikeness")


def complete(bucket: object) -> Bucket:
    """
    Return a bucket that has everything, be it derived from :class:`Bucket` or not.

    :raises TypeError: if it lacks something for which there is no default

    """
    if Bucket in type(bucket).__mro__:
        return cast("Bucket", bucket)

    for name, member in vars(Bucket).items():
        if getattr(member, "__isabstractmethod__", False) and not hasattr(bucket, name):
            raise TypeError(
                "a policy's bucket() must return an anythrottle.abc.Bucket, "
                f"not {bucket!r}, which has no {name}"
            )

    return cast("Bucket", _Completed(bucket))


@final
class _Completed:
    """A bucket that is not derived from :class:`Bucket`, with the defaults of what it lacks."""

    __slots__ = ("_bucket", "quick")

    def __init__(self, bucket: object) -> None:
        self._bucket = bucket
        # Not what it passes on from another bucket inside of it.
        self.quick: bool = getattr(type(bucket), "quick", False)

    def __getattr__(self, name: str) -> object:
        try:
            return cast("object", getattr(self._bucket, name))
        except AttributeError:
            default = vars(Bucket).get(name)
            if default is None:
                raise

        return MethodType(default, self) if isinstance(default, FunctionType) else default
