"""A client of a shared limiter whose store is away."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest

from anythrottle import PolicyConflict, RateLimiter, StoreError
from anythrottle.stores.memory import MemoryServer, MemoryStore
from tests.integrations.tools import URL, Answer, Library, Throttled, held

pytestmark = pytest.mark.timing

REFUSED = Answer(429, {"retry-after": "3"}, after=0.5)


def store_of(server: MemoryServer | None = None) -> MemoryStore:
    return MemoryStore(server or MemoryServer(), deadline=1)


@pytest.mark.promise("S13")
async def test_that_the_store_is_away_is_an_error_of_the_library_too(library: Library) -> None:
    store = store_of()
    throttled = Throttled(library, store.limiter("api", "9/h"))
    async with store:
        store.server.network.down = True
        with pytest.raises(library.module.HTTPError) as caught:
            await throttled.get()

        assert anyio.current_time() == 1
        error = caught.value
        assert type(error) is library.ours.StoreAway
        assert isinstance(error, StoreError)
        assert isinstance(error, library.module.ConnectError)
        assert isinstance(error.__cause__, TimeoutError)
        assert error.name == "api"
        assert str(error).startswith("the store does not serve limiter 'api': no answer within 1 s")
        assert str(error.request.url) == URL
        # Nobody tries again behind the program's back.
        assert throttled.server.sent == []
        other = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
        assert (type(other), other.args) == (type(error), error.args)
        assert not error.is_mistake
        assert library.ours.StoreAway("api", "why", "mistake").is_mistake
        with pytest.raises(RuntimeError):
            _ = library.ours.StoreAway("api", "why").request

        store.server.network.down = False
        await anyio.sleep(2)
        assert (await throttled.get()).status_code == 200


@pytest.mark.promise("H5")
async def test_a_request_that_cannot_go_again_without_the_store_is_refused(
    library: Library,
) -> None:
    store = store_of()
    throttled = Throttled(library, store.limiter("api", "9/h"), REFUSED)
    async with store:
        async with anyio.create_task_group() as group:
            group.start_soon(cut_off, store, 0.1)
            answer = await throttled.get()

        assert answer.status_code == 429
        assert len(throttled.server.sent) == 1
        assert store.limiter("api", "9/h").statistics().tasks_waiting == 0


async def cut_off(store: MemoryStore, after: float) -> None:
    await anyio.sleep(after)
    store.server.network.down = True


async def test_a_conflict_is_a_mistake_in_the_program(library: Library) -> None:
    server = MemoryServer()
    async with store_of(server) as one, store_of(server) as other:
        await one.limiter("api", "9/h").acquire()
        throttled = Throttled(library, other.limiter("api", "8/h"))
        with pytest.raises(PolicyConflict) as caught:
            await throttled.get()

        assert not isinstance(caught.value, library.module.HTTPError)


async def test_an_error_of_another_store_in_the_call_is_not_ours(library: Library) -> None:
    class Failing:
        async def handle_async_request(self, request: Any) -> Any:
            raise StoreError("other", "as it happens")

    throttled = Throttled(library, RateLimiter("9/h"), server=Failing())
    with pytest.raises(StoreError) as caught:
        await throttled.get()

    assert type(caught.value) is StoreError


async def test_what_a_transport_inside_of_another_does_not_send_is_given_back(
    library: Library,
) -> None:
    store = store_of()
    inner = Throttled(library, store.limiter("api", "9/h"))
    outer = RateLimiter("9/h", concurrency=1)
    throttled = Throttled(library, outer, server=inner.transport)
    async with store:
        store.server.network.down = True
        with pytest.raises(library.ours.StoreAway):
            await throttled.get()

    assert outer.peek().remaining == 9
    assert held(outer) == 0
