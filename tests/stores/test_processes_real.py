"""Limits hold across real processes, whatever becomes of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.stores.servers import Server
from tests.stores.worker import Task
from tests.stores.working import crowd, wait_until, worst_window


def test_no_window_is_over_while_processes_die_stand_still_and_join(
    server: Server, tmp_path: Path
) -> None:
    limit, window = 30, 0.5
    tasks = [
        Task(server.url, backend, policies=("30/0.5s",), waiters=15, deadline=5)
        for backend in ("asyncio", "trio", "asyncio", "trio")
    ]
    with crowd(tmp_path) as processes:
        killed, stopped, *_ = processes.join(*tasks)
        processes.wait_for(limit)
        killed.kill()
        processes.wait_for(limit)
        stopped.stop()
        stood_still = time.monotonic()
        processes.join(tasks[0])
        processes.wait_for(limit)
        # longer than a window and the time for which grants are good
        time.sleep(max(0.0, stood_still + 2 * window - time.monotonic()))
        before = len(stopped.starts())
        stopped.cont()
        processes.wait_for(2 * limit)
        wait_until(lambda: len(stopped.starts()) > before)
        processes.end()

        starts = processes.starts()
        assert starts[-1] - starts[0] > 3 * window * 1e6
        assert worst_window(starts, window) <= limit
        assert all({"left": True} in each.lines for each in processes.all if each is not killed)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_a_killed_holder_s_slots_come_back(server: Server, tmp_path: Path) -> None:
    task = Task(
        server.url, waiters=2, concurrency=2, lease_timeout=4, hold=3600, deadline=2, policies=()
    )
    with crowd(tmp_path) as processes:
        [holder] = processes.join(task)
        wait_until(lambda: len(holder.starts()) == 2)
        [heir] = processes.join(task)
        time.sleep(1)
        assert heir.starts() == []
        killed_at = time.time_ns() // 1000
        holder.kill()
        wait_until(lambda: len(heir.starts()) == 2)
        # Three times while it is good a lease is renewed.
        assert heir.starts()[0] > killed_at + 1_000_000


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
def test_processes_get_equal_parts_of_full_windows(server: Server, tmp_path: Path) -> None:
    limit, window = 200, 1.0
    tasks = [
        Task(server.url, backend, policies=("200/1s",), waiters=50, deadline=5)
        for backend in ("asyncio", "trio", "asyncio", "trio")
    ]
    with crowd(tmp_path) as processes:
        processes.join(*tasks)
        # the first burst goes to who comes first
        processes.wait_for(limit)
        before = [len(each.starts()) for each in processes.all]
        processes.wait_for(3 * limit)
        shares = [
            len(each.starts()) - count for each, count in zip(processes.all, before, strict=True)
        ]
        processes.end()
        assert worst_window(processes.starts(), window) <= limit
        assert min(shares) > sum(shares) / len(shares) / 4, shares


@pytest.mark.parametrize(("gap", "worst"), [(99_990, 11), (99_996, 10), (100_000, 10)])
def test_a_window_that_is_over_is_seen(gap: int, worst: int) -> None:
    assert worst_window([gap * number for number in range(50)], 1.0) == worst
