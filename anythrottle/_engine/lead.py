"""
Chooses the worker that waits for the next job, the leader; the others run jobs or follow.

The pattern is Leader/Followers: D. C. Schmidt, C. O'Ryan, M. Kircher, I. Pyarali and F. Buschmann,
in "Pattern-Oriented Software Architecture", volume 2, 2000. Here a follower that is woken has no
claim to the lead: a worker that has just ended its job may take the lead before, and then goes on
without waking another.
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

    :ivar is_taken: whether a worker has it; the worker that takes it or gives it up sets this
    :ivar coming: the workers on their way to it: the follower that was woken last, those that the
        worker pool has made, until they have begun, and those that let others run between two jobs

    """

    __slots__ = ("_followers", "_loop", "coming", "is_taken")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self.is_taken = False
        self._followers: dict[Worker, None] = {}
        self.coming: set[Worker] = set()

    async def follow(self, worker: Worker) -> None:
        """Wait until the lead may be free: until this worker is woken."""
        self._followers[worker] = None
        try:
            await self._loop.park(worker)
        finally:
            self._followers.pop(worker, None)
            self.coming.discard(worker)

    def wake_successor(self) -> bool:
        """
        Wake a follower to take the lead, unless another worker comes for it already.

        :return: whether no worker is on its way, because there is no follower

        """
        if self.coming:
            return False

        if not self._followers:
            return True

        successor, _ = self._followers.popitem()
        self.coming.add(successor)
        self._loop.wake(successor)
        return False
