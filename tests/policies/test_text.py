"""Limits as text."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle import WindowTokenBucket
from anythrottle._policies.text import as_policy, parse_policy
from tests.properties import examples

GOOD = {
    "20/10s": WindowTokenBucket(20, 10),
    "5/s": WindowTokenBucket(5, 1),
    "100/min": WindowTokenBucket(100, 60),
    "1000/h": WindowTokenBucket(1000, 3600),
    "10_000/day": WindowTokenBucket(10_000, 86_400),
    "10/100ms": WindowTokenBucket(10, 0.1),
    "200_000 tokens/min": WindowTokenBucket(200_000, 60, unit="tokens"),
    "3/0.3s": WindowTokenBucket(3, 0.3),
    "1/2.5min": WindowTokenBucket(1, 150),
    "7 input-tokens_2/s": WindowTokenBucket(7, 1, unit="input-tokens_2"),
    " 20 / 10 s ": WindowTokenBucket(20, 10),
    "5 calls/s": WindowTokenBucket(5, 1),
    "1/30day": WindowTokenBucket(1, 30 * 86_400),
    # what others take
    "20 per 10s": WindowTokenBucket(20, 10),
    "10 per second": WindowTokenBucket(10, 1),
    "10 per 1 minute": WindowTokenBucket(10, 60),
    "10/minute": WindowTokenBucket(10, 60),
    "20/10sec": WindowTokenBucket(20, 10),
    "20/10 seconds": WindowTokenBucket(20, 10),
    "5/2 minutes": WindowTokenBucket(5, 120),
    "5/hr": WindowTokenBucket(5, 3600),
    "5/hour": WindowTokenBucket(5, 3600),
    "5/2hours": WindowTokenBucket(5, 7200),
    "5/d": WindowTokenBucket(5, 86_400),
    "5/7 days": WindowTokenBucket(5, 7 * 86_400),
    "5/w": WindowTokenBucket(5, 7 * 86_400),
    "5/week": WindowTokenBucket(5, 7 * 86_400),
    "5/2 weeks": WindowTokenBucket(5, 14 * 86_400),
    "200k tokens/min": WindowTokenBucket(200_000, 60, unit="tokens"),
    "100k/min": WindowTokenBucket(100_000, 60),
    "1.5k/s": WindowTokenBucket(1500, 1),
    "1.25M tokens per day": WindowTokenBucket(1_250_000, 86_400, unit="tokens"),
    "5.0/s": WindowTokenBucket(5, 1),
    "5 call/s": WindowTokenBucket(5, 1),
    "5 request/s": WindowTokenBucket(5, 1),
    "5 requests per second": WindowTokenBucket(5, 1),
    "5 req/s": WindowTokenBucket(5, 1),
    # how it is measured
    "20/10s end": WindowTokenBucket(20, 10, measure="end"),
    "20/10s start": WindowTokenBucket(20, 10),
    "200k tokens per min  end ": WindowTokenBucket(200_000, 60, measure="end", unit="tokens"),
}

BAD = [
    "",
    " ",
    "/",
    "20",
    "20/",
    "/10s",
    "20per10s",
    "20 per10s",
    "20 a second",
    "0/s",
    "000/s",
    "20/0s",
    "20/0.0s",
    "-1/s",
    "20/-10s",
    "+20/s",
    "1.5/s",
    "1e3/s",
    "100K/min",
    "100 k tokens/min",
    "1m/min",
    "nan/s",
    "inf/s",
    "20/infs",
    "20/nans",
    "20/10",
    "20/10S",
    "20/10secs",
    "20/month",
    "20/10send",
    "20/10s begin",
    "20/10s end end",
    "0.0/s",
    "0k/s",
    "20/10m",
    "20/1_0s",
    "_20/s",
    "20_/s",
    "2__0/s",
    "20//s",
    "20/s/s",
    "20/.5s",
    "20/5.s",
    "20 tokens calls/s",
    "20 2tokens/s",
    "٣/s",
    "20/10s;",
    "20/10s 5/s",
    "1/" + "9" * 400 + "s",
    "9" * 5000 + "/s",
    "1/" + "9" * 5000 + "s",
]


class TestParsePolicy:
    @pytest.mark.parametrize("text", GOOD)
    def test_good(self, text: str) -> None:
        assert parse_policy(text) == GOOD[text]

    @pytest.mark.parametrize("text", BAD, ids=lambda text: text[:20] or "empty")
    def test_a_bad_one_is_quoted_and_a_right_one_shown(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a limit") as raised:
            parse_policy(text)

        assert str(raised.value).startswith(repr(text))
        assert "'20/10s'" in str(raised.value)
        assert raised.value.__cause__ is None

    def test_names_what_is_zero(self) -> None:
        with pytest.raises(ValueError, match=r"'0/s' .*limit must be at least 1, not 0"):
            parse_policy("0/s")

        with pytest.raises(ValueError, match=r"'20/0s' .*window must be above 0"):
            parse_policy("20/0s")

    @pytest.mark.parametrize(
        ("text", "instead"),
        [
            ("0.5/s", "1/2s"),
            ("1.5/s", "3/2s"),
            ("0.5/10s", "1/20s"),
            ("0.1 per 2.5 min", "1/25min"),
            ("2.5 tokens/min", "5 tokens/2min"),
            ("0.0001k tokens/min", "1 tokens/10min"),
            ("0.1234567/s", "1234567/10000000s"),
            ("0.12345/1.2345678s", "2469/24691.356s"),
            ("0.5 tokens/min end", "1 tokens/2min end"),
        ],
    )
    def test_a_fraction_is_answered_with_the_same_rate(self, text: str, instead: str) -> None:
        with pytest.raises(ValueError, match=f"the same rate is '{instead}'"):
            parse_policy(text)

        assert parse_policy(instead).limit

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("20/10s, 5/s", "several limits are several arguments: '20/10s', '5/s'"),
            ("5/s;100/min", "several limits are several arguments: '5/s', '100/min'"),
            ("1,000/h", "did you mean '1_000/h'?"),
            ("20/2m", "write 'min' for minutes"),
            ("20 per 2 M end", "write 'min' for minutes"),
            ("20/month", "write 'min' for minutes; months differ in length, so write days: '30d'"),
            ("20/10s END", "did you mean '20/10s end'?"),
            ("20 PER 10 Seconds", "did you mean '20 per 10 seconds'?"),
            ("100K Tokens/Min", "did you mean '100k Tokens/min'?"),
            ("1m/min", "did you mean '1M/min'?"),
        ],
    )
    def test_what_was_meant_most_likely(self, text: str, hint: str) -> None:
        with pytest.raises(ValueError, match="is not a limit") as raised:
            parse_policy(text)

        assert str(raised.value).startswith(f"{text!r} is not a limit ({hint}")

    @pytest.mark.parametrize(
        # The last has a long s, which is no s in another case.
        "text",
        ["20/10s, 5", "20/10s,", "5 milk/2s milk", "20/10s begin", "20/10\u017f"],
    )
    def test_no_hint_where_nothing_is_likely(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a limit: write"):
            parse_policy(text)

    def test_how_it_is_measured_if_it_does_not_say(self) -> None:
        assert parse_policy("20/10s", "end") == parse_policy("20/10s end")
        assert parse_policy("20/10s start", "end") == parse_policy("20/10s")

    @examples(100)
    @given(st.text(max_size=20))
    def test_never_fails_otherwise(self, text: str) -> None:
        with suppress(ValueError):
            policy = parse_policy(text)
            assert policy.limit >= 1
            assert policy.window > 0

    @examples(100)
    @given(st.integers(1, 10**12), st.integers(1, 10**6))
    def test_tenths_are_exact(self, limit: int, milliseconds: int) -> None:
        assert parse_policy(f"{limit:_}/{milliseconds}ms").window == milliseconds / 1000
        assert parse_policy(f"{limit}/{milliseconds}ms").limit == limit


class TestAsPolicy:
    def test_text(self) -> None:
        assert as_policy("20/10s") == WindowTokenBucket(20, 10)

    def test_how_a_text_is_measured(self) -> None:
        assert as_policy("20/10s", "end") == WindowTokenBucket(20, 10, measure="end")

    def test_a_policy_stays_as_it_is(self) -> None:
        policy = WindowTokenBucket(20, 10)
        assert as_policy(policy) is policy

    @pytest.mark.parametrize("value", [20, None, ("20", 10), b"20/10s", WindowTokenBucket])
    def test_anything_else_is_refused(self, value: object) -> None:
        with pytest.raises(TypeError) as raised:
            as_policy(value)

        assert repr(value) in str(raised.value)
        assert "'20/10s'" in str(raised.value)
