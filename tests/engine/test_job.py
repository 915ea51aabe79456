"""Errands: what is known of a job."""

from anythrottle._engine.job import Errand


async def answer() -> int:
    return 42


async def other() -> int:
    return 43


def test_outcome_tells_all_that_is_known() -> None:
    errand = Errand("item", answer, 5)
    errand.attempts, errand.waited, errand.duration = 2, 1.5, 0.25
    error = ValueError()
    outcome = errand.outcome(error)
    assert (outcome.index, outcome.item, outcome.error) == (5, "item", error)
    assert (outcome.attempts, outcome.waited, outcome.duration) == (2, 1.5, 0.25)
    errand.value = 42
    assert errand.outcome().value == 42
    assert str(errand) == "job 5"


def test_a_replacement_is_the_item_if_the_job_was() -> None:
    errand: Errand[object, int] = Errand(answer, answer)
    errand.cost = 3
    errand.replace(other)
    assert errand.item is errand.job is other
    assert errand.cost is None


def test_a_replacement_is_not_the_item_of_a_mapping() -> None:
    errand = Errand("item", answer)
    errand.replace(other)
    assert (errand.item, errand.job) == ("item", other)
