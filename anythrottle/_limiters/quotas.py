"""What each policy of a limiter has left."""

from __future__ import annotations

from collections.abc import Callable

from .._policies.bucket import goes_by_utc
from .._policies.policy import PolicyState
from .gate import Gate


def quotas_of(
    gate: Gate, now: float, utc: Callable[[float], float], *, here: bool
) -> tuple[PolicyState, ...]:
    """
    Return the state of each policy, in their order.

    :param utc: returns UTC at an instant
    :param here: whether ``now`` is told by the clock that all will go by which comes next; then
        what has come back is dropped, so that asking often costs little
    """
    states: list[PolicyState] = []
    for policy, bucket, capacity in zip(gate.policies, gate.buckets, gate.capacities, strict=True):
        if here:
            bucket.drop_due(now)

        asked = bucket
        if goes_by_utc(bucket):
            # A copy, as a question changes nothing.
            asked = bucket.ahead(now)
            assert goes_by_utc(asked)
            asked.set_utc(now, utc(now))

        remaining = asked.remaining(now)
        more = asked.delay(now, remaining + 1) if remaining + 1 <= capacity else 0.0
        states.append(PolicyState(policy, remaining, more, asked.reset_after(now)))

    return tuple(states)
