"""The program that counts the calls on the way: what it counts, and that it does so at all."""

from __future__ import annotations

import pytest

from anythrottle import RateLimiter, WindowTokenBucket
from benchmarks import ways
from benchmarks.ways import Counter


def test_a_call_of_one_function() -> None:
    limiter = RateLimiter("20/10s")
    with Counter() as counter:
        assert isinstance(limiter.policies[0], WindowTokenBucket)

    assert counter.count()[1:] == (1, 0)
    assert all("policies" in each for each in counter.functions())


@pytest.mark.parametrize("way", ways.WAYS, ids=[way.title for way in ways.WAYS])
def test_each_way_is_the_same_each_time(way: ways.Way) -> None:
    calls, files, changes = ways.go(way.go).count()
    assert calls > changes >= files - 1 > 0
    assert ways.go(way.go).count() == (calls, files, changes)


def test_a_call_that_waits_counts_once_more_when_it_goes_on() -> None:
    functions = ways.go(ways.acquire_that_waits).functions()
    assert functions[0].endswith(": LineLimiter.acquire")
    assert sum(each.endswith("WaitLine.wait") for each in functions) == 2


def test_what_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ways"])
    ways.main()
    printed = capsys.readouterr().out
    assert all(way.title in printed and way.aim in printed for way in ways.WAYS)
    monkeypatch.setattr("sys.argv", ["ways", "waits"])
    ways.main()
    printed = capsys.readouterr().out
    assert "acquire() that waits 10 s" in printed
    assert "WaitLine.wait" in printed
    assert "amap" not in printed
