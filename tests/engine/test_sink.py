"""The base of the result sinks: what holds unless a subclass says otherwise."""

from __future__ import annotations

from anythrottle._engine.job_record import JobRecord
from anythrottle._engine.sink import ResultSink
from anythrottle._jobs import JobOf


class Plain(ResultSink[JobOf[int], int]):
    """A sink with no more than it must have."""

    def succeed(self, record: JobRecord[JobOf[int], int]) -> None: ...

    def fail(self, record: JobRecord[JobOf[int], int], error: BaseException) -> None: ...


async def job() -> int:
    return 1


def test_there_is_always_room_and_no_error_of_the_source_is_survived() -> None:
    sink = Plain()
    assert not sink.bounded
    assert sink.has_room(JobRecord(job, job))
    assert not sink.survives(ValueError())
