"""The record of a job: what is known of it."""

from anythrottle._engine.job_record import JobRecord


async def answer() -> int:
    return 42


async def other() -> int:
    return 43


def test_outcome_tells_all_that_is_known() -> None:
    record = JobRecord("item", answer, 5)
    record.attempts, record.waited, record.duration = 2, 1.5, 0.25
    error = ValueError()
    outcome = record.outcome(error)
    assert (outcome.index, outcome.item, outcome.error) == (5, "item", error)
    assert (outcome.attempts, outcome.waited, outcome.duration) == (2, 1.5, 0.25)
    record.value = 42
    assert record.outcome().value == 42
    assert str(record) == "job 5"


def test_a_replacement_is_the_item_if_the_job_was() -> None:
    record: JobRecord[object, int] = JobRecord(answer, answer)
    record.cost = 3
    record.replace(other)
    assert record.item is record.job is other
    assert record.cost is None


def test_a_replacement_is_not_the_item_of_a_mapping() -> None:
    record = JobRecord("item", answer)
    record.replace(other)
    assert (record.item, record.job) == ("item", other)
