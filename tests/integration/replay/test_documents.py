"""Documents of final orders that differ from their orders are shown, and written anew."""

import time

import msgspec
import pytest

from app.contracts.documents import encode_order
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.replay import documents as module
from app.replay.engine import Engine
from app.replay.registry import handlers
from tests.integration.replay.past import Past


@pytest.fixture
async def documents(redis_url: str, past: Past, monkeypatch):
    """Documents in the test's Redis, and an engine that looks after them."""
    monkeypatch.setattr(module, "SETTLE_S", 0.05)
    async with open_redis(redis_url, None, "test", "test") as clients:
        found = Documents(clients, "test")
        past.handlers = handlers(found)
        past.engine = Engine(past.database, past.handlers, batch_events=3)
        yield found


async def test_a_wrong_document_is_shown_and_written_anew(past: Past, documents: Documents):
    """The others, and those that are not there, are left alone."""
    orders = [await past.orders.reject(await past.orders.accept()) for _ in range(7)]
    await past.orders.accept()
    wrong = msgspec.structs.replace(orders[2], waiting_on="nobody")
    await documents.put_all([*orders[:2], wrong, *orders[3:5]], as_of=time.monotonic())
    shown = await past.run("order_documents")
    (change,) = await past.changes(shown.id)
    assert change.key == {"order": wrong.id}
    assert (change.before, change.after) == ({"waiting_on": "nobody"}, {"waiting_on": None})
    assert shown.done == shown.total == 7
    assert await documents.get(wrong.id) == encode_order(wrong), "nothing was touched"
    assert (await past.apply(shown.id)).state == "applied"
    assert await documents.get(wrong.id) == encode_order(orders[2])
    assert await documents.get(orders[6].id) is None
    assert (await past.run("order_documents")).changes == 0


async def test_it_refuses_when_a_document_is_another_by_now(past: Past, documents: Documents):
    """Somebody wrote it anew meanwhile."""
    order = await past.orders.reject(await past.orders.accept())
    await documents.put(msgspec.structs.replace(order, waiting_on="nobody"))
    shown = await past.run("order_documents")
    await documents.rewrite([order])
    replay = await past.apply(shown.id)
    assert (replay.state, replay.applied) == ("refused", 0)
    assert order.id in (replay.error or "")
