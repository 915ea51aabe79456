"""How property tests are run: the same examples each time, on any machine, however slow."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

#: By what the numbers of examples are multiplied: ``nox -s mutation`` has no time for all of them,
#: nor for making a failure smaller.
SHARE = float(os.environ.get("ANYTHROTTLE_EXAMPLES", "1"))

PROFILE = settings(
    max_examples=round(100 * SHARE),
    deadline=None,
    derandomize=True,
    # all but the one that explains failures by tracing what runs, which the loops don't like
    phases=[
        *(Phase.explicit, Phase.reuse, Phase.generate, Phase.target),
        *((Phase.shrink,) if SHARE == 1 else ()),
    ],
    suppress_health_check=[
        # The fixture `run` makes a new run, with a new clock, at each call.
        HealthCheck.function_scoped_fixture,
        # A method is called once for each backend, on a new instance.
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


def examples(number: int) -> settings:
    """Return the settings for a property test with so many examples."""
    return settings(PROFILE, max_examples=max(round(number * SHARE), 1))
