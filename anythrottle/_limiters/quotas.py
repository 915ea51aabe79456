"""What each policy of a limiter has left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._policies.bucket import Bucket, goes_by_utc
from .._policies.policy import Policy, PolicyState


def quotas_of(
    policies: Sequence[Policy],
    buckets: Sequence[Bucket],
    now: float,
    utc: Callable[[float], float],
    *,
    here: bool,
) -> tuple[PolicyState, ...]:
    """
    Return the state of each policy, in their order.

    :param buckets: theirs
    :param utc: returns UTC at an instant
    :param here: whether ``now`` is told by the clock that all will go by which comes next; then
        what has come back is dropped, so that asking often costs little
    """
    states: list[PolicyState] = []
    for policy, bucket in zip(policies, buckets, strict=True):
        if here:
            bucket.drop_due(now)

        asked = bucket
        if goes_by_utc(bucket):
            # A copy, because a question changes nothing.
            asked = bucket.ahead(now)
            assert goes_by_utc(asked)
            asked.set_utc(now, utc(now))

        remaining = asked.remaining(now)
        fits = remaining + 1 <= bucket.capacity
        more = asked.delay(now, remaining + 1) if fits else 0.0
        states.append(PolicyState(policy, remaining, more, asked.reset_after(now)))

    return tuple(states)
