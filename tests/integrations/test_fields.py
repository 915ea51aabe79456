"""The fields ``RateLimit`` and ``RateLimit-Policy`` are read, by all drafts."""

from __future__ import annotations

import pytest

from anythrottle.integrations._fields import limits_of
from anythrottle.integrations.headers import Figures, Quota, read_figures


def calls(
    limit: int | None, window: float | None, remaining: int | None, reset_after: float | None
) -> Quota:
    return Quota("calls", limit, window, remaining, reset_after)


def read(state: str | None, policy: str | None = None, **others: str) -> Figures:
    """Read an answer's fields; ``limit`` is ``RateLimit-Limit``."""
    headers = {f"RateLimit-{name.title()}": text for name, text in others.items()}
    if state is not None:
        headers["RateLimit"] = state

    if policy is not None:
        headers["RateLimit-Policy"] = policy

    return read_figures(200, headers.items(), utc=0)


class TestNames:
    @pytest.mark.parametrize("state", ['"a";r=3;t=2', "a;r=3;t=2", 'a; r=3; t=2; pk=:AAA=:;x="y"'])
    @pytest.mark.parametrize("policy", ['"a";q=9;w=5', "a;q=9;w=5", "a; q=9; w=5;pk=:AAA=:"])
    def test_strings_and_tokens(self, state: str, policy: str) -> None:
        assert read(state, policy) == Figures((calls(9, 5, 3, 2),))

    def test_what_is_joined_is_not_told_twice(self) -> None:
        policy = '"a";q=9;w=5, "b";q=8;w=4, "c";q=7'
        assert read('"b";r=1, "x";r=2', policy).quotas == (
            calls(8, 4, 1, None),
            calls(None, None, 2, None),
            calls(9, 5, None, None),
            calls(7, None, None, None),
        )

    def test_two_partitions_of_one_policy(self) -> None:
        assert read("a;r=1;pk=:AAA=:, a;r=2;pk=:AQE=:", "a;q=9;w=5").quotas == (
            calls(9, 5, 1, None),
            calls(9, 5, 2, None),
        )

    def test_of_two_policies_of_a_name_the_first_is_joined(self) -> None:
        assert read("a;r=1", "a;q=9;w=5, a;q=8;w=4").quotas == (
            calls(9, 5, 1, None),
            calls(8, 4, None, None),
        )

    def test_no_name_is_no_name(self) -> None:
        figures = read('"";r=1', "9;w=5")
        assert figures.quotas == (calls(None, None, 1, None), calls(9, 5, None, None))


class TestUnits:
    @pytest.mark.parametrize(
        ("qu", "unit"),
        [
            *(('"requests"', "calls"), ("requests", "calls"), ('"calls"', "calls")),
            *(('"content-bytes"', "content-bytes"), ("tokens", "tokens")),
            ('"concurrent-requests"', "concurrent-requests"),
        ],
    )
    def test_of_a_policy(self, qu: str, unit: str) -> None:
        assert read("a;r=3", f"a;q=9;w=5;qu={qu}") == Figures((Quota(unit, 9, 5, 3, None),))

    def test_of_what_is_left_if_there_is_no_policy(self) -> None:
        assert read('a;r=3;qu="tokens"') == Figures((Quota("tokens", None, None, 3, None),))

    @pytest.mark.parametrize("qu", ["7", '""', "?1", ":AAA=:"])
    def test_what_is_no_unit(self, qu: str) -> None:
        assert read(f"a;r=1;qu={qu}") == Figures(malformed=("ratelimit",))
        figures = read(None, f"a;q=1;qu={qu}, b;q=2;w=1")
        assert figures == Figures((calls(2, 1, None, None),), malformed=("ratelimit-policy",))


class TestNumbers:
    def test_milliseconds_of_ours_go_before_seconds(self) -> None:
        assert read("a;r=3;t=2;anythrottle-t=1202").quotas == (calls(None, None, 3, 1.202),)
        assert read("a;r=3;anythrottle-t=0").quotas == (calls(None, None, 3, 0),)

    def test_decimals(self) -> None:
        assert read("a;r=3.9;t=2.5", "a;q=9.9;w=0.5").quotas == (calls(9, 0.5, 3, 2.5),)

    @pytest.mark.parametrize(
        ("state", "quotas"),
        [
            *((f"a;{r}", ()) for r in ("t=5", "r=-1", "r", 'r="3"', "r=?1", "r=x")),
            *((f"a;r=3;{t}", (calls(None, None, 3, None),)) for t in ("t=-1", "t", 't="3"')),
            ("a;r=3;t=5;anythrottle-t=-1", (calls(None, None, 3, 5),)),
            ("a;r=3;t=5;anythrottle-t", (calls(None, None, 3, 5),)),
            ("7;r=3, b;r=4", (calls(None, None, 4, None),)),
            ("(a b);r=3, b;r=4", (calls(None, None, 4, None),)),
            # one that is no structured field takes all others with it
            *((state, ()) for state in ("a;r=3, ", "a;r=3 b", "a;R=3", "a;r=1000000000000000")),
            *((state, ()) for state in ('"é";r=3', '"a;r=3', "{}", "a;r=3,,b;r=4", "\ud800")),
        ],
    )
    def test_states_that_cannot_be_read(self, state: str, quotas: tuple[Quota, ...]) -> None:
        assert read(state) == Figures(quotas, malformed=("ratelimit",))

    @pytest.mark.parametrize(
        ("policy", "quotas"),
        [
            *((f"a;{q}", ()) for q in ("w=5", "q=0;w=5", "q=-1;w=5", "q;w=5", 'q="9";w=5')),
            *((f"{q};w=5", ()) for q in ("0", "-1", "?1", ":AAA=:", "(1 2)")),
            *((f"a;q=9;{w}", (calls(9, None, None, None),)) for w in ("w=-1", "w", "w=x")),
            ("a;q=9;w=0, b;q=8;w=1", (calls(8, 1, None, None),)),
            ("a;q=9;w=5,", ()),
            ("é", ()),
        ],
    )
    def test_policies_that_cannot_be_read(self, policy: str, quotas: tuple[Quota, ...]) -> None:
        assert read(None, policy) == Figures(quotas, malformed=("ratelimit-policy",))

    @pytest.mark.parametrize("text", ["", "  "])
    def test_empty_fields_tell_nothing(self, text: str) -> None:
        assert read(text, text) == Figures()


class TestSeventhDraft:
    @pytest.mark.parametrize(
        ("state", "quota"),
        [
            ("limit=100, remaining=50, reset=5", calls(100, 60, 50, 5)),
            ("remaining=50,reset=5,limit=100", calls(100, 60, 50, 5)),
            ("reset=5, remaining=50, limit=100;x=1, other=(1 2)", calls(100, 60, 50, 5)),
            ("limit=100", calls(100, 60, None, None)),
            ("limit=100, reset=5", calls(100, 60, None, None)),
        ],
    )
    def test_joined_by_the_limit(self, state: str, quota: Quota) -> None:
        others = (calls(10, 1, None, None), calls(1000, 3600, None, None))
        assert read(state, "10;w=1, 100;w=60, 1000;w=3600") == Figures((quota, *others))

    def test_which_of_two_is_not_known(self) -> None:
        assert read("limit=100, remaining=50", "100;w=60, 100;w=3600").quotas == (
            calls(100, None, 50, None),
            calls(100, 60, None, None),
            calls(100, 3600, None, None),
        )

    def test_without_a_limit_no_policy_is_meant(self) -> None:
        assert read("remaining=50, reset=5", "100;w=60").quotas == (
            calls(None, None, 50, 5),
            calls(100, 60, None, None),
        )

    def test_a_policy_of_another_unit_is_another(self) -> None:
        assert read("limit=100, remaining=50", '100;w=60;qu="tokens"').quotas == (
            calls(100, None, 50, None),
            Quota("tokens", 100, 60, None, None),
        )

    @pytest.mark.parametrize(
        ("state", "quotas"),
        [
            ("limit=0, remaining=50", (calls(None, None, 50, None),)),
            ("limit=9, remaining=-1", (calls(9, None, None, None),)),
            ("limit=9, remaining=5, reset=x", (calls(9, None, 5, None),)),
            ("reset=5", ()),
            ("limit=x, remaining=?1", ()),
            ("limit=9, remaining=5,", ()),
            ("limit=(1 2), remaining=é", ()),
        ],
    )
    def test_what_cannot_be_read(self, state: str, quotas: tuple[Quota, ...]) -> None:
        assert read(state) == Figures(quotas, malformed=("ratelimit",))


class TestOlderDrafts:
    def test_the_sixth_has_its_policies_beside(self) -> None:
        figures = read(None, "10;w=1, 50;w=60", limit="50", remaining="4", reset="3")
        assert figures == Figures((calls(50, 60, 4, 3), calls(10, 1, None, None)))

    def test_the_fifth_has_them_behind_the_limit(self) -> None:
        figures = read(None, limit='10, 10;w=1;comment="x", 50;w=60', remaining="4", reset="1")
        assert figures == Figures((calls(10, 1, 4, 1), calls(50, 60, None, None)))

    def test_a_limit_with_its_own_window(self) -> None:
        assert read(None, limit="10;w=1", remaining="4") == Figures((calls(10, 1, 4, None),))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("10", (10, ())),
            ("10, x;w=1, 0;w=1, 5, 5;w=0, 5;w=-1", (10, ())),
            *((text, None) for text in ("0", "-1;w=1", "x, 10;w=1", "", "10,", "é", "1 2")),
        ],
    )
    def test_limits(self, text: str, told: object) -> None:
        assert limits_of(text, "calls") == told

    def test_of_another_unit(self) -> None:
        quota = Quota("tokens", 5, 2, None, None)
        assert limits_of("10, 5;w=2", "tokens") == (10, (quota,))
