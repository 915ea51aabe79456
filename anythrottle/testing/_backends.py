"""Virtual time for tests: the backends that bring it to AnyIO, and what tests do with it."""

import asyncio
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import current_token

from ._virtual_loop import VirtualEventLoop

if TYPE_CHECKING:
    from ._virtual_trio import VirtualClock


def virtual_backends() -> list[tuple[str, dict[str, object]]]:
    """
    Return AnyIO's backends, each with options that give every run a virtual clock of its own.

    Such a clock starts at 0.0, stands still while anything can run, and then jumps to exactly the
    next timer, so that a test which sleeps for an hour takes a millisecond and every reading of the
    clock in it is exact. While no timer is pending, threads and sockets are waited for in real
    time. A pending timer doesn't wait for them: don't mix threads or real sockets with timeouts.

    The values fit the ``anyio_backend`` fixture of AnyIO's pytest plugin::

        @pytest.fixture(params=virtual_backends(), ids=lambda backend: backend[0])
        def anyio_backend(request):
            return request.param

    and :func:`anyio.run`::

        >>> import anyio
        >>> async def an_hour() -> float:
        ...     await anyio.sleep(3600)
        ...     return anyio.current_time()
        >>> for name, options in virtual_backends():
        ...     print(name, anyio.run(an_hour, backend=name, backend_options=options))
        asyncio 3600.0
        trio 3600.0

    :return: a name and the backend's options for each: asyncio always, Trio if it is installed

    """
    backends: list[tuple[str, dict[str, object]]] = [
        ("asyncio", {"loop_factory": VirtualEventLoop})
    ]
    try:
        from ._virtual_trio import VirtualClock
    except ModuleNotFoundError as error:
        # Anything else that is missing is a defect: without Trio's half, tests would pass unseen.
        if error.name != "trio":
            raise
    else:
        backends.append(("trio", {"clock": VirtualClock()}))

    return backends


async def wait_idle() -> None:
    """
    Wait until every other task is blocked.

    A task that sleeps on a timer counts as blocked, and a virtual clock doesn't move meanwhile (as
    :func:`anyio.wait_all_tasks_blocked` would move it on asyncio). Of several callers, each counts
    as blocked for the others, and all return together. On a clock that isn't virtual, this is
    :func:`anyio.wait_all_tasks_blocked`.

    """
    loop = current_token().native_token
    if isinstance(loop, VirtualEventLoop):
        await loop.wait_idle()
    else:
        await anyio.wait_all_tasks_blocked()


def stall(seconds: float) -> None:
    """
    Set the running event loop's virtual clock ahead at once, as if the loop had hung for that long.

    Nothing runs in between. What has fallen due meanwhile runs late, once the caller waits for
    something.

    :param seconds: how long the stall was, in seconds; 0 or more, finite

    :raises ValueError: if ``seconds`` is negative, infinite or NaN
    :raises RuntimeError: if no event loop is running here, or one whose clock isn't from
        :func:`virtual_backends`

    """
    clock = _running_clock()
    if clock is None:
        raise RuntimeError(
            "only a virtual clock can be set ahead: run this with virtual_backends()"
        )

    clock.advance(seconds)


def _running_clock() -> "VirtualEventLoop | VirtualClock | None":
    """
    Find the virtual clock of the event loop that runs here.

    :return: that clock, or ``None`` if the event loop's clock is another one

    """
    token = current_token().native_token
    if isinstance(token, asyncio.AbstractEventLoop):
        return token if isinstance(token, VirtualEventLoop) else None

    from ._virtual_trio import running_clock

    return running_clock()
