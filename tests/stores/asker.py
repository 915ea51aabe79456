"""A ledger, and processes that ask it one after the other."""

from __future__ import annotations

from anythrottle.stores.exchange import (
    Amounts,
    Happening,
    Micros,
    Push,
    Reply,
    Rule,
    Want,
)
from anythrottle.stores.ledger import Ledger
from tests.stores.processes import (
    ORIGIN,
    make_request,
)


class Asker:
    """A ledger, and processes that ask one after the other."""

    def __init__(self, *rules: Rule, horizon: Micros = 0, grace: Micros = 0) -> None:
        self.rules = rules
        self.horizon = horizon
        self.grace = grace
        self.now = ORIGIN
        self.numbers: dict[str, int] = {}
        self.pushes: list[Push] = []
        self.ledger = Ledger(make_request(rules, "a", 1, fresh="e1"), self.now)

    def ask(self, node: str, count: int = 0, *happenings: Happening, **changes: object) -> Reply:
        """Ask for calls that cost 1 of all; what is pushed meanwhile is noted."""
        self.numbers[node] = self.numbers.get(node, 0) + 1
        return self.say(node, count, *happenings, **changes)

    def say(self, node: str, count: int = 0, *happenings: Happening, **changes: object) -> Reply:
        """Say the same as before, or what is named, by the same number."""
        amounts: Amounts = (1,) * len(self.rules)
        plain = make_request(
            self.rules,
            node,
            self.numbers[node],
            grace=self.grace,
            horizon=self.horizon,
            epoch="e1",
            wants=(Want(amounts, count),) if count else (),
            happenings=happenings,
        )
        fields = {name: getattr(plain, name) for name in plain.__slots__} | changes
        del fields["rules"], fields["node"], fields["number"]
        request = make_request(self.rules, node, self.numbers[node], **fields)
        reply, self.pushes = self.ledger.exchange(request, self.now)
        return reply

    def pushed_to(self) -> list[str]:
        return [push.node for push in self.pushes]


def counts(reply: Reply) -> list[int]:
    return [grant.count for grant in reply.news.grants]
