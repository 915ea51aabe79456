"""Whatever a server sends: nothing raises, and what is read is in its range."""

from __future__ import annotations

from math import inf, isfinite

from hypothesis import given
from hypothesis import strategies as st

from anythrottle.integrations.headers import PLAIN, PROFILES, Figures, Profile, read_figures
from tests.properties import examples

MOST = 10**15

STATUSES = st.one_of(st.sampled_from([200, 403, 429, 503, 529]), st.integers(-1, 1000))

CLOCKS = st.one_of(st.just(1764426940.0), st.floats())

#: Texts that are nearly of use.
NUMBERS = st.one_of(
    st.integers(-10, 10**17).map(str),
    st.floats(-10, 1e17).map(lambda number: f"{number:.3f}"),
    st.sampled_from(["6m0s", "1h", "32/40", "2025-11-29T14:36:40Z", "100, 100;w=60", "9" * 2000]),
    st.sampled_from(["Sat, 29 Nov 2025 14:36:40 GMT", "false", "true"]),
)

KEYS = st.sampled_from(["q", "w", "r", "t", "qu", "pk", "anythrottle-t"])

BARE = st.one_of(
    st.integers(-2, 10**16).map(str),
    st.sampled_from(["1.5", '"tokens"', "tokens", "?1", ":AAA=:", "@1764426940", '%"x"', "(1 2)"]),
)

ITEM = st.builds(
    lambda name, params: name + "".join(f";{key}={value}" for key, value in params.items()),
    st.one_of(BARE, st.sampled_from(['"a"', '"b"', "a", '"fixed window";"a"', ""])),
    st.dictionaries(KEYS, BARE, max_size=4),
)

FIELDS = st.one_of(
    st.lists(ITEM, max_size=60).map(", ".join),
    st.dictionaries(st.sampled_from(["limit", "remaining", "reset"]), BARE).map(
        lambda values: ", ".join(f"{key}={value}" for key, value in values.items())
    ),
)

TEXTS = st.one_of(
    NUMBERS,
    FIELDS,
    st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=40),
    st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")),
    st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, list[tuple[str, str]], Profile, float]:
    """Return a status, headers of which many are known, a profile and a clock."""
    profile = draw(st.sampled_from(list(PROFILES.values())))
    known = st.sampled_from(sorted(profile.known))
    names = st.one_of(known, known.map(str.title), st.text(max_size=20))
    headers = draw(st.lists(st.tuples(names, TEXTS), max_size=30))
    return draw(STATUSES), headers, profile, draw(CLOCKS)


def check(figures: Figures, profile: Profile) -> None:
    assert len(figures.quotas) <= 32
    for quota in figures.quotas:
        assert quota.unit
        assert (quota.limit, quota.remaining) != (None, None)
        assert quota.limit is None or 1 <= quota.limit <= MOST
        assert quota.window is None or 0 < quota.window <= MOST
        assert quota.remaining is None or 0 <= quota.remaining <= MOST
        assert quota.reset_after is None or 0 <= quota.reset_after <= MOST
        assert quota.reset_after is None or quota.remaining is not None

    assert figures.refused or not figures.certain
    assert figures.refused or figures.retry_after is None
    told = figures.retry_after
    assert told is None or 0 < told <= MOST or told == inf
    assert figures.bucket is None or 1 <= len(figures.bucket) <= 256
    assert len(set(figures.malformed)) == len(figures.malformed)
    assert set(figures.malformed) <= profile.known


@examples(300)
@given(answers())
def test_nothing_raises_and_all_is_in_its_range(
    answer: tuple[int, list[tuple[str, str]], Profile, float],
) -> None:
    status, headers, profile, utc = answer
    figures = read_figures(status, headers, profile, utc=utc)
    check(figures, profile)
    when = profile.refusals.get(status)
    assert figures.refused <= (when is not None)
    assert figures.refused >= (when == "always")
    # Only what is asked for is looked at.
    mine = [(name, value) for name, value in headers if name.lower() in profile.known]
    assert read_figures(status, mine, profile, utc=utc) == figures


@examples(300)
@given(STATUSES, FIELDS, FIELDS, st.integers(1, 5))
def test_drafts(status: int, state: str, policy: str, parts: int) -> None:
    headers = [("RateLimit", state), ("RateLimit-Policy", policy)]
    figures = read_figures(status, headers, utc=0)
    check(figures, PLAIN)
    # The parts of a list are as good as the list, wherever it is cut.
    items = state.split(", ")
    size = -(-len(items) // parts)
    cut = [", ".join(items[start : start + size]) for start in range(0, len(items), size)]
    split = [("RateLimit", part) for part in cut]
    assert read_figures(status, [*split, headers[1]], utc=0) == figures


@examples(200)
@given(st.integers(0, 10**6), st.integers(1, 10**6), st.floats(0, 1e6), st.floats(0, 2e9))
def test_no_figure_is_told_too_early(remaining: int, limit: int, reset: float, skew: float) -> None:
    """Whatever the form of a reset, and however wrong our clock is."""
    now = 1764426940
    forms = [f"{reset:.6f}", f"{reset * 1000:.3f}ms", f"{now + reset:.6f}"]
    headers = {
        "Date": "Sat, 29 Nov 2025 14:35:40 GMT",
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
    }
    for form in forms:
        told = {**headers, "X-RateLimit-Reset": form}
        (quota,) = read_figures(200, told.items(), utc=now + skew).quotas
        assert (quota.limit, quota.remaining) == (limit, remaining)
        assert quota.reset_after is not None
        assert isfinite(quota.reset_after)
        assert abs(quota.reset_after - reset) < 1e-5
