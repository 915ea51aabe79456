"""A limiter that hangs or spins shall fail its test, not stop them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.limiters.tools import alarm


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    with alarm(20):
        yield
