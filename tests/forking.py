"""
Programs that fork in the midst of a run: ``python -m tests.forking <backend>``.

They have a process of their own, for one that has threads is not to be forked.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from anythrottle import (
    KeyedLimiter,
    LimitExceeded,
    RateLimiter,
    Throttler,
    WindowTokenBucket,
    create_front_stream,
)
from anythrottle._jobs import JobOf
from anythrottle.testing import virtual_backends, wait_idle

#: How a parent process runs. By asyncio itself, AnyIO sees in a child that no loop runs there.
PARENTS: dict[str, Callable[[Callable[[], Awaitable[None]]], None]] = {
    "native": lambda main: asyncio.run(main()),  # type: ignore[arg-type]
    "asyncio": anyio.run,
    "uvloop": lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
    "trio": lambda main: anyio.run(main, backend="trio"),
    **{
        f"{name}-virtual": lambda main, name=name, options=options: anyio.run(  # type: ignore[misc]
            main, backend=name, backend_options=options
        )
        for name, options in virtual_backends()
    },
}


def fork(child: Callable[[], None]) -> None:
    """Call a function in a forked child; raise here if it raised there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            child()
        except BaseException:  # noqa: BLE001 - nothing must get out
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)

    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        error = pipe.read().decode()

    os.waitpid(pid, 0)
    assert not error, error


def run_anew(main: Callable[[], Awaitable[Any]], backend: str) -> None:
    """Run in a thread: in this one, AnyIO may take the parent's loop for running."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            anyio.run(main, backend=backend)
        except BaseException as exc:  # noqa: BLE001 - raised below
            errors.append(exc)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def run_on_each(main: Callable[[], Awaitable[Any]]) -> None:
    """Run in one run after another, on both backends."""
    for backend in ("asyncio", "trio", "asyncio"):
        run_anew(main, backend)


def run_everywhere(main: Callable[[], Awaitable[Any]]) -> None:
    """
    Run in this thread, by asyncio itself, and in others.

    In a child of Trio nothing in ``main`` must go by AnyIO, which takes that for Trio here.
    """

    async def main_here() -> None:
        await main()

    asyncio.run(main_here())
    run_on_each(main)


def refuses(limiter: RateLimiter) -> bool:
    try:
        limiter.acquire_nowait()
    except LimitExceeded:
        return True

    return False


async def limits() -> None:
    """What the parent has used counts in the child; what the child uses is its own."""
    limiter = RateLimiter("9/h")
    untouched = RateLimiter("9/h")
    await limiter.acquire(2)
    await anyio.sleep(0)

    async def use() -> None:
        for each in (limiter, untouched):
            await each.acquire()
            async with each.permit(0):
                pass

    def child() -> None:
        assert limiter.peek().remaining == 7
        limiter.acquire_nowait()
        untouched.acquire_nowait()
        run_everywhere(use)
        assert limiter.peek().remaining == 2
        assert untouched.peek().remaining == 4
        limiter.acquire_nowait(2)
        assert refuses(limiter)
        assert 3590 <= limiter.peek().retry_after <= 3600.001

    fork(child)
    fork(child)
    assert limiter.peek().remaining == 7
    await limiter.acquire(7)
    assert refuses(limiter)
    assert untouched.peek().remaining == 9


async def windows() -> None:
    """No window is crowded by what passes in parent and child."""
    window = 0.02
    limiter = RateLimiter(WindowTokenBucket(1, window))
    await limiter.acquire()
    taken = time.monotonic()

    async def use() -> None:
        nonlocal taken
        await limiter.acquire()
        now = time.monotonic()
        assert now - taken >= window * 0.9, now - taken
        taken = now

    def child() -> None:
        while refuses(limiter):
            pass

        nonlocal taken
        assert time.monotonic() - taken >= window * 0.9
        taken = time.monotonic()
        run_everywhere(use)

    fork(child)


async def pauses() -> None:
    limiter = RateLimiter()
    limiter.pause(1000)

    async def use() -> None:
        assert 900 < limiter.statistics().paused_for <= 1000.001

    def child() -> None:
        assert refuses(limiter)
        run_everywhere(use)
        limiter.resume()
        limiter.acquire_nowait()

    fork(child)
    assert refuses(limiter)


async def holders() -> None:
    """What calls of the parent hold is let go in the child, and there alone."""
    limiter = RateLimiter(WindowTokenBucket(3, 3600, measure="end"), concurrency=2)

    async def use() -> None:
        async with limiter, limiter.permit(0):
            assert limiter.statistics().borrowed_tokens == 2

    def child() -> None:
        assert limiter.statistics().borrowed_tokens == 0
        assert limiter.peek().remaining == 3
        limiter.reconfigure(WindowTokenBucket(9, 3600, measure="end"))
        run_everywhere(use)
        assert limiter.peek().remaining == 5
        assert limiter.statistics().borrowed_tokens == 0

    async with limiter, limiter.permit(2) as permit:
        fork(child)
        assert limiter.statistics().borrowed_tokens == 2
        permit.refund()
        assert limiter.peek(0).remaining == 2

    assert limiter.statistics().borrowed_tokens == 0


async def waiters() -> None:
    """Who waits in the parent is forgotten in the child, and goes on in the parent."""
    slots, tokens = RateLimiter(concurrency=1), RateLimiter("1/h")
    passed: list[str] = []

    async def call(limiter: RateLimiter, name: str) -> None:
        async with limiter.permit():
            passed.append(name)

    async def use() -> None:
        async with anyio.create_task_group() as task_group:
            for name in "xyz":
                task_group.start_soon(call, slots, name)

    def child() -> None:
        tokens.reconfigure()
        assert tokens.statistics().tasks_waiting == 0
        tokens.acquire_nowait()
        run_on_each(use)
        assert sorted(passed) == sorted("xyz" * 3)
        assert slots.statistics().tasks_waiting == 0

    async with anyio.create_task_group() as task_group:
        await tokens.acquire()
        async with slots.permit():
            for name in "abc":
                task_group.start_soon(call, slots, name)
                task_group.start_soon(call, tokens, f"late {name}")
                await wait_idle()

            fork(child)
            await wait_idle()
            assert not passed
            assert slots.statistics().tasks_waiting == tokens.statistics().tasks_waiting == 3

        await wait_idle()
        assert passed == ["a", "b", "c"]
        tokens.reconfigure()

    # Of those that were woken in one step, Trio may let any go first.
    assert sorted(passed[3:]) == ["late a", "late b", "late c"]


async def children_of_children() -> None:
    limiter = RateLimiter("100/h", concurrency=1)

    async def use() -> None:
        async with limiter:
            fork(grandchild)
            assert limiter.statistics().borrowed_tokens == 1

    async def use_again() -> None:
        async with limiter:
            pass

    def grandchild() -> None:
        assert limiter.statistics().borrowed_tokens == 0
        run_everywhere(use_again)

    def child() -> None:
        fork(grandchild)

        async def main() -> None:
            await use()

        # In this thread alone: one more must not be there when it forks.
        asyncio.run(main())

    async with limiter:
        fork(child)
        assert limiter.statistics().borrowed_tokens == 1


def between_runs(parent: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    """As of a server that is set up in a run of its own, and then makes its workers."""
    limiter = RateLimiter("9/h", concurrency=1)

    async def use() -> None:
        async with limiter:
            pass

    parent(use)
    fork(lambda: run_everywhere(use))
    parent(use)
    assert limiter.peek().remaining == 7


async def keys() -> None:
    keyed = KeyedLimiter[str, RateLimiter](lambda _: RateLimiter("1/h", concurrency=1), max_keys=2)

    async def use() -> None:
        assert not keyed["a"].peek().allowed
        assert len(keyed) == 2
        async with keyed["b"].permit(0):
            pass

    def child() -> None:
        keyed["b"].reconfigure("9/h")
        run_everywhere(use)
        try:
            keyed["c"]
        except LimitExceeded:
            return

        raise AssertionError("a busy key was dropped")

    async with keyed["a"], keyed["b"]:
        fork(child)


async def streams() -> None:
    """Who waits at the streams of the parent neither gives nor takes anything in the child."""
    send, receive = create_front_stream[str]()
    answers: list[str] = []

    async def take() -> None:
        answers.append(await receive.receive())

    async def use() -> None:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(take)
            task_group.start_soon(send.send, "child's")

    def child_of_receiver() -> None:
        try:
            send.send_nowait("lost")
        except anyio.WouldBlock:
            run_on_each(use)

        assert answers == ["child's"] * 3

    def child_of_sender() -> None:
        try:
            receive.receive_nowait()
        except anyio.WouldBlock:
            run_on_each(use)

        assert answers == ["parent's"] + ["child's"] * 3

    with send, receive:
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(take)
            await wait_idle()
            fork(child_of_receiver)
            assert not answers
            await send.send("parent's")

        async with anyio.create_task_group() as task_group:
            task_group.start_soon(send.send, "parent's second")
            await wait_idle()
            fork(child_of_sender)
            assert await receive.receive() == "parent's second"

    assert answers == ["parent's"]


async def throttlers() -> None:
    """A run of the parent's is cut off in the child, which may carry on by itself."""
    done: list[str] = []
    gate = RateLimiter()
    gate.pause(float("inf"))

    def job_named(name: str) -> Callable[[], Awaitable[str]]:
        async def job() -> str:
            if name == "b":
                await gate.acquire()

            return name

        return job

    async def consume(result: str) -> None:
        done.append(result)

    throttler: Throttler[JobOf[str], str] = Throttler(
        map(job_named, "abcd"), consume, concurrency=1
    )

    async def use() -> None:
        assert (await throttler.run()).done == 4
        assert done == ["a", "b", "c", "d"]

    def child() -> None:
        assert "idle" in repr(throttler)
        assert throttler.statistics().running == 0
        gate.resume()
        run_on_each(use)

    async with anyio.create_task_group() as task_group:
        task_group.start_soon(throttler.run)
        await wait_idle()
        fork(child)
        assert done == ["a"]
        assert "running" in repr(throttler)
        gate.resume()

    assert done == ["a", "b", "c", "d"]


_SHARED = RateLimiter("9/h", concurrency=1)


def _in_pool() -> tuple[int, int | None]:
    async def use() -> int:
        async with _SHARED:
            return _SHARED.statistics().borrowed_tokens

    return asyncio.run(use()), _SHARED.peek().remaining


async def pool() -> None:
    """As when a program hands work to processes, on asyncio."""
    async with _SHARED:
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("fork")
        ) as executor:
            answer = await asyncio.get_running_loop().run_in_executor(executor, _in_pool)

    assert answer == (1, 7), answer
    assert _SHARED.peek().remaining == 8


PROGRAMS = [
    limits,
    windows,
    pauses,
    holders,
    waiters,
    children_of_children,
    keys,
    streams,
    throttlers,
]


def main(backend: str) -> None:
    for name, _ in virtual_backends():
        # Imported here, so that not each of the children has to.
        anyio.run(anyio.sleep, 0, backend=name)

    parent = PARENTS[backend]
    for program in PROGRAMS if "trio" in backend else [*PROGRAMS, pool]:
        sys.stdout.write(f"{program.__name__}\n")
        parent(program)

    between_runs(parent)


if __name__ == "__main__":
    main(sys.argv[1])
