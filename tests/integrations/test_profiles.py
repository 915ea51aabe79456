"""Profiles: what they take, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from anythrottle.integrations.headers import (
    PLAIN,
    PROFILES,
    Profile,
    QuotaFields,
    profile_of,
    read_figures,
)

FIELDS = QuotaFields("X-Left", "X-Most", ("X-Reset",))


class TestQuotaFields:
    def test_names_are_in_lower_case(self) -> None:
        fields = QuotaFields("X-Left", "X-MOST", ("X-Reset",), used_of="X-Used")
        assert fields == QuotaFields("x-left", "x-most", ("x-reset",), used_of="x-used")
        assert hash(fields) == hash(QuotaFields("x-left", "x-most", ("x-reset",), used_of="x-used"))
        assert fields.names == {"x-left", "x-most", "x-reset", "x-used"}

    def test_by_keywords(self) -> None:
        fields = QuotaFields(
            remaining="a",
            limit=None,
            reset=["b"],  # type: ignore[arg-type] # a list will do
            unit="requests",
            window=60,
            used_of=None,
            flow=True,
            per_second=2,
        )
        assert fields == QuotaFields("a", None, ("b",), "calls", 60.0, None, True, 2.0)
        assert fields.names == {"a", "b"}

    @pytest.mark.parametrize(
        ("error", "message", "values"),
        [
            (TypeError, "remaining must be the name of a header, not 7", {"remaining": 7}),
            (ValueError, "remaining must be the name of a header, not ''", {"remaining": ""}),
            (ValueError, "limit must be the name of a header, not 'X: Y'", {"limit": "X: Y"}),
            (ValueError, "limit must be the name of a header, not 'é'", {"limit": "é"}),
            (TypeError, "used_of must be the name of a header, not b'x'", {"used_of": b"x"}),
            (ValueError, "all are None", {"remaining": None, "limit": None}),
            (TypeError, "reset must be a tuple of names of headers, not 'x'", {"reset": "x"}),
            (TypeError, "reset must be a tuple of names of headers, not 7", {"reset": 7}),
            (TypeError, "reset must be the name of a header, not 7", {"reset": (7,)}),
            (ValueError, "reset must be the name of a header, not 'x '", {"reset": ("x ",)}),
            (ValueError, "unit must not be empty", {"unit": ""}),
            (ValueError, "window must be above 0 and finite, in seconds, not 0", {"window": 0}),
            (TypeError, "window must be a number of seconds, not '60'", {"window": "60"}),
            (TypeError, "flow must be a bool, not 1", {"flow": 1}),
            (ValueError, "per_second must be above 0 and finite, not 0", {"per_second": 0}),
        ],
    )
    def test_wrong_arguments(
        self, error: type[Exception], message: str, values: dict[str, Any]
    ) -> None:
        with pytest.raises(error) as caught:
            QuotaFields(**{"remaining": "a", "limit": "b", **values})

        assert message in str(caught.value)


class TestProfile:
    def test_the_defaults(self) -> None:
        profile = Profile("mine", (FIELDS,))
        assert profile.refusals == {429: "always", 503: "told"}
        assert profile.doubtful == {503}
        assert profile.retry_after == (("retry-after", 1.0),)
        assert profile.first_pause == 1
        assert profile.bucket is None
        assert profile.everywhere is None

    def test_by_keywords(self) -> None:
        profile = Profile(
            name="mine",
            quotas=[FIELDS],  # type: ignore[arg-type] # a list will do
            refusals={420: "always"},
            doubtful={420, 500},
            retry_after=(("X-Wait", 60),),
            first_pause=5,
            bucket="X-Bucket",
            everywhere=("X-Global", " True"),
        )
        assert profile.quotas == (FIELDS,)
        assert profile.doubtful == frozenset({420, 500})
        assert profile.retry_after == (("x-wait", 60.0),)
        assert profile.bucket == "x-bucket"
        assert profile.everywhere == ("x-global", "true")
        assert profile.known >= {"x-left", "x-most", "x-reset", "x-wait", "x-bucket", "x-global"}
        assert profile.known >= {"date", "ratelimit", "ratelimit-policy", "ratelimit-limit"}
        assert "retry-after" not in profile.known

    def test_equal_and_hashable(self) -> None:
        one = Profile("mine", (FIELDS,), refusals={429: "always", 420: "told"})
        other = Profile("mine", (FIELDS,), refusals={420: "told", 429: "always"})
        assert one == other
        assert hash(one) == hash(other)
        assert len({*PROFILES.values(), one, other}) == len(PROFILES) + 1
        changes: tuple[dict[str, Any], ...] = (
            {"name": "other"},
            {"quotas": ()},
            {"refusals": {}},
            {"doubtful": ()},
            {"retry_after": ()},
            {"first_pause": 2},
            {"bucket": "b"},
            {"everywhere": ("a", "b")},
        )
        for change in changes:
            assert dataclasses.replace(one, **change) != one

    def test_what_it_was_made_of_may_change(self) -> None:
        refusals: dict[int, Any] = {429: "always"}
        profile = Profile("mine", (), refusals=refusals)
        refusals[500] = "always"
        assert profile.refusals == {429: "always"}
        with pytest.raises(TypeError):
            profile.refusals[500] = "always"  # type: ignore[index]

        with pytest.raises(dataclasses.FrozenInstanceError):
            profile.name = "other"  # type: ignore[misc]

    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_copies(self, profile: Profile) -> None:
        for twin in (
            copy.copy(profile),
            copy.deepcopy(profile),
            pickle.loads(pickle.dumps(profile)),  # noqa: S301 - our own
            dataclasses.replace(profile),
        ):
            assert twin == profile
            assert hash(twin) == hash(profile)
            assert (twin.known, twin.rows) == (profile.known, profile.rows)

    @pytest.mark.parametrize(
        ("error", "message", "values"),
        [
            (TypeError, "name must be a str, not None", {"name": None}),
            (ValueError, "name must not be empty", {"name": ""}),
            (TypeError, "quotas must be a tuple of QuotaFields, not QuotaF", {"quotas": FIELDS}),
            (TypeError, "quotas must be a tuple of QuotaFields, not 'x'", {"quotas": "x"}),
            (TypeError, "quotas must hold QuotaFields only, not 'x'", {"quotas": ("x",)}),
            (TypeError, "refusals must be a mapping of statuses, not {429}", {"refusals": {429}}),
            (TypeError, "refusals must hold statuses, which are ints", {"refusals": {"": "told"}}),
            (TypeError, "ints, not True", {"refusals": {True: "told"}}),
            (ValueError, "statuses from 100 to 599, not 99", {"refusals": {99: "told"}}),
            (ValueError, "'always' or 'told', not 'never'", {"refusals": {429: "never"}}),
            (TypeError, "doubtful must be a tuple of statuses, not 503", {"doubtful": 503}),
            (TypeError, "doubtful must hold statuses, which are ints", {"doubtful": {"503"}}),
            (ValueError, "statuses from 100 to 599, not 600", {"doubtful": {600}}),
            (TypeError, "retry_after must be a tuple of pairs", {"retry_after": "retry-after"}),
            (TypeError, "retry_after must be a tuple of pairs", {"retry_after": ("retry-after",)}),
            (TypeError, "retry_after must be a tuple of pairs", {"retry_after": 7}),
            (ValueError, "retry_after must hold pairs", {"retry_after": (("a", 1, 2),)}),
            (ValueError, "the name of a header, not 'a b'", {"retry_after": (("a b", 1),)}),
            (ValueError, "retry_after must be above 0", {"retry_after": (("a", 0),)}),
            (TypeError, "retry_after must be a number", {"retry_after": (("a", "1"),)}),
            (ValueError, "first_pause must be above 0", {"first_pause": 0}),
            (ValueError, "bucket must be the name of a header, not 'a b'", {"bucket": "a b"}),
            (TypeError, "everywhere must be a tuple of a header", {"everywhere": "x-global"}),
            (ValueError, "everywhere must hold a header and", {"everywhere": ("x-global",)}),
            (TypeError, "value of a header, not True", {"everywhere": ("x-global", True)}),
            (ValueError, "the name of a header, not ''", {"everywhere": ("", "true")}),
        ],
    )
    def test_wrong_arguments(
        self, error: type[Exception], message: str, values: dict[str, Any]
    ) -> None:
        with pytest.raises(error) as caught:
            Profile(**{"name": "mine", "quotas": (), **values})

        assert message in str(caught.value)


class TestProfileOf:
    def test_by_name_or_as_it_is(self) -> None:
        for name, profile in PROFILES.items():
            assert profile.name == name
            assert profile_of(name) is profile

        mine = Profile("plain", ())
        assert profile_of(mine) is mine
        assert profile_of("plain") is PLAIN

    def test_no_name(self) -> None:
        with pytest.raises(ValueError, match=r"'plain', 'github', .*'reddit', not 'Github'"):
            profile_of("Github")

    @pytest.mark.parametrize("value", [None, 7, Profile, b"plain"])
    def test_nothing_of_the_kind(self, value: Any) -> None:
        with pytest.raises(TypeError, match="a Profile or the name of one, not"):
            profile_of(value)


def test_those_that_come_with_the_library() -> None:
    assert list(PROFILES) == [
        *("plain", "github", "openai", "anthropic"),
        *("discord", "shopify", "twitter", "reddit"),
    ]
    told = {503: "told"}
    assert PROFILES["github"].refusals == {429: "always", 403: "told", **told}
    assert PROFILES["anthropic"].refusals == {429: "always", 529: "always", **told}
    for name, profile in PROFILES.items():
        assert profile.first_pause == (60 if name == "github" else 1)
        assert profile.doubtful == {503}
        if name not in {"github", "anthropic"}:
            assert profile.refusals == {429: "always", **told}


@pytest.mark.parametrize("unit", ["calls", "tokens", "input-tokens", "output-tokens"])
def test_all_units_of_anthropic(unit: str) -> None:
    name = "requests" if unit == "calls" else unit
    headers = {
        f"Anthropic-RateLimit-{name}-{what}": told
        for what, told in (("Limit", "50"), ("Remaining", "49"), ("Reset", "2s"))
    }
    (quota,) = read_figures(200, headers.items(), PROFILES["anthropic"], utc=0).quotas
    assert (quota.unit, quota.limit, quota.window) == (unit, 50, 60)
    assert (quota.remaining, quota.reset_after) == (49, 2)


@pytest.mark.parametrize(
    ("name", "limit", "resets"),
    [
        ("plain", True, ("reset-after", "reset")),
        ("github", True, ("reset",)),
        ("discord", True, ("reset-after",)),
        ("reddit", False, ("reset",)),
    ],
)
def test_who_sends_the_usual_names(name: str, limit: bool, resets: tuple[str, ...]) -> None:
    fields = PROFILES[name].quotas[0]
    assert fields.remaining == "x-ratelimit-remaining"
    assert fields.limit == ("x-ratelimit-limit" if limit else None)
    assert fields.reset == tuple(f"x-ratelimit-{reset}" for reset in resets)
