"""The flat wire form of the messages between a process and the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from .exchange import (
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
    Started,
    Status,
    Tightened,
)

#: The letters of the wire form.
_LETTERS: dict[type[Happening], str] = {
    Started: "S",
    GivenBack: "B",
    Ended: "E",
    Charged: "C",
    Paused: "P",
    Resumed: "R",
    Tightened: "T",
    Remembered: "M",
    Held: "H",
}


#: What stands for the amounts of a call where there are no rules: a text that isn't empty, because
#: the script tells texts apart by the spaces between them.
_NONE = "-"


def numbers(values: Sequence[float]) -> str:
    """Return numbers as one argument, separated by commas."""
    return ",".join(map(str, values))


def request_args(request: Request) -> list[str | int]:
    """Return the arguments of the script."""
    args: list[str | int] = [
        request.rules,
        request.node,
        request.number,
        request.epoch,
        request.fresh,
        request.expires,
        request.grace,
        request.horizon,
        request.lease,
        request.hold_back,
        int(request.alive),
        int(request.holds),
        numbers(request.census),
        int(request.count_all),
        numbers(request.probe),
        numbers(request.received),
        len(request.wants),
    ]
    for want in request.wants:
        args += [numbers(want.amounts) or _NONE, want.count]

    for happening in request.happenings:
        args += _happening_args(happening)

    return args


def _happening_args(happening: Happening) -> list[str | int]:
    """Return four arguments: the letter, an instant or two numbers, amounts, receipts."""
    rest: tuple[str | int, str | int, str | int]
    match happening:
        case Started(at, amounts, receipts):
            rest = at, numbers(amounts), numbers(receipts)
        case GivenBack(amounts, receipts):
            rest = 0, numbers(amounts), numbers(receipts)
        case Ended(at, amounts):
            rest = at, numbers(amounts), ""
        case Charged(at, amounts, held):
            rest = at, numbers(amounts), int(held)
        case Paused(until):
            rest = until, "", ""
        case Resumed():
            rest = 0, "", ""
        case Tightened(rule, remaining, reset):
            rest = reset, rule, remaining
        case Remembered(rule, amount, receipt):
            rest = receipt, rule, amount
        case _:
            rest = 0, numbers(happening.amounts), ""

    return [_LETTERS[type(happening)], *rest]


def reply_of(flat: Sequence[str | int]) -> Reply:
    """
    Return the reply that the script has sent.

    Its parts: status, theirs, three numbers of the census, when the probe could go, the news (see
    :func:`_news_of`), then three numbers for each quota.
    """
    status, theirs = cast("Status", flat[0]), str(flat[1])
    waiting, running, kept, probed = map(int, flat[2:6])
    parts = iter(flat[6:])
    news = _news_of(parts)
    rest = [int(part) for part in parts]
    quotas = tuple(Quota(*rest[i : i + 3]) for i in range(0, len(rest), 3))
    return Reply(status, news, quotas, (waiting, running, kept), probed, theirs)


def push_of(node: str, message: str) -> Push:
    """
    Return the push that was published to a process, or to all.

    Its parts, separated by spaces: 1 for a recall, else 0; the news.
    """
    parts = iter(message.split(" "))
    recall = next(parts) == "1"
    return Push(node, _news_of(parts), recall)


def _news_of(parts: Iterator[str | int]) -> News:
    """Return news: the epoch, six numbers, the count of grants, and six parts for each grant."""
    epoch = str(next(parts))
    now, paused_until, come, due, waiting, served, count = (int(next(parts)) for _ in range(7))
    grants: list[Grant] = []
    for _ in range(count):
        number, at, grace = (int(next(parts)) for _ in range(3))
        amounts, receipts = _numbers_of(next(parts)), _numbers_of(next(parts))
        grants.append(Grant(number, at, grace, amounts, receipts, int(next(parts))))

    return News(epoch, now, paused_until, come, due, waiting, tuple(grants), served)


def _numbers_of(text: str | int) -> tuple[int, ...]:
    return () if text == _NONE else tuple(int(part) for part in str(text).split(",") if part)
