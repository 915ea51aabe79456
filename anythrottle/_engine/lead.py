"""
Chooses the worker that waits for the next job, the leader; the others run jobs, or follow.

The pattern is Leader/Followers: D. C. Schmidt, C. O'Ryan, M. Kircher, I. Pyarali and F. Buschmann,
in "Pattern-Oriented Software Architecture", volume 2, 2000. Here a follower that is woken has no
claim to the lead: a worker that has just ended its job may take it before, and so goes on without
having had to wake another.
"""

from __future__ import annotations

from typing import final

from .._loops.event_loop import EventLoop
from .admission import Worker


@final
class Lead:
    """
    The lead among the workers of one run, taken by one worker at a time.

    :param loop: the event loop

    :ivar is_taken: whether a worker has it

    """

    __slots__ = ("_beginners", "_followers", "_loop", "_successor", "is_taken")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.is_taken = False
        #: The workers that wait for the lead, and the one that has been woken to take it.
        self._followers: dict[Worker, None] = {}
        self._successor: Worker | None = None
        #: How many workers have been made and have not begun yet: these come by themselves.
        self._beginners = 0

    def expect_beginner(self) -> None:
        """Note that a worker has been made."""
        self._beginners += 1

    def note_beginner(self) -> None:
        """Note that a worker that was made has begun, or never will."""
        self._beginners -= 1

    def take(self) -> None:
        """Take the lead, which is free."""
        self.is_taken = True

    def give_up(self) -> None:
        """Give the lead up."""
        self.is_taken = False

    async def follow(self, worker: Worker) -> None:
        """Wait until the lead may be free."""
        self._followers[worker] = None
        try:
            await self._loop.park(worker)
        finally:
            if self._successor is worker:
                self._successor = None
            else:
                del self._followers[worker]

    def wake_successor(self) -> bool:
        """
        Wake a follower to take the lead, unless another worker comes for it already.

        :return: whether no worker will come, because there is no follower

        """
        if self._successor is not None or self._beginners:
            return False

        if not self._followers:
            return True

        self._successor, _ = self._followers.popitem()
        self._loop.wake(self._successor)
        return False
