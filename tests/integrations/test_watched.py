"""Limiters that are watched: how they are shown, for how long, and to which threads."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from anythrottle import BaseLimiter, KeyedLimiter, RateLimiter
from anythrottle.abc import Permit
from anythrottle.integrations._watched import Watched
from anythrottle.testing import wait_idle
from tests.conftest import Run
from tests.limiters.tools import tasks


class Wrapping(BaseLimiter):
    def __init__(self) -> None:
        self.limiter = RateLimiter(concurrency=1)

    def permit(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Permit]:
        return self.limiter.permit(*args, **kwargs)

    def pause(self, seconds: float | None = None) -> None:
        self.limiter.pause(seconds)

    def idle_in(self) -> float:
        return self.limiter.idle_in()


async def hold(limiter: RateLimiter) -> None:
    async with limiter:
        await anyio.sleep(1)


async def crowd(watched: Watched, *limiters: RateLimiter) -> dict[str, tuple[int, int]]:
    """Have three calls at each limiter, and return the load then."""
    async with tasks() as task_group:
        for limiter in limiters:
            for _ in range(3):
                task_group.start_soon(hold, limiter)

        await wait_idle()
        return watched.load()


@pytest.mark.timing
class TestLoad:
    async def test_of_one(self) -> None:
        watched, limiter = Watched(), RateLimiter("9/s", concurrency=1, name="a")
        watched.add(limiter, None)
        assert await crowd(watched, limiter) == {"a": (2, 1)}
        assert watched.load() == {"a": (0, 0)}

    async def test_what_holds_nothing_is_never_active(self) -> None:
        watched, limiter = Watched(), RateLimiter("2/s", name="a")
        watched.add(limiter, None)
        assert await crowd(watched, limiter) == {"a": (1, 0)}

    async def test_a_charge_until_the_end_is_active(self) -> None:
        watched, limiter = Watched(), RateLimiter("2/s end", name="a")
        watched.add(limiter, None)
        assert await crowd(watched, limiter) == {"a": (1, 2)}

    async def test_several_of_one_name_are_one(self) -> None:
        watched = Watched()
        limiters = [RateLimiter(concurrency=count, name="a") for count in (1, 2)]
        other = RateLimiter(concurrency=1)
        for limiter in (*limiters, other):
            watched.add(limiter, None)

        assert await crowd(watched, *limiters, other) == {"a": (3, 3), "": (2, 1)}

    async def test_another_name(self) -> None:
        watched, limiter = Watched(), RateLimiter(concurrency=1, name="a")
        watched.add(limiter, None)
        watched.add(limiter, "b")
        assert await crowd(watched, limiter) == {"b": (2, 1)}

    async def test_a_keyed_limiter_whose_limiters_come_and_go(self) -> None:
        watched = Watched()
        keyed = KeyedLimiter[str, RateLimiter](lambda key: RateLimiter(concurrency=1, name=key))
        watched.add(keyed, None)
        assert watched.load() == {"": (0, 0)}
        assert await crowd(watched, keyed["x"], keyed["y"]) == {"": (4, 2)}
        assert len(keyed) == 2

    async def test_limiters_of_other_kinds_are_left_out(self) -> None:
        watched = Watched()
        keyed = KeyedLimiter[int, Wrapping](lambda _: Wrapping())
        watched.add(keyed, "k")
        wrapping = keyed[1]
        assert await crowd(watched, wrapping.limiter) == {"k": (0, 0)}

    async def test_from_another_thread(self) -> None:
        watched, limiter = Watched(), RateLimiter(concurrency=1, name="a")
        watched.add(limiter, None)
        found: list[dict[str, tuple[int, int]]] = []
        async with tasks() as task_group:
            for _ in range(3):
                task_group.start_soon(hold, limiter)

            await wait_idle()
            thread = threading.Thread(target=lambda: found.append(watched.load()))
            thread.start()
            thread.join()

        assert found == [{"a": (2, 1)}]


def test_what_an_ended_run_has_left_is_nothing(run: Run) -> None:
    watched, limiter = Watched(), RateLimiter(concurrency=1, name="a")
    watched.add(limiter, None)

    async def leave() -> None:
        permit = limiter.permit()
        await permit.__aenter__()
        assert watched.load() == {"a": (0, 1)}

    run(leave)
    assert watched.load() == {"a": (0, 0)}


def test_asking_changes_nothing(run: Run) -> None:
    watched, limiter = Watched(), RateLimiter(concurrency=1, name="a")
    watched.add(limiter, None)
    before = limiter._line.clock.latest
    assert watched.load() == {"a": (0, 0)}
    assert limiter._line.clock.latest is before is None

    async def use() -> None:
        async with limiter:
            pass

    run(use)
    loop = limiter._line.clock.latest
    assert watched.load() == {"a": (0, 0)}
    assert limiter._line.clock.latest is loop is not None


@pytest.mark.untraced
def test_threads_that_look_while_keys_come_and_go() -> None:
    watched = Watched()
    keyed = KeyedLimiter[int, RateLimiter](lambda _: RateLimiter("9/s"), max_keys=50)
    watched.add(keyed, "k")
    errors: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                assert watched.load() == {"k": (0, 0)}
        except BaseException as exc:  # noqa: BLE001 - it is told below
            errors.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    for key in range(20_000):
        assert keyed[key].idle_in() == 0

    done.set()
    thread.join()
    assert not errors


class TestLife:
    @pytest.mark.parametrize("keyed", [False, True], ids=["one", "keyed"])
    def test_it_keeps_nothing_alive(self, keyed: bool) -> None:
        watched = Watched()
        limiter: RateLimiter | KeyedLimiter[int, RateLimiter] = (
            KeyedLimiter(lambda _: RateLimiter()) if keyed else RateLimiter(name="a")
        )
        watched.add(limiter, None)
        reference = weakref.ref(limiter)
        assert len(watched.load()) == 1
        del limiter
        gc.collect()
        assert reference() is None
        assert watched.load() == {}
        assert not watched._limiters

    def test_a_limiter_that_ends_while_somebody_looks(self) -> None:
        watched = Watched()
        limiter = RateLimiter(name="a")
        watched.add(limiter, None)
        (entry,) = watched._limiters.values()
        del limiter
        gc.collect()
        watched._limiters[0] = entry
        assert watched.load() == {}

    def test_others_that_go_while_somebody_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        watched = Watched()
        limiters = [RateLimiter(name=name) for name in "abc"]
        for limiter in limiters:
            watched.add(limiter, None)

        del limiter

        def load(_: RateLimiter) -> tuple[int, int]:
            limiters.clear()
            gc.collect()
            return 1, 1

        monkeypatch.setattr(RateLimiter, "load", load)
        assert watched.load() == {"a": (1, 1)}

    def test_it_may_go_before_the_limiter(self) -> None:
        watched, limiter = Watched(), RateLimiter(name="a")
        watched.add(limiter, None)
        reference = weakref.ref(limiter)
        del watched, limiter
        gc.collect()
        assert reference() is None


@pytest.mark.parametrize(
    "limiter", ["20/10s", None, RateLimiter, Wrapping()], ids=["text", "none", "class", "wrapping"]
)
def test_bad_limiters(limiter: Any) -> None:
    message = (
        f"limiter must be a RateLimiter, a limiter of a store, or a KeyedLimiter, not {limiter!r}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}; of one that wraps another"):
        Watched().add(limiter, None)
