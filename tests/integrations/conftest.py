"""The two libraries of throttled clients that are alike."""

from __future__ import annotations

import pytest

from tests.integrations.tools import LIBRARIES, Library


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    return LIBRARIES[request.param]
