"""A process of `dev` that is led to a server of `production` exits 78 before its first call.

Before it: nothing is in that server afterwards that was not there, and nobody has polled, listened or asked.
"""

import asyncio
import itertools
import os
from contextlib import AsyncExitStack

import pytest

from app.contracts.streams import environment_marker
from tests.integration.gateway.served import listening
from tests.integration.isolation.other import (
    connected,
    ended,
    holds,
    mark_database,
    mark_redis,
    marker_of_database,
    marker_of_namespace,
    new_namespace,
    plain,
    plain_redis,
    pollers,
    settings,
    started,
)
from tests.proxy import FaultProxy

MODES = ("gateway", "worker", "consumer")
ALL = pytest.mark.full
"""`make test` sees each kind of server refused once; all pairs take a process each."""

_numbers = itertools.count(1)


async def refused(environment: dict[str, str], setting: str, found: str = "'production'") -> None:
    """Start a process, which has to end by itself with 78 and one line about that setting."""
    async with started(environment) as process:
        code, lines = await ended(process)
    assert (code, len(lines)) == (78, 1), lines  # nor has it said that it has started, or is ready
    assert lines[0].startswith(f"holdfast: {setting} must ")
    assert found in lines[0]


@pytest.mark.parametrize("mode", [pytest.param(m, marks=() if m == "worker" else ALL) for m in MODES])
async def test_the_database_of_production(mode: str, database_url: str, redis_url: str):
    """Its rows are as they were, and no key of ours was written either."""
    await mark_database(database_url, "production")
    async with connected(database_url) as connection:
        before = await _rows(connection)
        await refused(settings(mode, database_url, REDIS_URL=redis_url), "DATABASE_URL")
        assert await _rows(connection) == before
    assert await holds(redis_url) == {}


async def _rows(connection) -> dict[str, int]:
    tables = await connection.fetch(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public' ORDER BY 1"
    )
    return {t["relname"]: await connection.fetchval(f'SELECT count(*) FROM "{t["relname"]}"') for t in tables}


@pytest.mark.parametrize("mode", [pytest.param(m, marks=() if m == "gateway" else ALL) for m in MODES])
async def test_the_redis_of_production(mode: str, database_url: str, redis_url: str):
    """No key, no group, no subscription; of commands, only the question whose it is."""
    await mark_redis(redis_url, "production")
    async with plain_redis(redis_url) as client:
        await client.execute_command("CONFIG", "RESETSTAT")
        await refused(settings(mode, database_url, REDIS_URL=redis_url), "REDIS_URL")
        asked = await client.info("commandstats")
    assert await holds(redis_url) == {environment_marker("production"): "production"}
    known = {"hello", "select", "evalsha", "eval", "get", "scan"}
    ours = {"config|resetstat", "info", "client|setinfo", "ping", "keys"}
    assert {name.removeprefix("cmdstat_") for name in asked} <= known | ours


async def test_the_namespace_of_production(database_url: str, redis_url: str, temporal_address: str):
    """Nobody polled there."""
    name = f"crossing-{os.getpid()}-{next(_numbers)}"
    client = await new_namespace(temporal_address, name, "production")
    where = {"TEMPORAL_ADDRESS": temporal_address, "TEMPORAL_NAMESPACE": name}
    await refused(settings("worker", database_url, REDIS_URL=redis_url, **where), "TEMPORAL_NAMESPACE")
    assert (await pollers(client), await marker_of_namespace(client)) == (0, "production")


@ALL
@pytest.mark.parametrize("mode", MODES)
async def test_the_live_key_of_production(mode: str, database_url: str, redis_url: str):
    """It is refused before any server is connected to: nothing was asked, and the database has no marker."""
    told = settings(mode, database_url, REDIS_URL=redis_url, STRIPE_API_KEY="sk_live_s3cret")
    await refused(told, "STRIPE_API_KEY", "test key")
    assert (await marker_of_database(database_url), await holds(redis_url)) == (None, {})


@ALL
@pytest.mark.parametrize("mode", MODES)
async def test_a_test_key_in_production(mode: str, database_url: str):
    """It would ship for nothing."""
    await refused(settings(mode, database_url, ENVIRONMENT="production"), "STRIPE_API_KEY", "live key")
    assert await marker_of_database(database_url) is None


@ALL
@pytest.mark.parametrize("mode", MODES)
async def test_everything_of_production_at_once(mode: str, database_url: str, redis_url: str):
    """The database says so first; one line is enough."""
    await mark_database(database_url, "production")
    await mark_redis(redis_url, "production")
    await refused(settings(mode, database_url, REDIS_URL=redis_url), "DATABASE_URL")


@ALL
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["database", "redis"])
async def test_a_running_mode_that_reconnects_to_production_stops(
    mode: str, server: str, database_url: str, redis_url: str, temporal_address: str
):
    """It is not asked to; it takes no more work and exits 78 by itself."""
    async with AsyncExitStack() as stack:
        name = f"crossing-{os.getpid()}-{next(_numbers)}"
        await new_namespace(temporal_address, name)
        where = {"TEMPORAL_ADDRESS": temporal_address, "TEMPORAL_NAMESPACE": name}
        process = await stack.enter_async_context(
            started(settings(mode, database_url, REDIS_URL=redis_url, **where))
        )
        client = await stack.enter_async_context(plain_redis(redis_url))
        connection = await stack.enter_async_context(connected(database_url))
        await until_used(connection, client)
        if server == "redis":
            await mark_redis(redis_url, "production")
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        else:
            await connection.execute("UPDATE environment_marker SET environment = 'production'")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'holdfast-%' AND datname = current_database()"
            )
        code, lines = await ended(process)
    assert (code, len(plain(lines))) == (78, 1), lines
    setting = "REDIS_URL" if server == "redis" else "DATABASE_URL"
    assert plain(lines)[0].startswith(f"holdfast: {setting} must ")


async def until_used(connection, client) -> None:
    """Wait until a mode has connected to both servers."""
    async with asyncio.timeout(60):
        while not (
            await connection.fetchval("SELECT count(*) FROM environment_marker") and await client.dbsize()
        ):
            await asyncio.sleep(0.05)


@ALL
@pytest.mark.parametrize("server", ["database", "redis"])
async def test_a_gateway_starts_without_a_server_and_asks_it_when_it_answers(
    server: str, database_url: str, redis_url: str, seed: int
):
    """It serves meanwhile, and stops at the first answer."""
    real = redis_url if server == "redis" else database_url
    await (mark_redis(real, "production") if server == "redis" else mark_database(real, "production"))
    async with FaultProxy(real, seed=seed) as proxy:
        await proxy.refuse()
        away = {"REDIS_URL": proxy.url} if server == "redis" else {"DATABASE_URL": proxy.url}
        told = settings("gateway", database_url, **{"REDIS_URL": redis_url, **away})
        async with started(told) as process:
            await listening(int(told["PORT"]))
            proxy.heal()
            code, lines = await ended(process)
    assert (code, len(plain(lines))) == (78, 1), lines
