"""A store, whatever its server: makes limiters, and owns the tasks that talk to the server."""

from __future__ import annotations

import secrets
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from .._errors import PolicyConflict, StoreError
from .._events import Observer, check_observer
from .._policies.checks import check_count, check_seconds
from .._policies.policy import Policy, seconds_until
from .._policies.text import as_policy
from ..abc import Limiter
from .courier import Courier
from .dialogue import Dialogue
from .exchange import Amounts, Reply, Rule, rules_text
from .refusal import refusal_of, silence
from .remote_gate import RemoteGate
from .remote_limiter import RemoteRateLimiter
from .reports import Reports
from .rule_words import in_words
from .server import Server
from .settings import check_name, check_on_store_error, rules_for
from .terms import Terms

L = TypeVar("L", bound=RemoteRateLimiter)


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """
    The state of a store at one instant.

    :ivar int exchanges: how many exchanges the server has answered since the store was entered
    :ivar int failures: how many it has not
    :ivar float round_trip: how long one takes, in seconds: the longest mean of a limiter in use
    :ivar last_error: the error of the latest exchange that has failed
    :ivar bool connected: whether the store is entered, and the server answers, as far as is known
    :ivar int limiters: how many limiters are in use

    """

    exchanges: int
    failures: int
    round_trip: float
    last_error: Exception | None
    connected: bool
    limiters: int


@dataclass(frozen=True, slots=True)
class _Settings:
    """All that a limiter was made with, to tell whether another one would be the same."""

    rules: tuple[Rule, ...]
    max_waiting: int | None
    lease_timeout: float
    read_ahead: int | None
    on_store_error: object
    observer: Observer | None


class Store(ABC, Generic[L]):
    """
    The part of stores that does not depend on the server.

    :param deadline: by when an exchange is to be answered, in seconds, from when it is sent
    """

    #: The class of its limiters.
    _limiter_type: type[L]

    def __init__(self, *, deadline: float) -> None:
        self._deadline = check_seconds("deadline", deadline)
        self._limiters: weakref.WeakValueDictionary[str, L] = weakref.WeakValueDictionary()
        self._settings: weakref.WeakKeyDictionary[L, _Settings] = weakref.WeakKeyDictionary()
        #: The couriers that run, for each gate.
        self._couriers: dict[RemoteGate, Courier] = {}
        self._server: Server | None = None
        self._stack: AsyncExitStack | None = None
        self._tasks: TaskGroup | None = None
        #: How many dialogues there have been.
        self._dialogues = 0
        self._node = ""
        #: The exchanges and failures of couriers that have ended.
        self._past = [0, 0]
        self._reports = Reports()

    @abstractmethod
    def _open(self) -> AbstractAsyncContextManager[Server]:
        """Return the server, to be entered."""

    def limiter(
        self,
        name: str,
        *policies: Policy | str,
        concurrency: int | None = None,
        max_waiting: int | None = None,
        lease_timeout: float = 30.0,
        read_ahead: int | None = None,
        on_store_error: Literal["raise", "open"] | Limiter = "raise",
        observer: Observer | None = None,
    ) -> L:
        """
        Return the limiter that has this name in all processes that use the same server.

        The same name with the same settings gives the same object, as long as a reference to it
        exists.

        :param name: its name: 1 to 200 printable characters without spaces and braces
        :param policies: what limits the rate: at most 16 policies, or texts such as ``"20/10s"``;
            the same in all processes
        :param concurrency: how many calls may run at once, in all processes together, at least 1;
            ``None`` for no bound
        :param max_waiting: how many may wait in line in this process, at least 0, those included
            that wait for the server's answer alone; ``None`` for no bound
        :param lease_timeout: for how many seconds this process may be silent before what its calls
            hold goes to others, above 0. It speaks up every third of that
        :param read_ahead: how many turns to fetch before they are needed: ``None`` for as many as
            have been of use lately; 0 for none; else up to so many are kept in stock, for a tenth
            of the shortest window, which others do without meanwhile. Turns that hold something
            are never fetched ahead
        :param on_store_error: what happens to calls that would have to wait while the server does
            not answer: ``"raise"``: :exc:`.StoreError`; ``"open"``: they pass, uncharged; a
            limiter: they take their turns there, and those that still wait when the server answers
            again have their old places in the shared line. An answer that is a refusal, such as of
            a wrong password, is a :exc:`.StoreError` in any case
        :param observer: a function that is told of :type:`events <anythrottle.abc.Event>`
        :raises TypeError: if a parameter is of the wrong type, or a server cannot keep to a policy
        :raises ValueError: if a parameter is out of its range, or the limiter exists with other
            settings
        :raises ~anythrottle.PolicyConflict: if it exists with other policies

        """
        check_name("name", name)
        described = tuple(as_policy(policy) for policy in policies)
        rules = rules_for(described, concurrency)
        check_observer(observer)
        if max_waiting is not None:
            check_count("max_waiting", max_waiting, least=0)

        if read_ahead is not None:
            check_count("read_ahead", read_ahead, least=0)

        settings = _Settings(
            rules,
            max_waiting,
            check_seconds("lease_timeout", lease_timeout),
            read_ahead,
            check_on_store_error(on_store_error),
            observer,
        )
        before = self._limiters.get(name)
        if before is not None:
            self._check_same(name, self._settings[before], settings)
            return before

        limiter = self._limiter_type(
            self,
            name,
            described,
            concurrency=concurrency,
            max_waiting=max_waiting,
            dialogue=self._dialogue(settings),
            insurance=None if isinstance(on_store_error, str) else on_store_error,
            observer=observer,
        )
        if self._tasks is None:
            limiter.gate.refusal = _not_entered(name)

        self._limiters[name] = limiter
        self._settings[limiter] = settings
        return limiter

    async def forget(self, name: str) -> None:
        """
        Delete all that the server knows of a limiter that is not in use: its name starts afresh.

        :raises RuntimeError: if the store is not entered
        :raises ~anythrottle.StoreError: if the server does not answer, or refuses
        """
        check_name("name", name)
        if self._server is None:
            error = _not_entered(name)
            raise error()

        try:
            with anyio.fail_after(self._deadline):
                await self._server.forget(name)
        except StoreError:
            raise
        except TimeoutError as exc:
            raise refusal_of(name, silence(self._deadline)) from exc
        except Exception as exc:
            raise refusal_of(name, exc) from exc

    def statistics(self) -> StoreStatistics:
        """Return the state at this instant."""
        couriers = self._couriers.values()
        exchanges, failures = self._past
        return StoreStatistics(
            exchanges=exchanges + sum(courier.exchanges for courier in couriers),
            failures=failures + sum(courier.failures for courier in couriers),
            round_trip=max((c.gate.dialogue.clock.round_trip for c in couriers), default=0.0),
            last_error=self._reports.last_error,
            connected=self._tasks is not None and not any(c.gate.is_lost for c in couriers),
            limiters=len(couriers),
        )

    def ask(self, gate: RemoteGate) -> None:
        """Make the courier look at once whether an exchange is to be made."""
        courier = self._couriers.get(gate)
        if courier is None and self._tasks is not None and gate.refusal is None:
            limiter = self._limiters.get(gate.name)
            if limiter is None or limiter.gate is not gate:
                return

            courier = self._couriers[gate] = self._courier(limiter)
            self._tasks.start_soon(self._run, courier)

        if courier is not None:
            courier.ask()

    def idle_in(self, gate: RemoteGate, now: float) -> float:
        """Return in how many seconds its courier goes if there is nothing to do; 0 without one."""
        courier = self._couriers.get(gate)
        return 0.0 if courier is None else seconds_until(now, courier.ends_at)

    async def answer(self, gate: RemoteGate, probe: Amounts, *, count_all: bool) -> Reply:
        """Return the server's answer to a question about a limiter."""
        if self._tasks is None:
            error = _not_entered(gate.name)
            raise error()

        self.ask(gate)
        return await self._couriers[gate].answer(probe, count_all=count_all)

    async def __aenter__(self) -> Self:
        if self._tasks is not None or self._stack is not None:
            raise RuntimeError(
                "the store is entered already: enter it once, around all that use it"
            )

        self._stack = AsyncExitStack()
        try:
            self._server = await self._stack.enter_async_context(self._open())
            self._node = secrets.token_hex(6)
            self._past = [0, 0]
            self._reports = Reports()
            self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        except BaseException:
            stack, self._stack = self._stack, None
            self._server = None
            await stack.aclose()
            raise

        for limiter in list(self._limiters.values()):
            limiter.gate.enter(self._dialogue(self._settings[limiter]))

        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        assert self._stack is not None
        tasks, self._tasks = self._tasks, None
        stack, self._stack = self._stack, None
        for limiter in list(self._limiters.values()):
            limiter.gate.leave(_left(limiter.name), limiter.line)

        tasks.cancel_scope.cancel()
        try:
            # Not with the body's error: it must leave this as it is, in no exception group.
            await stack.__aexit__(None, None, None)
        finally:
            self._server = None
            self._couriers.clear()
            self._reports.close()
            for limiter in list(self._limiters.values()):
                limiter.gate.refusal = _not_entered(limiter.name)

    async def _run(self, courier: Courier) -> None:
        """Run a courier until it is idle or the store is left."""
        idle = False
        try:
            await courier.run()
            idle = True
        finally:
            if not idle:
                await courier.leave()

            self._past[0] += courier.exchanges
            self._past[1] += courier.failures
            self._couriers.pop(courier.gate, None)

    def _courier(self, limiter: L) -> Courier:
        assert self._server is not None
        on_store_error = self._settings[limiter].on_store_error
        return Courier(
            limiter.line,
            limiter.gate,
            self._server,
            open_if_lost=on_store_error == "open",
            reports=self._reports,
            insurance=limiter.insurance,
        )

    def _dialogue(self, settings: _Settings) -> Dialogue:
        self._dialogues += 1
        terms = Terms(
            settings.rules,
            lease=settings.lease_timeout,
            deadline=self._deadline,
            leases=bool(settings.read_ahead),
        )
        node = f"{self._node}-{self._dialogues}"
        return Dialogue(terms, node, secrets.token_hex(8), settings.read_ahead)

    def _check_same(self, name: str, before: _Settings, settings: _Settings) -> None:
        if before.rules != settings.rules:
            ours, theirs = (in_words(rules_text(each.rules)) for each in (settings, before))
            raise PolicyConflict(name, ours, theirs)

        if before != settings:
            raise ValueError(
                f"limiter {name!r} exists in this store with other settings: make it once, or take "
                f"another name"
            )


def _not_entered(name: str) -> Callable[[], Exception]:
    return lambda: RuntimeError(
        f"the store of limiter {name!r} is not entered: use it inside of 'async with store:'"
    )


def _left(name: str) -> Callable[[], Exception]:
    return lambda: StoreError(name, "the store was left while the call waited")
