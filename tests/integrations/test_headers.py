"""What the headers of an answer tell: those of vendors, and how they are taken."""

from __future__ import annotations

import copy
import pickle
from math import inf

import pytest

from anythrottle.integrations.headers import (
    EXEMPT,
    PLAIN,
    Exempt,
    Figures,
    Profile,
    Quota,
    QuotaFields,
    profile_of,
    read_figures,
)

NOW = 1764426940

DATE = "Sat, 29 Nov 2025 14:35:40 GMT"

Headers = dict[str, str]


def read(
    status: int, headers: Headers, profile: Profile | str = PLAIN, *, date: str = DATE
) -> Figures:
    """Read headers of an answer whose date is known, by a clock that is wrong."""
    return read_figures(
        status, [("Date", date), *headers.items()], profile_of(profile), utc=NOW + 1e6
    )


def calls(
    limit: int | None, window: float | None, remaining: int | None, reset_after: float | None
) -> Quota:
    return Quota("calls", limit, window, remaining, reset_after)


def usual(prefix: str, **values: object) -> Headers:
    """Return headers that begin alike: ``reset_after`` is ``Reset-After``."""
    return {prefix + name.replace("_", "-").title(): str(told) for name, told in values.items()}


def drafts(limit: str, policy: str) -> Headers:
    return {"RateLimit": limit, "RateLimit-Policy": policy}


VENDORS: list[tuple[str, str, int, Headers, Figures]] = [
    (
        "github, an answer",
        "github",
        200,
        usual("X-RateLimit-", limit=5000, remaining=4987, reset=1764428740, resource="core"),
        Figures((calls(5000, 3600, 4987, 1800),), bucket="core"),
    ),
    (
        "github, a refusal by figures",
        "github",
        403,
        usual("X-RateLimit-", remaining=0, reset=1764427000),
        Figures((calls(None, 3600, 0, 60),), refused=True, certain=True, retry_after=60),
    ),
    (
        "github, a refusal by Retry-After",
        "github",
        403,
        {"Retry-After": "60", "X-RateLimit-Remaining": "4000"},
        Figures((calls(None, 3600, 4000, None),), refused=True, certain=True, retry_after=60),
    ),
    (
        "github, what is forbidden",
        "github",
        403,
        {"X-RateLimit-Remaining": "4000"},
        Figures((calls(None, 3600, 4000, None),)),
    ),
    (
        "openai, an answer",
        "openai",
        200,
        {
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "200000",
            "x-ratelimit-remaining-tokens": "199968",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        Figures((calls(10000, 60, 9999, 0.006), Quota("tokens", 200000, 60, 199968, 11.25))),
    ),
    (
        "openai, a refusal",
        "openai",
        429,
        {"retry-after-ms": "1200", "retry-after": "2"},
        Figures(refused=True, certain=True, retry_after=1.2),
    ),
    (
        "openai, not to be sent again",
        "openai",
        429,
        {"x-should-retry": "false"},
        Figures(refused=True, certain=True, final=True),
    ),
    (
        "azure",
        "openai",
        200,
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-remaining-tokens": "19913"},
        Figures(
            (Quota("tokens", None, 60, 19913, None),),
            malformed=("x-ratelimit-remaining-requests",),
        ),
    ),
    (
        "anthropic, an answer",
        "anthropic",
        200,
        {
            "anthropic-ratelimit-input-tokens-limit": "40000",
            "anthropic-ratelimit-input-tokens-remaining": "39000",
            "anthropic-ratelimit-input-tokens-reset": "2025-11-29T14:36:40Z",
        },
        Figures((Quota("input-tokens", 40000, 60, 39000, 0.06),)),
    ),
    ("anthropic, overloaded", "anthropic", 529, {}, Figures(refused=True, certain=True)),
    (
        "discord, an answer",
        "discord",
        200,
        usual("X-RateLimit-", limit=5, remaining=0, reset_after="1.250", bucket="abcd1234"),
        Figures((calls(5, None, 0, 1.25),), bucket="abcd1234"),
    ),
    (
        "discord, a refusal everywhere",
        "discord",
        429,
        {"Retry-After": "65", "X-RateLimit-Global": "true"},
        Figures(refused=True, certain=True, retry_after=65, everywhere=True),
    ),
    (
        "shopify, an answer",
        "shopify",
        200,
        {"X-Shopify-Shop-Api-Call-Limit": "32/40"},
        Figures((calls(40, None, 8, 0.5),)),
    ),
    (
        "shopify, a refusal",
        "shopify",
        429,
        {"Retry-After": "2.0"},
        Figures(refused=True, certain=True, retry_after=2),
    ),
    (
        "twitter",
        "twitter",
        429,
        usual("x-rate-limit-", limit=15, remaining=0, reset=1764427840),
        Figures((calls(15, 900, 0, 900),), refused=True, certain=True, retry_after=900),
    ),
    (
        "reddit",
        "reddit",
        200,
        usual("x-ratelimit-", remaining="598.0", reset=300),
        Figures((calls(None, None, 598, 300),)),
    ),
    (
        "gitlab",
        "plain",
        200,
        usual("RateLimit-", limit=600, remaining=599, reset=1764427000),
        Figures((calls(600, None, 599, 60),)),
    ),
    (
        "atlassian",
        "plain",
        200,
        usual("X-RateLimit-", remaining=0, reset="2025-11-29T14:36Z"),
        Figures((calls(None, None, 0, 20),)),
    ),
    (
        "hugging face",
        "plain",
        200,
        drafts('"api";r=489;t=189', '"fixed window";"api";q=500;w=300'),
        Figures((calls(None, None, 489, 189),), malformed=("ratelimit-policy",)),
    ),
    (
        "draft 10 and 11",
        "plain",
        200,
        drafts(
            '"permin";r=20;t=23, "perhr";r=399;t=2402', '"permin";q=50;w=60,"perhr";q=1000;w=3600'
        ),
        Figures((calls(50, 60, 20, 23), calls(1000, 3600, 399, 2402))),
    ),
    (
        "draft 7",
        "plain",
        200,
        drafts("limit=100, remaining=50, reset=5", "100;w=60"),
        Figures((calls(100, 60, 50, 5),)),
    ),
    (
        "draft 5",
        "plain",
        200,
        {"RateLimit-Limit": "100, 100;w=60;burst=1000"},
        Figures((calls(100, 60, None, None),)),
    ),
]


@pytest.mark.parametrize(
    ("profile", "status", "headers", "figures"),
    [row[1:] for row in VENDORS],
    ids=[row[0] for row in VENDORS],
)
def test_vendors(profile: str, status: int, headers: Headers, figures: Figures) -> None:
    assert read(status, headers, profile) == figures
    # Servers differ in capitals, and proxies change them.
    assert read(status, {name.upper(): told for name, told in headers.items()}, profile) == figures


@pytest.mark.parametrize(
    ("text", "seconds", "malformed"),
    [
        ("Sat, 29 Nov 2025 14:36:40 GMT", 60, ()),
        ("0.5", 0.5, ()),
        (" 7\t", 7, ()),
        ("-5", None, ()),
        ("0", None, ()),
        (DATE, None, ()),
        ("1e3", None, ("retry-after",)),
        ("", None, ("retry-after",)),
        ("9" * 21, inf, ()),
        ("9" * 1025, inf, ()),
        ("5" + " " * 2000, 5, ()),
    ],
)
@pytest.mark.parametrize("profile", ["plain", "github", "openai", "discord"])
def test_retry_after(
    profile: str, text: str, seconds: float | None, malformed: tuple[str, ...]
) -> None:
    figures = read(429, {"Retry-After": text}, profile)
    assert figures == Figures(refused=True, certain=True, retry_after=seconds, malformed=malformed)


class TestRefusals:
    def test_a_503_that_tells_nothing_is_an_answer(self) -> None:
        assert read(503, {}) == Figures()
        assert read(503, {"Retry-After": "0"}) == Figures()
        assert read(503, {"Retry-After": "soon"}) == Figures(malformed=("retry-after",))

    def test_a_503_is_doubtful(self) -> None:
        figures = read(503, {"Retry-After": "3"})
        assert figures == Figures(refused=True, certain=False, retry_after=3)

    @pytest.mark.parametrize("headers", [{}, {"X-RateLimit-Reset": "9"}])
    def test_a_503_with_nothing_left_is_a_refusal(self, headers: Headers) -> None:
        figures = read(503, {"X-RateLimit-Remaining": "0", **headers})
        assert figures.refused
        assert not figures.certain
        assert figures.retry_after == (9 if headers else None)

    def test_the_longest_reset_of_what_has_nothing_left(self) -> None:
        headers = drafts('"a";r=0;t=7, "b";r=0;t=12, "c";r=1;t=40, "d";r=0', "")
        assert read(429, headers).retry_after == 12

    def test_a_reset_that_is_past_tells_nothing(self) -> None:
        figures = read(429, usual("X-RateLimit-", remaining=0, reset=NOW - 5))
        assert figures.quotas == (calls(None, None, 0, 0),)
        assert figures.refused
        assert figures.retry_after is None

    def test_what_is_told_goes_before_resets(self) -> None:
        headers = usual("X-RateLimit-", remaining=0, reset=50)
        assert read(429, {"Retry-After": "20", **headers}).retry_after == 20
        assert read(429, {"Retry-After": "0", **headers}).retry_after == 50

    def test_the_first_header_that_tells_anything(self) -> None:
        headers = {"retry-after": "2", "retry-after-ms": "0"}
        assert read(429, headers, "openai").retry_after == 2
        figures = read(429, {"retry-after": "2", "retry-after-ms": "x"}, "openai")
        assert figures.retry_after == 2
        assert figures.malformed == ("retry-after-ms",)

    def test_without_a_refusal_nothing_is_told(self) -> None:
        headers = {"Retry-After": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}
        figures = read(200, headers)
        assert figures == Figures((calls(None, None, 0, 5),))

    def test_of_a_profile_of_one_s_own(self) -> None:
        profile = Profile("mine", (), refusals={420: "always"}, doubtful={420}, retry_after=())
        assert read(420, {"Retry-After": "9"}, profile) == Figures(refused=True, certain=False)
        assert read(429, {"Retry-After": "9"}, profile) == Figures()

    @pytest.mark.parametrize(
        ("text", "final"), [("false", True), (" False", True), ("true", False)]
    )
    def test_not_to_be_sent_again(self, text: str, final: bool) -> None:
        assert read(429, {"x-should-retry": text}).final == final


class TestBucketAndEverywhere:
    def test_the_length_of_a_bucket_is_bounded(self) -> None:
        assert read(200, {"X-RateLimit-Bucket": "b" * 256}, "discord").bucket == "b" * 256
        figures = read(200, {"X-RateLimit-Bucket": "b" * 257}, "discord")
        assert figures == Figures(malformed=("x-ratelimit-bucket",))

    def test_no_bucket(self) -> None:
        assert read(200, {"X-RateLimit-Bucket": " "}, "discord").bucket is None
        assert read(200, {"X-RateLimit-Bucket": "b"}).bucket is None

    @pytest.mark.parametrize(
        ("text", "everywhere"), [(" TRUE ", True), ("false", False), ("yes", False)]
    )
    def test_everywhere(self, text: str, everywhere: bool) -> None:
        headers = {"X-RateLimit-Global": text}
        assert read(429, headers, "discord").everywhere == everywhere
        assert not read(429, headers).everywhere


class TestClock:
    def test_the_local_clock_where_no_date_can_be_read(self) -> None:
        headers = usual("X-RateLimit-", remaining=4, reset=NOW + 60)
        for date, malformed in (("x", ("date",)), ("", ("date",))):
            figures = read_figures(200, [("Date", date), *headers.items()], utc=NOW + 20)
            assert figures == Figures((calls(None, None, 4, 40),), malformed=malformed)

        assert read_figures(200, headers.items(), utc=NOW + 20).quotas[0].reset_after == 40

    def test_a_date_is_read_only_if_it_is_needed(self) -> None:
        figures = read(200, usual("X-RateLimit-", remaining=4, reset=60), date="x")
        assert figures == Figures((calls(None, None, 4, 60),))

    @pytest.mark.parametrize("utc", [inf, -inf, float("nan"), -1e300])
    def test_a_clock_that_makes_no_sense(self, utc: float) -> None:
        headers = usual("X-RateLimit-", remaining=4, reset=NOW)
        figures = read_figures(200, headers.items(), utc=utc)
        assert figures.quotas == (calls(None, None, 4, None),)


class TestQuotas:
    @pytest.mark.parametrize(
        ("told", "quota"),
        [
            ({"limit": 10, "remaining": 4}, calls(10, None, 4, None)),
            ({"limit": 10}, calls(10, None, None, None)),
            # an instant at which there is more than nobody knows what
            ({"limit": 10, "reset": 5}, calls(10, None, None, None)),
            ({"limit": 10, "remaining": 10, "reset": 5}, calls(10, None, 10, 5)),
            ({"limit": 10, "remaining": 12, "reset": 5}, calls(10, None, 12, 5)),
            ({"limit": 10**15, "remaining": 10**15}, calls(10**15, None, 10**15, None)),
        ],
    )
    def test_as_far_as_told(self, told: dict[str, int], quota: Quota) -> None:
        assert read(200, usual("X-RateLimit-", **told)) == Figures((quota,))

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            *[("remaining", text) for text in ("-1", "1e3", "", "many", "5, 5", 10**15 + 1, "٣")],
            *[("limit", text) for text in ("0", "-1", "1e3", "", "many", "10 20", 10**15 + 1)],
            *[("limit", text) for text in ("x;w=1", "-1;w=1", "(1 2)", '"é"')],
            *[("reset", text) for text in ("-1", "1e3", "", "soon", 10**15 + 1)],
        ],
    )
    def test_what_cannot_be_read_is_not_told(self, name: str, text: object) -> None:
        told: dict[str, object] = {"limit": 10, "remaining": 4, "reset": 5}
        without = {other: value for other, value in told.items() if other != name}
        expected = read(200, usual("X-RateLimit-", **without))
        figures = read(200, usual("X-RateLimit-", **{**told, name: text}))
        assert figures.quotas == expected.quotas
        assert expected.malformed == ()
        assert figures.malformed == (f"x-ratelimit-{name}",)

    def test_only_a_reset(self) -> None:
        assert read(200, {"X-RateLimit-Reset": "5"}) == Figures()

    def test_the_first_reset_that_can_be_read(self) -> None:
        headers = usual("X-RateLimit-", remaining=4, reset_after=2.5, reset=NOW + 3)
        assert read(200, headers).quotas == (calls(None, None, 4, 2.5),)
        figures = read(200, {**headers, "X-RateLimit-Reset-After": "x"})
        assert figures.quotas == (calls(None, None, 4, 3),)
        assert figures.malformed == ("x-ratelimit-reset-after",)

    def test_all_kinds_of_names_at_once(self) -> None:
        headers = {
            **usual("X-RateLimit-", remaining=1),
            **usual("X-Rate-Limit-", remaining=2),
            **usual("RateLimit-", remaining=3),
            **drafts('"a";r=4', '"a";q=9;w=1, "b";q=5;w=2;qu="x"'),
        }
        assert read(200, headers).quotas == (
            *(calls(None, None, remaining, None) for remaining in (1, 2, 3)),
            calls(9, 1, 4, None),
            Quota("x", 5, 2, None, None),
        )

    def test_other_profiles_read_the_drafts_too(self) -> None:
        headers = {**usual("RateLimit-", limit=9, remaining=3), **drafts('"a";r=4', '"a";q=9;w=1')}
        quotas = (calls(9, None, 3, None), calls(9, 1, 4, None))
        assert read(200, headers, "reddit").quotas == quotas
        assert read(200, headers).quotas == quotas

    def test_a_profile_that_has_the_older_drafts_names_takes_them_as_it_says(self) -> None:
        profile = Profile("mine", (QuotaFields("RateLimit-Remaining", None, unit="tokens"),))
        headers = usual("RateLimit-", limit=9, remaining=3)
        assert read(200, headers, profile).quotas == (Quota("tokens", None, None, 3, None),)

    def test_no_more_than_32(self) -> None:
        state = ",".join(f"a{number};r=1" for number in range(40))
        assert len(read(200, {"RateLimit": state}).quotas) == 32


class TestFlow:
    FLOW = Profile("flow", (QuotaFields("left", "most", ("full",), flow=True, window=60),))

    @pytest.mark.parametrize(
        ("told", "reset_after"),
        [
            ({"left": "6", "most": "10", "full": "8"}, 2),
            ({"left": "0", "most": "10", "full": "8"}, 0.8),
            # nothing is missing
            ({"left": "10", "most": "10", "full": "8"}, None),
            ({"left": "11", "most": "10", "full": "8"}, None),
            # as late as can be, where the rate is not known
            ({"left": "6", "full": "8"}, 8),
            ({"left": "6", "most": "10"}, None),
        ],
    )
    def test_full_again(self, told: Headers, reset_after: float | None) -> None:
        (quota,) = read(200, told, self.FLOW).quotas
        assert quota.reset_after == reset_after

    @pytest.mark.parametrize(
        ("text", "remaining", "reset_after"),
        [
            ("32/40", 8, 0.5),
            ("40/40", 0, 0.5),
            ("43/40", 0, 2),
            ("0/40", 40, None),
            ("31.2/40", 8, 0.5),
            ("31.0/40.0", 9, 0.5),
            (" 32 / 40 ", 8, 0.5),
        ],
    )
    def test_used_of(self, text: str, remaining: int, reset_after: float | None) -> None:
        figures = read(200, {"X-Shopify-Shop-Api-Call-Limit": text}, "shopify")
        assert figures == Figures((calls(40, None, remaining, reset_after),))

    @pytest.mark.parametrize(
        "text", ["32", "32/", "/40", "-1/40", "1/0", f"1/{10**15 + 1}", f"{10**15 + 1}/4", "1/2/3"]
    )
    def test_used_of_that_cannot_be_read(self, text: str) -> None:
        figures = read(200, {"X-Shopify-Shop-Api-Call-Limit": text}, "shopify")
        assert figures == Figures(malformed=("x-shopify-shop-api-call-limit",))

    def test_what_flows_back(self) -> None:
        fields = QuotaFields("left", "most", ("full",), used_of="used", per_second=4)
        profile = Profile("mine", (fields,))
        assert read(200, {"left": "5"}, profile).quotas == (calls(None, None, 5, 0.25),)
        # A reset that is told goes before what is known of the rate, and so do the others.
        headers = {"left": "5", "most": "9", "full": "3", "used": "1/10"}
        assert read(200, headers, profile).quotas == (calls(9, None, 5, 3),)

    def test_a_flow_that_is_as_good_as_none(self) -> None:
        profile = Profile("mine", (QuotaFields("left", None, per_second=5e-324),))
        assert read(200, {"left": "5"}, profile).quotas == (calls(None, None, 5, 1e15),)


class TestRepeatedAndLong:
    def test_the_first_counts(self) -> None:
        headers = [("X-RateLimit-Remaining", "4"), ("x-ratelimit-remaining", "9")]
        assert read_figures(200, headers, utc=0).quotas == (calls(None, None, 4, None),)
        assert read_figures(200, headers[::-1], utc=0).quotas == (calls(None, None, 9, None),)

    def test_lists_are_joined(self) -> None:
        headers = [
            ("RateLimit-Policy", '"a";q=5;w=1'),
            ("RateLimit", '"a";r=4'),
            ("ratelimit", '"b";r=3'),
            ("ratelimit-policy", '"b";q=6;w=2'),
            ("RateLimit-Limit", "7"),
            ("ratelimit-limit", "7;w=3"),
        ]
        assert read_figures(200, headers, utc=0) == Figures(
            (calls(7, 3, None, None), calls(5, 1, 4, None), calls(6, 2, 3, None))
        )

    @pytest.mark.parametrize("parts", [1, 2, 50])
    def test_of_what_is_too_long_the_begin_is_read(self, parts: int) -> None:
        items = [f'"{number:04}";r={number}' for number in range(100)]
        size = len(items) // parts
        headers = [
            ("RateLimit", ", ".join(items[start : start + size]))
            for start in range(0, len(items), size)
        ]
        figures = read_figures(200, headers, utc=0)
        assert [quota.remaining for quota in figures.quotas] == list(range(32))
        assert figures.malformed == ("ratelimit",)

    def test_just_not_too_long(self) -> None:
        begin, end = '"a";r=1;x="', '"'
        text = begin + "x" * (1024 - len(begin + end)) + end
        assert read(200, {"RateLimit": text}) == Figures((calls(None, None, 1, None),))
        figures = read(200, {"RateLimit": text + " "})
        assert figures == Figures(malformed=("ratelimit",))

    def test_what_stands_behind_1024_characters_is_not_looked_at(self) -> None:
        spaces = " " * 1023
        assert read(200, {"X-RateLimit-Remaining": spaces + "45"}).quotas[0].remaining == 4
        assert read(429, {"Retry-After": spaces + "45"}).retry_after == 4


def test_what_tells_nothing_is_always_the_same() -> None:
    headers = [("Content-Type", "text/plain"), ("Date", DATE)]
    assert read_figures(200, headers, utc=0) is read_figures(404, [], utc=0)
    assert read_figures(200, headers, utc=0) == Figures()


def test_exempt() -> None:
    assert repr(EXEMPT) == "EXEMPT"
    assert isinstance(EXEMPT, Exempt)
    assert list(Exempt) == [EXEMPT]
    assert copy.deepcopy(EXEMPT) is EXEMPT
    assert pickle.loads(pickle.dumps(EXEMPT)) is EXEMPT  # noqa: S301 - our own
