"""Order documents in Redis: the newer one wins, and none outlives its use."""

import asyncio
from time import monotonic

import pytest
from msgspec.structs import replace

from app.contracts.documents import encode_order
from app.contracts.streams import order_document
from app.domain.errors import Unavailable
from app.domain.order import Status
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import FINAL_LIFETIME_S, OPEN_LIFETIME_S, Documents
from tests.integration.redis.orders import order


@pytest.fixture
def documents(clients):
    """Documents on the test's server."""
    return Documents(clients, "test")


async def test_a_document_is_read_as_it_is_sent_to_readers(documents):
    """What comes out are the very bytes of the public document."""
    assert await documents.get(order().id) is None
    await documents.put(order())
    assert await documents.get(order().id) == encode_order(order())


async def test_an_older_version_never_replaces_a_newer_one(documents):
    """Writers overtake one another; the document never goes back."""
    await documents.put(order(3))
    await documents.put(order(2, later_us=9))
    assert await documents.get(order().id) == encode_order(order(3))
    await documents.put(order(10))
    assert await documents.get(order().id) == encode_order(order(10))


async def test_what_an_order_waits_for_changes_without_a_version(documents):
    """Of two documents of one version the one that changed later wins."""
    waiting = replace(order(3, later_us=5), waiting_on="payments")
    await documents.put(waiting)
    await documents.put(order(3, later_us=4))
    assert await documents.get(order().id) == encode_order(waiting)
    await documents.put(order(3, later_us=6))
    assert await documents.get(order().id) == encode_order(order(3, later_us=6))


async def test_open_orders_live_a_second_and_final_ones_an_hour(documents, clients):
    """A lost write heals by itself while the order still moves."""
    key = order_document("test", order().id)
    await documents.put(order(1))
    assert 0 < await clients.hot.execute("PTTL", key) <= OPEN_LIFETIME_S * 1000
    await documents.put(order(2, status=Status.COMPLETED))
    left_s = await clients.hot.execute("PTTL", key) / 1000
    assert FINAL_LIFETIME_S * 0.8 < left_s <= FINAL_LIFETIME_S


async def test_the_second_begins_when_the_document_was_true(documents, clients):
    """Time that passed before the write is not given again; what is too old is not written at all."""
    key = order_document("test", order().id)
    await documents.put(order(1), as_of=monotonic() - 0.7 * OPEN_LIFETIME_S)
    assert 0 < await clients.hot.execute("PTTL", key) <= 300
    await clients.hot.execute("FLUSHALL")
    await documents.put(order(1), as_of=monotonic() - OPEN_LIFETIME_S)
    assert await documents.get(order().id) is None
    assert not await clients.hot.execute("EXISTS", key)


async def test_an_open_document_is_followed_by_the_final_one(documents):
    """And never comes back, whatever arrives late."""
    final = order(5, status=Status.COMPLETED)
    await documents.put(order(4))
    await documents.put(final)
    await documents.put(order(4))
    assert await documents.get(order().id) == encode_order(final)


async def test_many_are_put_in_few_writes(documents, clients):
    """A consumer's batch leaves at once, in one wave or two."""
    await documents.put(order())  # a server that lacks the script would be asked again for each
    before = clients.hot.statistics.batches
    many = [replace(order(), id=f"ord_{number:026}") for number in range(100)]
    await documents.put_all(many)
    assert (
        clients.hot.statistics.batches <= before + 4
    )  # the clock may be asked for, and the server whether it lives
    found = await asyncio.gather(*(documents.get(one.id) for one in many))
    assert found == [encode_order(one) for one in many]


async def test_a_server_that_lost_the_script_is_given_it_again(documents, clients):
    """Scripts die with the server's memory."""
    await documents.put(order(1))
    await clients.hot.execute("SCRIPT", "FLUSH")
    await documents.put(order(2))
    assert await documents.get(order().id) == encode_order(order(2))


@pytest.mark.parametrize("command", [("SET", "nonsense"), ("SET", ""), ("LPUSH", "x"), ("SET", "9 9\nolder")])
async def test_something_else_under_the_key_is_replaced(documents, clients, command):
    """A value that nobody understands is no newer version."""
    await clients.hot.execute(command[0], order_document("test", order().id), command[1])
    await documents.put(order(1))
    assert await documents.get(order().id) == encode_order(order(1))


async def test_a_dead_server_is_unavailable(valkey):
    """Whoever asks goes to PostgreSQL."""
    await valkey.kill()
    async with open_redis(valkey.url, None, "test", "test") as clients:
        documents = Documents(clients, "test")
        with pytest.raises(Unavailable):
            await documents.get(order().id)
        with pytest.raises(Unavailable):
            await documents.put(order())
