"""A Valkey that these tests may kill, pause and flush."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedValkey
from app.hotpath.client import Client
from app.infra.redis.clients import RedisClients, open_redis
from app.infra.redis.gate import Gate
from tests.integration.redis.books import Books
from tests.integration.redis.counted import ENVIRONMENT, connected, shows, until
from tests.servers import redis_in


@pytest.fixture(scope="session")
async def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedValkey]:
    """The server, kept between tests; a test that kills it starts it again."""
    place: Path = tmp_path_factory.mktemp("valkey")
    server = redis_in(place)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def valkey(own_valkey: EmbeddedValkey) -> AsyncIterator[EmbeddedValkey]:
    """The server, running and empty."""
    if own_valkey.pid is None:
        await own_valkey.start()
    async with open_redis(own_valkey.url, None, "test", "conftest") as clients:
        await clients.writes.flushall()
    yield own_valkey
    if own_valkey.pid is None:
        await own_valkey.start()


@pytest.fixture
async def clients(valkey: EmbeddedValkey) -> AsyncIterator[RedisClients]:
    """Clients of that server."""
    async with open_redis(valkey.url, None, "test", "test") as opened:
        yield opened


@pytest.fixture
async def client(valkey) -> AsyncIterator[Client]:
    """Of a server that may be flushed."""
    async with connected(valkey.url, "gate") as client:
        yield client


@pytest.fixture
def books() -> Books:
    """What PostgreSQL knows."""
    return Books(cup=5, pot=0)


@pytest.fixture
async def gate(client, books) -> AsyncIterator[Gate]:
    """Of one process, ready."""
    async with Gate(client, books, ENVIRONMENT) as opened:
        await until(lambda: shows(client, cup=5, pot=0))
        yield opened
