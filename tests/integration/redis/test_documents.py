"""Order documents in Redis: the newer one wins, and none outlives its use."""

import pytest
from msgspec.structs import replace

from app.contracts.documents import encode_order
from app.contracts.streams import order_document
from app.domain.errors import Unavailable
from app.domain.order import Status
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import FINAL_LIFETIME_MS, OPEN_LIFETIME_MS, Documents
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
    assert 0 < await clients.reads.pttl(key) <= OPEN_LIFETIME_MS
    await documents.put(order(2, status=Status.COMPLETED))
    assert OPEN_LIFETIME_MS < await clients.reads.pttl(key) <= FINAL_LIFETIME_MS


async def test_a_server_that_lost_the_script_is_given_it_again(documents, clients):
    """Scripts die with the server's memory."""
    await documents.put(order(1))
    await clients.writes.script_flush()
    await documents.put(order(2))
    assert await documents.get(order().id) == encode_order(order(2))


async def test_something_else_under_the_key_is_replaced(documents, clients):
    """A value that nobody understands is no newer version."""
    await clients.writes.set(order_document("test", order().id), b"nonsense")
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
