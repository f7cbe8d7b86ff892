"""Real servers for the tests: a PostgreSQL, a Valkey, a Temporal per test process, each when first wanted.

They keep nothing (no fsync), are stopped at the end, and die with this process should it be killed. A test
gets a database of its own, cloned from a migrated template, and an empty Redis. Temporal is shared: tests use
ids of their own.
"""

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio
import uvloop

from app.dev.servers import EmbeddedPostgres, EmbeddedTemporal, EmbeddedValkey
from app.infra.postgres.migrate import migrate
from tests.proxy import FaultProxy
from tests.servers import redis_in

TEMPLATE = "migrated"

_numbers = count(1)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production, or with HOLDFAST_TEST_LOOP=asyncio the one that everybody has.

    It is one for all tests: another one would end what the tests of this process share.
    """
    if os.environ.get("HOLDFAST_TEST_LOOP") == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


def pytest_report_header() -> str:
    """Which Redis it is."""
    return f"redis: {os.environ.get('HOLDFAST_TEST_REDIS', 'the embedded Valkey')}"


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers keep their files; removed at the end, because they are large."""
    folder = tmp_path_factory.mktemp("servers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres_server(servers_folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The PostgreSQL, with a migrated template."""
    # SIGQUIT: an immediate shutdown, which leaves no shared memory behind as SIGKILL would.
    server = EmbeddedPostgres(servers_folder / "postgres", durable=False, follow=signal.SIGQUIT)
    try:
        await server.start()
        await _execute(server, f"CREATE DATABASE {TEMPLATE}")
        await migrate(_database(server, TEMPLATE))
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with _own_database(postgres_server, TEMPLATE) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database of the test's own with nothing in it."""
    async with _own_database(postgres_server, "template0") as url:
        yield url


@pytest.fixture(scope="session")
async def redis_server(servers_folder: Path) -> AsyncIterator[EmbeddedValkey]:
    """The Valkey."""
    server = redis_in(servers_folder / "redis")
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def redis_url(redis_server: EmbeddedValkey) -> str:
    """An empty Redis."""
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.flushall()
    return redis_server.url


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Decides everything random of a test: HOLDFAST_TEST_SEED, else the seed `make` shows, else a new one."""
    given = os.environ.get("HOLDFAST_TEST_SEED") or request.config.getoption("hypothesis_seed", None)
    chosen = int(given) if given else random.randrange(2**31)
    print(f"random seed: HOLDFAST_TEST_SEED={chosen}")
    return chosen


@pytest.fixture
async def fault_proxy(redis_url: str, seed: int) -> AsyncIterator[FaultProxy]:
    """An empty Redis behind a proxy that misbehaves as told: `fault_proxy.url`."""
    async with FaultProxy(redis_url, seed=seed) as proxy:
        yield proxy


@pytest.fixture(scope="session")
async def temporal_server(servers_folder: Path) -> AsyncIterator[EmbeddedTemporal]:
    """The Temporal, with the namespace `temporal_server.namespace` and our search attributes."""
    server = EmbeddedTemporal(servers_folder / "temporal", durable=False, follow=signal.SIGKILL)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest.fixture
def temporal_address(temporal_server: EmbeddedTemporal) -> str:
    """Temporal's frontend."""
    return temporal_server.address


@asynccontextmanager
async def _own_database(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _database(server, name)
    finally:
        await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: EmbeddedPostgres, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _database(server: EmbeddedPostgres, name: str) -> str:
    """The address of another database on the server."""
    return urlsplit(server.dsn)._replace(path=f"/{name}").geturl()
