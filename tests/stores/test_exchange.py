"""The flat form in which processes and the store speak, judged by its inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anythrottle.stores.exchange import (
    NEVER,
    Amounts,
    Charged,
    Ended,
    GivenBack,
    Grant,
    Happening,
    Held,
    News,
    Paused,
    Push,
    Quota,
    Remembered,
    Reply,
    Request,
    Resumed,
    Rule,
    Started,
    Tightened,
    Want,
    rules_text,
)
from anythrottle.stores.rule_states import rules_of
from anythrottle.stores.wire import numbers, push_of, reply_of, request_args
from tests.properties import examples

instants = st.integers(0, NEVER)
counts = st.integers(0, 2**31)
amounts = st.lists(counts, max_size=3).map(tuple)
names = st.text("abcxyz0123456789-", min_size=1, max_size=8)
grants = st.builds(
    Grant, counts, instants, counts, amounts, st.lists(instants, max_size=3).map(tuple), counts
)
news = st.builds(
    News,
    epoch=names,
    now=instants,
    paused_until=instants,
    come=instants,
    due=instants,
    waiting=counts,
    grants=st.lists(grants, max_size=3).map(tuple),
)
receipts = st.lists(instants, max_size=3).map(tuple)
happenings: st.SearchStrategy[Happening] = st.one_of(
    st.builds(Started, instants, amounts, receipts),
    st.builds(GivenBack, amounts, receipts),
    st.builds(Ended, instants, amounts),
    st.builds(Charged, instants, amounts, st.booleans()),
    st.builds(Paused, instants),
    st.just(Resumed()),
    st.builds(Tightened, st.integers(0, 9), counts, st.one_of(st.just(-1), instants)),
    st.builds(Remembered, st.integers(0, 9), counts, instants),
    st.builds(Held, amounts),
)
requests = st.builds(
    Request,
    rules=st.just("slots:4:0:0:calls"),
    node=names,
    number=counts,
    epoch=st.one_of(st.just(""), names),
    fresh=names,
    expires=instants,
    grace=counts,
    horizon=counts,
    lease=counts,
    hold_back=counts,
    alive=st.booleans(),
    holds=st.booleans(),
    census=st.tuples(counts, counts, counts),
    count_all=st.booleans(),
    probe=amounts,
    received=st.lists(counts, max_size=3).map(tuple),
    wants=st.lists(st.builds(Want, amounts, counts), max_size=3).map(tuple),
    happenings=st.lists(happenings, max_size=4).map(tuple),
)


def numbers_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


#: How a script reads what has happened, from the arguments that follow the letter.
READERS: dict[str, Callable[[int, str, str], Happening]] = {
    "S": lambda at, second, third: Started(at, numbers_of(second), numbers_of(third)),
    "B": lambda _, second, third: GivenBack(numbers_of(second), numbers_of(third)),
    "E": lambda at, second, _: Ended(at, numbers_of(second)),
    "C": lambda at, second, third: Charged(at, numbers_of(second), third == "1"),
    "P": lambda at, *_: Paused(at),
    "R": lambda *_: Resumed(),
    "T": lambda at, second, third: Tightened(int(second), int(third), at),
    "M": lambda at, second, third: Remembered(int(second), int(third), at),
    "H": lambda _, second, __: Held(numbers_of(second)),
}


def happening_of(letter: str, first: str, second: str, third: str) -> Happening:
    return READERS[letter](int(first), second, third)


def request_of(args: list[str]) -> Request:
    """Return the request, as a script reads it from its arguments, which are text there."""
    parts = iter(args)
    rules, node, number, epoch, fresh, expires, grace, horizon, lease, hold_back = (
        next(parts) for _ in range(10)
    )
    alive, holds, census, count_all, probe, received, count = (next(parts) for _ in range(7))
    waiting, running, kept = numbers_of(census)
    wants = tuple(
        Want(numbers_of(next(parts).replace("-", "")), int(next(parts))) for _ in range(int(count))
    )
    rest = list(parts)
    assert len(rest) % 4 == 0
    return Request(
        rules=rules,
        node=node,
        number=int(number),
        epoch=epoch,
        fresh=fresh,
        expires=int(expires),
        grace=int(grace),
        horizon=int(horizon),
        lease=int(lease),
        hold_back=int(hold_back),
        alive=alive == "1",
        holds=holds == "1",
        census=(waiting, running, kept),
        count_all=count_all == "1",
        probe=numbers_of(probe),
        received=numbers_of(received),
        wants=wants,
        happenings=tuple(happening_of(*rest[i : i + 4]) for i in range(0, len(rest), 4)),
    )


def news_parts(news: News) -> Iterator[str | int]:
    yield news.epoch
    yield from (news.now, news.paused_until, news.come, news.due)
    yield from (news.waiting, news.served, len(news.grants))
    for grant in news.grants:
        yield from (grant.number, grant.due, grant.grace)
        yield from (numbers(grant.amounts), numbers(grant.receipts), grant.count)


def reply_parts(reply: Reply) -> list[str | int]:
    """Return the reply, as a script sends it."""
    parts = [reply.status, reply.theirs, *reply.census, reply.probed, *news_parts(reply.news)]
    for quota in reply.quotas:
        parts += [quota.remaining, quota.more, quota.full]

    return parts


class TestRequest:
    @examples(200)
    @given(requests)
    def test_comes_as_it_was_sent(self, request: Request) -> None:
        args = request_args(request)
        assert request_of([str(arg) for arg in args]) == request
        # What no server takes for an argument is none: neither True nor None, nor any float.
        assert {type(arg) for arg in args} <= {str, int}


class TestReply:
    @examples(150)
    @given(
        st.builds(
            Reply,
            st.sampled_from(["done", "stale", "lost", "buried", "conflict"]),
            news,
            st.lists(st.builds(Quota, counts, instants, instants), max_size=3).map(tuple),
            st.tuples(counts, counts, counts),
            instants,
            st.sampled_from(["", "slots:4:0:0:calls"]),
        )
    )
    def test_comes_as_it_was_sent(self, reply: Reply) -> None:
        parts = reply_parts(reply)
        assert reply_of(parts) == reply
        # One number may come as text, another as a number.
        assert reply_of([str(part) for part in parts]) == reply


class TestPush:
    @examples(150)
    @given(names, news, st.booleans())
    def test_comes_as_it_was_sent(self, node: str, news: News, recall: bool) -> None:
        message = " ".join(map(str, (int(recall), *news_parts(news))))
        # Amounts and receipts of no rule are empty, and stay a part of their own.
        assert push_of(node, message) == Push(node, news, recall)


class TestRules:
    @examples(150)
    @given(
        st.lists(
            st.builds(
                Rule,
                st.sampled_from(["window", "end", "bucket", "fixed", "slots"]),
                st.one_of(st.integers(1, 10**9).map(float), st.floats(1e-9, 1e15)),
                st.integers(0, 10**14),
                st.floats(-1, 1e15),
                st.text(min_size=1),
            ),
            max_size=4,
        )
    )
    def test_are_kept_as_text(self, rules: list[Rule]) -> None:
        text = rules_text(rules)
        assert rules_of(text) == rules
        assert text.isascii()

    @pytest.mark.parametrize("unit", ["input tokens", "a:b", "a b:c", "%20", "\n", "é"])
    def test_any_unit_will_do(self, unit: str) -> None:
        rule = Rule("window", 5, 1_000_000, 0, unit)
        text = rules_text([rule, rule])
        assert rules_of(text) == [rule, rule]
        assert len(text.split()) == 2

    def test_what_holds(self) -> None:
        holding = [Rule(kind, 1, 1, 0, "") for kind in ("end", "slots")]
        others = [Rule(kind, 1, 1, 0, "") for kind in ("window", "bucket", "fixed")]
        assert all(rule.holds for rule in holding)
        assert not any(rule.holds for rule in others)

    def test_a_limit_is_told_exactly(self) -> None:
        amount: Amounts = (1,)
        assert numbers(amount) == "1"
        third = Rule("bucket", 1 / 3, 1, 0.1, "calls")
        assert rules_of(str(third)) == [third]
