"""The task that talks to the server."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from anythrottle import LimitExceeded, PolicyConflict, RateLimiter, StoreError, ThrottleException
from anythrottle._events import LeaseExpired, StoreBack, StoreLost
from anythrottle.stores import memory
from anythrottle.stores.claim import Claim
from anythrottle.stores.courier import Courier
from anythrottle.stores.dialogue import Dialogue
from anythrottle.stores.exchange import Request
from anythrottle.stores.memory import MemoryServer, MemoryStore
from anythrottle.stores.reports import Reports
from anythrottle.testing import wait_idle
from tests.limiters.tools import tasks
from tests.stores.branches import Branch, branches, server_with

pytestmark = pytest.mark.timing


async def test_who_asks_while_an_idle_courier_goes_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = server_with(delay=0.001)
    listen = memory._Connection.listen

    @asynccontextmanager
    async def slow(*args: Any) -> AsyncGenerator[None]:
        async with listen(*args):
            try:
                yield
            finally:
                await anyio.sleep(0.5)

    monkeypatch.setattr(memory._Connection, "listen", slow)
    async with branches(1, "5/1s", server=server) as (branch,):
        await branch.acquire()
        await anyio.sleep(10.3)
        with anyio.fail_after(1):
            await branch.acquire()

        assert branch.store.statistics().limiters == 1


async def test_what_was_pushed_before_it_was_heard_is_asked_for() -> None:
    server = server_with(delay=0.001)
    async with branches(2, "5/1s", server=server) as made:
        await made[0].acquire(5)
        async with anyio.create_task_group() as group:
            group.start_soon(made[1].acquire)
            await anyio.sleep(0.1)
            before = server.exchanges
            courier = next(iter(made[1].store._couriers.values()))
            courier._hear_all()
            await anyio.sleep(0.1)
            assert server.exchanges == before + 1


async def test_an_attempt_that_is_cut_off_does_not_hide_why_others_have_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branch = Branch(server_with(delay=0.001), "5/1s", deadline=0.5)
    attempts = 0

    async def refuse(*_: object) -> Any:
        nonlocal attempts
        attempts += 1
        await anyio.sleep(0.3)
        raise PermissionError("wrong password")

    monkeypatch.setattr(memory._Connection, "exchange", refuse)
    async with branch.store:
        with pytest.raises(StoreError, match="wrong password"):
            await branch.acquire()

        assert attempts == 2


async def test_a_store_that_is_left_unheard_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = Branch(server_with(delay=0.001), "5/1s")
    async with branch.store:
        await branch.acquire()

        def broken(*_: object) -> Any:
            raise ConnectionError("broken")

        monkeypatch.setattr(branch.server, "carry_out", broken)
        branch.limiter.penalize(1)

    assert "the store was left unheard" in caplog.text


@pytest.mark.parametrize("told", [True, False])
async def test_of_a_store_that_never_answered_it_is_said_only_if_something_was_to_be_told(
    told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    branch = Branch(server_with(delay=0.001), "5/1s", deadline=0.5)
    async with branch.store:
        branch.store.network.down = True
        await branch.try_to()
        if told:
            branch.limiter.penalize(1)

    assert len(branch.errors) == 1
    assert ("the store was left unheard" in caplog.text) == told


async def test_what_is_said_just_before_a_store_is_left_is_told() -> None:
    branch = Branch(MemoryServer(), "5/1s")
    async with branch.store:
        branch.limiter.pause(100)

    assert branch.server.ledgers["api"].paused_until > branch.server.now()


async def test_a_store_that_cannot_be_opened_may_be_entered_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branch = Branch(MemoryServer(), "5/1s")

    @asynccontextmanager
    async def broken(*_: object) -> AsyncGenerator[None]:
        raise ConnectionError("broken")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(branch.server, "connect", broken)
        with pytest.raises(ConnectionError):
            async with branch.store:
                pass

    async with branch.store:
        await branch.acquire()


async def test_a_server_that_cannot_forget_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    branch = Branch(MemoryServer(), "5/1s")

    def broken(*_: object) -> Any:
        raise ConnectionError("broken")

    monkeypatch.setattr(branch.server, "forget", broken)
    async with branch.store:
        with pytest.raises(StoreError, match="broken"):
            await branch.store.forget("api")


async def test_a_limiter_that_nobody_holds_any_more_asks_for_nothing() -> None:
    server = server_with(delay=0.001)
    async with MemoryStore(server) as store:
        limiter = store.limiter("api", "5/1s")
        gate = limiter.gate
        del limiter
        store.ask(gate)
        await anyio.sleep(1)
        assert server.exchanges == 0


async def test_a_conflict_is_not_insured() -> None:
    server = server_with(delay=0.001)
    one, other = Branch(server, "5/1s"), Branch(server, "6/1s", on_store_error=RateLimiter())
    async with one.store, other.store:
        await one.acquire()
        with pytest.raises(PolicyConflict):
            await other.limiter.acquire()

        with pytest.raises(PolicyConflict):
            await other.call(0)


async def test_an_insured_turn_that_stands_in_line_is_given_up_with_its_job() -> None:
    server = server_with(delay=0.001)
    own = RateLimiter()
    async with branches(1, "5/1s", server=server, concurrency=1, on_store_error=own) as (branch,):

        async def job() -> None:
            raise ThrottleException(retry_after=5)

        with anyio.move_on_after(1):
            await branch.limiter.run(job)

        assert branch.limiter.statistics().tasks_waiting == 0
        await branch.call(0)


@pytest.mark.promise("S10", "S16")
async def test_a_process_that_the_server_has_buried_is_told() -> None:
    server = server_with(delay=0.001)
    events: list[Any] = []
    # So short that the server is not taken for set back.
    async with branches(
        1, server=server, concurrency=1, lease_timeout=0.9, observer=events.append
    ) as (branch,):
        async with branch.permit() as permit:
            await anyio.sleep(0.05)
            # Less than what lets the state expire.
            server.ahead += 5
            await anyio.sleep(0.6)
            assert permit.lost

        assert [event.calls for event in events if isinstance(event, LeaseExpired)] == [1]
        await branch.call(0)
        await anyio.sleep(0.1)
        assert server.ledgers["api"].rules[0].held == 0


async def test_leaving_ends_though_no_exchange_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branch = Branch(server_with(delay=0.001), "5/1s")
    tried: list[Request] = []
    carry_out = branch.server.carry_out

    def stale(name: str, request: Request) -> Any:
        tried.append(request)
        return replace(carry_out(name, request)[0], status="stale"), []

    async with branch.store:
        await branch.acquire()
        monkeypatch.setattr(branch.server, "carry_out", stale)
        branch.limiter.penalize(1)

    assert len(tried) == 3


async def test_a_courier_that_has_not_begun_has_nothing_to_give_back() -> None:
    branch = Branch(MemoryServer(), "5/1s")
    async with branch.server.connect(branch.store.network) as connection:
        courier = Courier(
            branch.limiter.line,
            branch.limiter.gate,
            connection,
            open_if_lost=False,
            reports=Reports(),
        )
        await courier.leave()

    assert branch.server.exchanges == 0


async def test_an_insured_turn_that_goes_again_can_be_given_up() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/1s", server=server, concurrency=1, on_store_error=RateLimiter()) as (
        branch,
    ):
        async with branch.permit() as permit:
            again: Any = branch.limiter.permit_again(permit, 1)
            assert branch.limiter.statistics().tasks_waiting == 1
            again.leave()
            assert branch.limiter.statistics().tasks_waiting == 0

        assert branch.limiter.permit_again(RateLimiter().permit(), 1) is None  # type: ignore[arg-type]


async def test_who_stands_behind_one_that_is_refused_goes_from_the_stock() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "10/100s", server=server, read_ahead=8) as (branch,):
        await branch.acquire()
        await branch.acquire()
        await anyio.sleep(0.1)
        assert branch.limiter.gate.dialogue.account.stock.total == 8
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: branch.try_to(10, max_wait=0))
            await wait_idle()
            with anyio.fail_after(1):
                await branch.acquire()

        assert [type(error) for error in branch.errors] == [LimitExceeded]


@pytest.mark.promise("S13")
async def test_calls_that_pass_uncharged_hold_nothing() -> None:
    server = server_with(delay=0.001)
    async with branches(
        1, "5/1s", server=server, concurrency=1, on_store_error="open", deadline=0.1
    ) as (branch,):
        await branch.call(0)
        branch.store.network.down = True
        async with branch.permit() as one, branch.permit() as other:
            assert not one.lost
            assert not other.lost

        branch.store.network.down = False
        await anyio.sleep(2)
        assert server.ledgers["api"].rules[1].held == 0


async def test_a_server_that_does_not_forget_in_time_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    branch = Branch(MemoryServer(), "5/1s", deadline=0.5)

    async def say(error: StoreError | None) -> None:
        if error is not None:
            raise error

        await anyio.sleep_forever()

    refusal = StoreError("api", "wrong password", "mistake")
    for error, said in ((None, "no answer within 0.5 s"), (refusal, "wrong password")):
        monkeypatch.setattr(memory._Connection, "forget", lambda *_, error=error: say(error))
        async with branch.store:
            with pytest.raises(StoreError) as raised:
                await branch.store.forget("api")

        assert str(raised.value).count("the store does not serve") == 1
        assert raised.value.reason.startswith(said)
        assert raised.value.is_mistake == (error is refusal)


class Moody:
    """What stands for a server, and raises what it is told to, if anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.attempts: list[float] = []
        exchange = memory._Connection.exchange

        async def refuse(*args: Any) -> Any:
            self.attempts.append(anyio.current_time())
            if self.error is not None:
                raise self.error

            return await exchange(*args)

        monkeypatch.setattr(memory._Connection, "exchange", refuse)


def wrong_password() -> StoreError:
    error = StoreError("api", "wrong password; give the right one", "mistake")
    error.__cause__ = PermissionError("WRONGPASS")
    return error


CHOICES: list[Any] = ["raise", "open", RateLimiter()]


@pytest.mark.promise("S13")
@pytest.mark.parametrize("choice", CHOICES, ids=["raise", "open", "limiter"])
async def test_a_mistake_is_told_at_once_whatever_is_chosen(
    choice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Moody(monkeypatch)
    server.error = wrong_password()
    events: list[Any] = []
    branch = Branch(server_with(delay=0.001), "5/1s", on_store_error=choice, observer=events.append)

    async def job() -> None:
        await branch.call(0)

    async with branch.store:
        start = anyio.current_time()
        errors: list[StoreError] = []

        async def wait(call: Any) -> None:
            with pytest.raises(StoreError) as raised:
                await call()

            errors.append(raised.value)

        async with anyio.create_task_group() as group:
            for call in (branch.acquire, branch.acquire, job, branch.limiter.peek):
                group.start_soon(wait, call)

        await wait(branch.acquire)
        assert anyio.current_time() - start < 0.01
        assert len(set(map(id, errors))) == 5
        for error in errors:
            assert error.is_mistake
            assert str(error) == (
                "the store does not serve limiter 'api': wrong password; give the right one"
            )
            assert isinstance(error.__cause__, PermissionError)

        assert not branch.store.statistics().connected
        await anyio.sleep(10)
        assert 9 < len(server.attempts) < 18
        server.error = None
        await anyio.sleep(1.1)
        await branch.acquire()
        assert branch.store.statistics().connected

    assert [type(event) for event in events if isinstance(event, StoreLost | StoreBack)] == [
        StoreLost,
        StoreBack,
    ]


@pytest.mark.promise("S13")
async def test_an_outage_may_become_a_mistake_and_a_mistake_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = Moody(monkeypatch)
    events: list[Any] = []
    branch = Branch(server_with(delay=0.001), "5/1s", on_store_error="open", observer=events.append)
    async with branch.store:
        server.error = ConnectionError("broken")
        for _ in range(9):
            await branch.acquire()

        server.error = wrong_password()
        await anyio.sleep(1.1)
        with pytest.raises(StoreError, match="wrong password"):
            await branch.acquire()

        # who waits for the end of a pause is told as well
        branch.limiter.pause(5)
        server.error = ConnectionError("broken")
        await anyio.sleep(1.1)
        async with anyio.create_task_group() as group:
            group.start_soon(branch.try_to)
            await anyio.sleep(0.1)
            server.error = wrong_password()

        assert [str(error).count("wrong password") for error in branch.errors] == [1]
        await anyio.sleep(2.5)

    said = [record.getMessage() for record in caplog.records if "serve it" in record.getMessage()]
    # Each kind once, however often it changes.
    assert [text.partition("; of others")[0] for text in said] == [
        f"limiter 'api': the store does not serve it: {reason}"
        for reason in ("broken", "wrong password; give the right one")
    ]
    assert sum(isinstance(event, StoreLost) for event in events) == 1


async def test_an_error_without_words_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    Moody(monkeypatch).error = ConnectionError()
    branch = Branch(server_with(delay=0.001), "5/1s", deadline=0.1)
    async with branch.store:
        with pytest.raises(StoreError) as raised:
            await branch.acquire()

    assert raised.value.reason == "ConnectionError"
    assert not raised.value.is_mistake
    assert isinstance(raised.value.__cause__, ConnectionError)


async def answered(store: MemoryStore, name: str, answers: list[object]) -> None:
    """Ask for a turn that is to be had at once; note what comes of it, and when."""
    limiter = store.limiter(name, "2/h")
    try:
        async with limiter.permit(max_wait=0):
            answers.append(round(anyio.current_time(), 3))
    except Exception as exc:  # noqa: BLE001 - whatever it is
        answers.append(exc)


@pytest.mark.promise("S13")
async def test_a_burst_is_answered_though_it_takes_longer_than_the_deadline() -> None:
    """64 exchanges a second: of 32 at a time, each takes half the deadline."""
    store = MemoryStore(server_with(delay=0.25), deadline=1.0)
    answers: list[object] = []
    used: list[object] = []
    kept = store.limiter("used", "2/h")
    async with store:
        await answered(store, "used", used)
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(answered, store, f"new-{number}", answers)

            await anyio.sleep(0.1)
            await answered(store, "used", used)

        assert not any(isinstance(answer, Exception) for answer in (*answers, *used))
        assert anyio.current_time() - began > 5
        # Who was served before does not stand behind all that are new.
        assert isinstance(used[1], float)
        assert used[1] - began < 2
        assert kept.statistics().tasks_waiting == 0
        assert store.statistics().failures == 0


@pytest.mark.promise("S13")
async def test_all_who_are_in_line_are_told_when_the_store_goes_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore(server_with(delay=0.1), deadline=1.0)
    answers: list[object] = []
    async with store:
        store.server.network.down = True
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for number in range(500):
                group.start_soon(answered, store, f"new-{number}", answers)

        assert anyio.current_time() - began < 1.1
        assert len(answers) == 500
        assert all(isinstance(answer, StoreError) for answer in answers)

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) <= 2


async def test_leaving_while_the_store_is_away_takes_no_longer_than_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore(server_with(delay=0.001), deadline=1.0)
    answers: list[object] = []
    kept = [store.limiter(f"new-{number}", "2/h") for number in range(100)]
    async with store:
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(answered, store, f"new-{number}", answers)

        store.server.network.down = True
        began = anyio.current_time()
        for limiter in kept:
            limiter.penalize(1)

    assert anyio.current_time() - began < 1.1
    assert "was left unheard, by 100 in all" in caplog.text


async def test_leaving_says_nothing_of_what_nobody_waits_for() -> None:
    server = server_with(delay=0.001)
    store = MemoryStore(server)
    answers: list[object] = []
    async with store:
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(answered, store, f"new-{number}", answers)

        before = server.exchanges

    assert server.exchanges == before


async def test_leaving_says_when_calls_have_started_if_others_wait() -> None:
    server = server_with(delay=0.001)
    async with branches(1, "1/10s", server=server, read_ahead=0) as (other,), tasks() as group:
        async with branches(1, "1/10s", server=server, read_ahead=0) as (branch,):
            await branch.acquire()
            async with tasks() as waiting:
                waiting.start_soon(branch.acquire)
                await anyio.sleep(0.1)
                group.start_soon(other.acquire)

            before = server.exchanges

        assert server.exchanges == before + 1
        group.cancel_scope.cancel()


@pytest.mark.parametrize("max_wait", [None, 0, 5])
async def test_a_turn_that_came_too_late_for_a_busy_process_is_asked_for_again(
    max_wait: float | None,
) -> None:
    server = server_with(delay=0.001)
    async with branches(1, "5/1s", server=server) as (branch,):
        async with anyio.create_task_group() as group:
            group.start_soon(functools.partial(branch.try_to, max_wait=max_wait))
            await wait_idle()
            gate = branch.limiter.gate
            is_valid = Dialogue.is_valid
            times = [1]

            def once_over(dialogue: Dialogue, claim: Claim, now: float) -> bool:
                # As if its task had resumed after the grace of what it was granted.
                if times:
                    claim.lot.until = now - times.pop()

                return is_valid(dialogue, claim, now)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Dialogue, "is_valid", once_over)
                await anyio.sleep(0.5)

        assert not branch.errors
        assert len(branch.starts) == 1
        assert not gate.askers


async def test_what_was_missed_is_not_asked_for_if_all_has_come() -> None:
    server = server_with(delay=0.01)
    async with branches(1, "5/h", server=server) as (branch,):
        async with anyio.create_task_group() as group:
            group.start_soon(branch.acquire)
            await anyio.sleep(0.005)
            next(iter(branch.store._couriers.values()))._hear_all()

        await anyio.sleep(0.5)
        assert server.exchanges == 1


async def test_a_new_limiter_knows_how_long_an_exchange_takes() -> None:
    """Else what it is granted first would be over when it comes."""
    store = MemoryStore(server_with(delay=0.2))
    answers: list[object] = []
    async with store:
        await answered(store, "first", answers)
        before = store.server.exchanges
        await answered(store, "second", answers)
        assert store.server.exchanges == before + 1
