"""External servers: nothing that is not the tests' is touched, and nothing of the tests' stays."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from tests import stack_external
from tests.servers import redis_in
from tests.stack import Postgres

NAMES = "SELECT datname FROM pg_database WHERE starts_with(datname, 'holdfast_test_')"
DEAD, LIVING, LIKE_OURS = "holdfast_test_0000000a_x", "holdfast_test_0000000b_x", "holdfast_test_records"


@pytest.fixture
async def server(postgres_server: Postgres, monkeypatch) -> Postgres:
    """A PostgreSQL that was there already."""
    monkeypatch.setenv(stack_external.DATABASE_URL, postgres_server.dsn)
    return postgres_server


async def names(server: Postgres) -> set[str]:
    """The databases there that look like ours."""
    connection = await asyncpg.connect(server.dsn)
    rows = await connection.fetch(NAMES)
    await connection.close()
    return {row["datname"] for row in rows}


async def test_what_tests_make_in_an_external_postgres_is_gone_at_the_end(server: Postgres):
    """Even what no test has dropped."""
    async with stack_external.postgres() as ours:
        await ours.create("migrated")
        await ours.create("clone", "migrated")
        assert await names(server) >= {f"{ours.prefix}migrated", f"{ours.prefix}clone"}
    assert [name for name in await names(server) if name.startswith(ours.prefix)] == []


async def test_databases_of_killed_runs_are_dropped_and_no_others(server: Postgres):
    """A run that lives holds its lock; what only begins alike is somebody's."""
    living = await asyncpg.connect(server.dsn)
    await living.execute("SELECT pg_advisory_lock($1, $2)", stack_external.LOCK, 0xB)
    for name in (DEAD, LIVING, LIKE_OURS):
        await server.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        async with stack_external.postgres():
            assert await names(server) >= {LIVING, LIKE_OURS}
            assert DEAD not in await names(server)
    finally:
        await living.close()
        for name in (DEAD, LIVING, LIKE_OURS):
            await server.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
async def external_redis(tmp_path: Path, monkeypatch) -> AsyncIterator["redis.asyncio.Redis[str]"]:
    """A Redis that was there already."""
    server = redis_in(tmp_path / "redis")
    await server.start()
    monkeypatch.setenv(stack_external.REDIS_URL, server.url)
    async with redis.asyncio.from_url(server.url.replace("/0", "/5"), decode_responses=True) as client:
        yield client
    await server.stop()


async def test_an_external_redis_is_left_as_it_was_found(external_redis):
    """Empty."""
    async with stack_external.own_redis(0) as ours, redis.asyncio.from_url(ours.url) as client:
        await client.set("left", "behind")
    assert await external_redis.info("keyspace") == {}


async def test_a_redis_with_a_key_in_any_database_is_refused_untouched(external_redis):
    """It is named, and so is the database; nothing is flushed."""
    await external_redis.set("somebodys", "data")
    with pytest.raises(pytest.UsageError, match=r"is not empty \(db5\)"):
        async with stack_external.own_redis(0):
            pass
    assert await external_redis.get("somebodys") == "data"


async def test_two_runs_do_not_share_a_redis(external_redis):
    """The second is refused while the first lives, though its server is empty."""
    async with stack_external.own_redis(0):
        with pytest.raises(pytest.UsageError, match=r"tests run on .* already"):
            async with stack_external.own_redis(0):
                pass
    async with stack_external.own_redis(0):
        pass
