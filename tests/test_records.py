"""Records whose ``__init__`` is written by hand are as those that a dataclass writes."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, astuple, fields, replace
from inspect import signature
from typing import Any

import pytest

from anythrottle import Granted, Outcome
from anythrottle._policies.policy import PolicyState


@pytest.mark.parametrize("record", [Granted, Outcome, PolicyState])
class TestARecord:
    def test_it_is_made_of_its_fields_in_their_order(self, record: Any) -> None:
        names = [field.name for field in fields(record)]
        assert list(signature(record).parameters) == names
        made = record(*names)
        assert astuple(made) == tuple(names)
        assert made == record(**{name: name for name in names})
        assert made != replace(made, **{names[-1]: "another"})
        assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301

    def test_it_stays_as_it_is(self, record: Any) -> None:
        made = record(*record.__slots__)
        for field in fields(record):
            with pytest.raises(FrozenInstanceError):
                setattr(made, field.name, 0)

        assert astuple(made) == record.__slots__

    def test_it_is_told_apart_by_what_it_has(self, record: Any) -> None:
        assert record.__match_args__ == record.__slots__
        assert not hasattr(record(*record.__slots__), "__dict__")
