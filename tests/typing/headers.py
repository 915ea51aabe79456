"""What type checkers make of the headers of an answer. Checked, never run."""

from collections.abc import Mapping
from typing import assert_type

from anythrottle import PolicyState
from anythrottle.integrations.headers import (
    EXEMPT,
    PLAIN,
    PROFILES,
    Exempt,
    Figures,
    Profile,
    Quota,
    QuotaFields,
    profile_of,
    read_figures,
    write_fields,
)


def figures(headers: list[tuple[str, str]], states: tuple[PolicyState, ...]) -> None:
    told = assert_type(read_figures(429, headers, utc=0), Figures)
    assert_type(read_figures(429, dict(headers).items(), PLAIN, utc=0.5), Figures)
    assert_type(told.quotas, tuple[Quota, ...])
    assert_type(told.retry_after, float | None)
    assert_type(write_fields(states), tuple[tuple[bytes, bytes], ...])


def profiles() -> None:
    assert_type(PROFILES, Mapping[str, Profile])
    assert_type(profile_of("plain"), Profile)
    fields = QuotaFields("x-left", None, reset=("x-reset",), per_second=2)
    Profile("mine", (fields,), refusals={420: "always"}, doubtful={500}, everywhere=("a", "b"))
    Profile("mine", (), retry_after=(("retry-after-ms", 0.001),), bucket="x-bucket")
    profile_of(7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def exempt(key: str | Exempt) -> str:
    """Tell it from others as an enum's only member is told."""
    if key is EXEMPT:
        return "not limited"

    return assert_type(key, str)
