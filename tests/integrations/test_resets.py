"""What one value of a header says."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.integrations._resets import (
    MOST,
    amount_of,
    date_of,
    limit_of,
    pause_of,
    reset_of,
    used_of,
)
from tests.properties import examples

NOW = 1764426940.0


def now() -> float:
    return NOW


def never() -> float:
    raise AssertionError("no clock is needed")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        ("1.250", 1.25),
        ("999999999", 999999999),
        ("6ms", 0.006),
        ("0s", 0),
        ("6m0s", 360),
        ("1h2m3.5s", 3723.5),
        ("24h0m0s", 86400),
        ("2d", 172800),
        ("7us", 7e-6),
        ("7µs", 7e-6),
        ("1s500000000ns", 1.5),
    ],
)
def test_times_to_come(text: str, seconds: float) -> None:
    assert reset_of(text, never) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "1764427000",
        "1764427000.0",
        "1764427000000",
        "2025-11-29T14:36:40Z",
        "2025-11-29t14:36:40z",
        "2025-11-29 14:36:40Z",
        "2025-11-29T14:36:40",
        "2025-11-29T14:36:40.000000000Z",
        "2025-11-29T15:36:40+01:00",
        "2025-11-29T14:06:40-00:30",
        "Sat, 29 Nov 2025 14:36:40 GMT",
        "Saturday, 29-Nov-25 14:36:40 GMT",
    ],
)
def test_instants(text: str) -> None:
    assert reset_of(text, now) == 60
    assert reset_of(text, lambda: NOW + 100) == 0
    assert reset_of(text, lambda: inf) is None
    assert reset_of(text, lambda: -1e300) is None


def test_where_one_form_ends_and_the_next_begins() -> None:
    assert reset_of("1000000000", lambda: 1e9 - 7) == 7
    assert reset_of("99999999999", lambda: 1e11 - 1 - 7) == 7
    assert reset_of("100000000000", lambda: 1e8 - 7) == 7
    assert reset_of("2025-11-29T14:36Z", now) == 20
    assert reset_of(str(MOST), lambda: 1e12 - 7) == 7
    assert reset_of(str(MOST + 1), never) is None
    assert reset_of(f"{MOST}s", never) == MOST
    assert reset_of(f"{MOST + 1}s", never) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "+1", "1e3", ".5", "5.", "5,5", "٣", "nan", "inf", "soon", "s", "m5"),
        *("6 ms", "6m 0s", "6M", "6mm", "5min", "1h30", "6ms ", "9" * 1024),
        *("2025-13-29T14:36:40Z", "2025-11-29T14:36:60Z", "2025-11-29", "2025-11-29T14Z"),
        *("Sat, 99 Nov 2025 14:36:40 GMT", "29 Nov 2025"),
    ],
)
def test_no_resets(text: str) -> None:
    assert reset_of(text, never) is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        *(("0", 0), ("598.0", 598), ("598.9", 598), ("007", 7), (str(MOST), MOST)),
        *((text, None) for text in ("", "-1", "+1", "1e3", "5.", ".5", "٣", "1_0", " 1")),
        *((text, None) for text in (str(MOST + 1), "9" * 1024)),
    ],
)
def test_amounts(text: str, amount: int | None) -> None:
    assert amount_of(text) == amount
    assert limit_of(text) == (amount or None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0/1", (0, 1)),
        ("32.0/40", (32, 40)),
        ("32.10/40.9", (33, 40)),
        (f"{MOST}/{MOST}", (MOST, MOST)),
        (f"{MOST}.5/{MOST}", None),
        (f"1/{MOST + 1}", None),
        ("0/0", None),
        ("32", None),
        ("32./40", None),
    ],
)
def test_what_is_used_of_what(text: str, told: tuple[int, int] | None) -> None:
    assert used_of(text) == told


@pytest.mark.parametrize(
    ("text", "scale", "seconds"),
    [
        ("1200", 0.001, 1.2),
        ("-1200", 0.001, 0),
        ("0", 1, 0),
        (str(MOST), 1, MOST),
        (str(MOST + 1), 1, inf),
        (str(MOST + 1), 0.001, (MOST + 1) / 1000),
        ("9" * 1024, 0.001, inf),
        ("-" + "9" * 1024, 0.001, 0),
        # What is no number is not scaled.
        ("Sat, 29 Nov 2025 14:36:40 GMT", 0.001, 60),
        ("Sat, 29 Nov 2025 14:34:40 GMT", 1, 0),
        ("1764427000s", 1, None),
        ("1e3", 1, None),
    ],
)
def test_pauses(text: str, scale: float, seconds: float | None) -> None:
    assert pause_of(text, scale, now) == seconds


#: Texts that come near to being dates and numbers.
NEAR = st.one_of(
    st.text(),
    st.text("0123456789.-+e:/ TZdhmsuµn", max_size=40),
    st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Za-z]{3} [0-9]{1,12} .{0,12}", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}.{0,12}", fullmatch=True),
    st.datetimes().map(lambda instant: f"{instant.isoformat()}Z"),
    st.datetimes().map(lambda instant: f"{instant:%a, %d %b %Y %H:%M:%S} GMT"),
    st.floats(min_value=0).map(lambda seconds: f"{seconds:f}"),
    st.from_regex(r"([0-9]{1,20}(\.[0-9]{1,3})?(d|h|m|s|ms|us|ns)){1,4}", fullmatch=True),
)

READERS: list[Callable[[str, float], float | None]] = [
    lambda text, utc: reset_of(text, lambda: utc),
    lambda text, _: amount_of(text),
    lambda text, _: limit_of(text),
]


@examples(400)
@given(NEAR, st.one_of(st.floats(), st.floats(0, 1e10)))
def test_nothing_raises_and_all_is_in_its_range(text: str, utc: float) -> None:
    for read in READERS:
        told = read(text, utc)
        assert told is None or 0 <= told <= MOST

    pause = pause_of(text, 1, lambda: utc)
    assert pause is None or 0 <= pause <= MOST or pause == inf
    used = used_of(text)
    assert used is None or (0 <= used[0] <= MOST and 1 <= used[1] <= MOST)
    date_of(text)
