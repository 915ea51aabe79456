"""The errors: their tree, their fields, their messages."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

import anythrottle
from anythrottle import (
    AnythrottleError,
    CostTooHigh,
    Decision,
    JobInterrupted,
    LeaseLost,
    LimitExceeded,
    PolicyConflict,
    SourceInterrupted,
    StoreError,
    ThrottleException,
    WindowTokenBucket,
)

POLICY = WindowTokenBucket(20, 10)
REFUSED = Decision(False, "rate", 2.5, 0, 10.0, 20, POLICY)
ENDLESS = Decision(False, "concurrency", math.inf, None, 0.0, None, None)
PAUSED = Decision(False, "pause", math.inf, None, 0.0, None, None)

ERRORS: list[tuple[AnythrottleError, dict[str, object], str]] = [
    (
        LimitExceeded(REFUSED),
        {"decision": REFUSED, "retry_after": 2.5},
        "the limit is reached (rate): try again in 2.500 s",
    ),
    (
        LimitExceeded(ENDLESS),
        {"decision": ENDLESS, "retry_after": math.inf},
        "the limit is reached (concurrency): try again when something is let go",
    ),
    (
        LimitExceeded(PAUSED),
        {"decision": PAUSED},
        "the limit is reached (pause): try again when it is resumed",
    ),
    (
        CostTooHigh(30, 20, "tokens"),
        {"cost": 30, "limit": 20, "unit": "tokens"},
        (
            "cost 30 tokens is above the limit of 20: it could never go; "
            "split the call or raise the limit"
        ),
    ),
    (
        JobInterrupted("job 7"),
        {"job": "job 7"},
        (
            "job 7 was cut off midway and cannot be awaited again; "
            "pass a callable that makes the awaitable, and the job can be repeated"
        ),
    ),
    (
        SourceInterrupted("the source"),
        {"source": "the source"},
        (
            "the source was cut off inside its own step and has ended there, perhaps early; "
            "feed jobs through a memory object stream where a run must be resumable"
        ),
    ),
    (
        StoreError("api", "no connection to the server: see that it runs"),
        {
            "name": "api",
            "reason": "no connection to the server: see that it runs",
            "is_mistake": False,
        },
        "the store does not serve limiter 'api': no connection to the server: see that it runs",
    ),
    (
        StoreError("api", "wrong password", "mistake"),
        {"name": "api", "reason": "wrong password", "is_mistake": True},
        "the store does not serve limiter 'api': wrong password",
    ),
    (
        PolicyConflict("api", "20/10s, concurrency=5", "20/10s, concurrency=6"),
        {
            "name": "api",
            "ours": "20/10s, concurrency=5",
            "theirs": "20/10s, concurrency=6",
            "is_mistake": True,
        },
        (
            "limiter 'api' is in use with other policies: 20/10s, concurrency=6 there; 20/10s, "
            "concurrency=5 here; take the same in all processes, in the same order and with the "
            "same concurrency, or another name"
        ),
    ),
    (
        LeaseLost("api"),
        {"name": "api"},
        (
            "limiter 'api' was not heard of in time, and others may have what the call held: "
            "do not block the event loop, or take a longer lease_timeout"
        ),
    ),
    (ThrottleException(), {"task": None, "retry_after": None}, "throttled"),
    (
        ThrottleException(retry_after=2),
        {"task": None, "retry_after": 2.0},
        "throttled for 2 s",
    ),
    (
        ThrottleException(print, retry_after=math.inf),  # type: ignore[arg-type]
        {"task": print, "retry_after": math.inf},
        "throttled for inf s, then run <built-in function print>",
    ),
]

IDS = [f"{type(error).__name__}{number}" for number, (error, _, _) in enumerate(ERRORS)]


@pytest.mark.parametrize(("error", "fields", "message"), ERRORS, ids=IDS)
class TestEveryError:
    def test_keeps_its_fields(
        self, error: AnythrottleError, fields: dict[str, object], message: str
    ) -> None:
        assert {name: getattr(error, name) for name in fields} == fields

    def test_builds_its_message(
        self, error: AnythrottleError, fields: dict[str, object], message: str
    ) -> None:
        assert str(error) == message

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    def test_pickles(
        self, error: AnythrottleError, fields: dict[str, object], message: str, protocol: int
    ) -> None:
        again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
        assert type(again) is type(error)
        assert str(again) == message
        assert {name: getattr(again, name) for name in fields} == fields

    def test_copies(self, error: AnythrottleError, fields: dict[str, object], message: str) -> None:
        again = copy.copy(error)
        assert {name: getattr(again, name) for name in fields} == fields


class TestTree:
    def test_all_have_one_base(self) -> None:
        errors = [
            getattr(anythrottle, name)
            for name in anythrottle.__all__
            if isinstance(getattr(anythrottle, name), type)
            and issubclass(getattr(anythrottle, name), BaseException)
        ]
        assert all(issubclass(error, AnythrottleError) for error in errors)
        assert all(issubclass(error, Exception) for error in errors)
        assert {type(error) for error, _, _ in ERRORS} | {AnythrottleError} == set(errors)

    def test_what_they_also_are(self) -> None:
        assert issubclass(LimitExceeded, anyio.WouldBlock)
        assert issubclass(CostTooHigh, ValueError)
        assert issubclass(PolicyConflict, StoreError)
        assert issubclass(LeaseLost, StoreError)


class TestThrottleException:
    def test_the_task_is_positional_as_the_ancestor_s(self) -> None:
        async def job() -> None: ...

        assert ThrottleException(job).task is job
        assert ThrottleException(task=job).task is job
        with pytest.raises(TypeError):
            ThrottleException(job, 5)  # type: ignore[call-arg]

    @pytest.mark.parametrize("value", [30, 0.5, "a job", True])
    def test_a_task_that_is_no_job(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"^task must be an async function .*retry_after$") as e:
            ThrottleException(value)

        assert repr(value) in str(e.value)

    @pytest.mark.parametrize(
        "told",
        [
            "ThrottleException()",
            "ThrottleException(retry_after=7.0)",
            "ThrottleException(<built-in function print>)",
            "ThrottleException(<built-in function print>, retry_after=inf)",
        ],
    )
    def test_repr_is_how_it_was_made(self, told: str) -> None:
        made = told.replace("<built-in function print>", "print")
        assert repr(eval(made, {**globals(), "inf": math.inf})) == told  # noqa: S307

    @pytest.mark.parametrize("value", [0, 0.0, 5, 1e9, math.inf])
    def test_retry_after(self, value: float) -> None:
        error = ThrottleException(retry_after=value)
        assert error.retry_after == value
        assert type(error.retry_after) is float

    @pytest.mark.parametrize("value", [-1, -0.5, math.nan, -math.inf])
    def test_retry_after_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"^retry_after must be at least 0") as raised:
            ThrottleException(retry_after=value)

        assert repr(value) in str(raised.value)

    @pytest.mark.parametrize("value", [b"5", True, 1j])
    def test_retry_after_that_is_no_number(self, value: Any) -> None:
        with pytest.raises(TypeError, match=r"^retry_after must be a number of seconds, not"):
            ThrottleException(retry_after=value)

    def test_a_header_s_text(self) -> None:
        assert ThrottleException(retry_after="5").retry_after == 5.0
        assert ThrottleException(retry_after="soon").retry_after is None
        # The number says what it says.
        assert ThrottleException(retry_after="0").retry_after is None
        assert ThrottleException(retry_after=0).retry_after == 0


class TestPicklesWhatCannotBe:
    def test_an_awaitable(self) -> None:
        async def job() -> None: ...

        coroutine = job()
        error = pickle.loads(pickle.dumps(JobInterrupted(coroutine)))  # noqa: S301 - it is our own
        assert error.job == repr(coroutine)
        assert str(error) == str(JobInterrupted(coroutine))
        coroutine.close()

    def test_an_async_generator(self) -> None:
        async def jobs() -> AsyncGenerator[None]:
            yield

        source = jobs()
        error = pickle.loads(pickle.dumps(SourceInterrupted(source)))  # noqa: S301 - it is our own
        assert error.source == repr(source)
        assert str(error) == str(SourceInterrupted(source))
