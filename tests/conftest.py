"""Real servers for the tests: a PostgreSQL, a Redis, a Temporal per test process, each when first wanted.

Which ones, HOLDFAST_TEST_STACK says (docs/TESTING.md); as a rule embedded ones, which keep nothing (no
fsync), are stopped at the end, and die with this process should it be killed. A test gets a database of its
own, cloned from a migrated template, and an empty Redis. Temporal is shared: tests use ids of their own.
"""

import asyncio
import gc
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import redis.asyncio
import uvloop
from xdist.remote import Producer

from app.dev.servers import EmbeddedPostgres
from app.infra.postgres.migrate import migrate
from tests import schedule, stack_external
from tests.proxy import FaultProxy
from tests.servers import Servers, redis_in
from tests.stack import TEMPLATE, Postgres, Redis, Temporal, chosen

_numbers = count(1)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production, or with HOLDFAST_TEST_LOOP=asyncio the one that everybody has.

    It is one for all tests: another one would end what the tests of this process share.
    """
    if os.environ.get("HOLDFAST_TEST_LOOP") == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a stack that there is not, before anything is run."""
    if chosen() == "external":
        stack_external.refuse_incomplete(config.getoption("numprocesses", None) or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare all garbage collections what is collected here: it stays, and looking at it takes long."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes are dealt what was collected in an order of ours."""
    if hasattr(config, "workerinput"):
        schedule.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> schedule.Schedule | None:
    """Ours for `--dist loadfile`."""
    return schedule.Schedule(config, log) if config.option.dist == "loadfile" else None


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Leave how it ended beside the tests that failed: `.ci/again` tries those again only if all were run."""
    cache = getattr(session.config, "cache", None)
    if cache is not None and not hasattr(session.config, "workerinput"):
        cache.set("holdfast/exit_status", int(exitstatus))


def pytest_report_header() -> str:
    """Which servers the tests share, and of which program those of their own are."""
    return f"stack: {chosen()}; embedded Redis: {os.environ.get('HOLDFAST_TEST_REDIS', 'Valkey')}"


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the servers keep their files; removed at the end, because they are large."""
    folder = tmp_path_factory.mktemp("servers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def servers(servers_folder: Path) -> AsyncIterator[Servers]:
    """The servers of this process."""
    async with Servers(servers_folder) as servers:
        yield servers


@pytest.fixture(scope="session")
async def embedded_postgres(servers: Servers) -> EmbeddedPostgres:
    """An embedded PostgreSQL whatever the stack: for tests that look at its processes."""
    return await servers.embedded_postgres()


@pytest.fixture(scope="session")
async def postgres_server(servers: Servers) -> Postgres:
    """The PostgreSQL, with a migrated template."""
    server = await servers.postgres()
    await migrate(await server.create(TEMPLATE))
    return server


@pytest.fixture
async def database_url(postgres_server: Postgres) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with _own_database(postgres_server, TEMPLATE) as url:
        yield url


@pytest.fixture
async def empty_database_url(postgres_server: Postgres) -> AsyncIterator[str]:
    """A database of the test's own with nothing in it."""
    async with _own_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
async def redis_server(servers: Servers) -> Redis:
    """The Redis. A test that stops, freezes or kills one takes one of its own: see tests/servers.py."""
    return await servers.redis()


@pytest.fixture(scope="session")
async def standing_redis(servers_folder: Path) -> AsyncIterator[str]:
    """A Redis for what stands as long as this process: nobody empties it, and no test sees what is in it."""
    server = redis_in(servers_folder / "standing-redis")
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@pytest.fixture
async def redis_url(redis_server: Redis) -> str:
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
async def temporal_server(servers: Servers) -> Temporal:
    """The Temporal, with the namespace `temporal_server.namespace` and our search attributes."""
    return await servers.temporal()


@pytest.fixture
def temporal_address(temporal_server: Temporal) -> str:
    """Temporal's frontend."""
    return temporal_server.address


@pytest.fixture
def temporal_namespace(temporal_server: Temporal) -> str:
    """The namespace there."""
    return temporal_server.namespace


@asynccontextmanager
async def _own_database(server: Postgres, template: str | None = None) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    url = await server.create(name, template)
    try:
        yield url
    finally:
        await server.drop(name)
