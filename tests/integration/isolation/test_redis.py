"""The marker in Redis: nothing is read or written beside the keys of another environment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.contracts.streams import environment_marker
from app.hotpath.errors import HotpathError, NotSent
from app.hotpath.near import Near
from app.infra.redis import marker
from app.infra.redis.clients import RedisClients, open_redis
from tests.integration.isolation.other import Told, holds, mark_redis, plain_redis, until

OURS = environment_marker("dev")
THEIRS = environment_marker("production")


@asynccontextmanager
async def opened(url: str, told: Told) -> AsyncIterator[RedisClients]:
    """The Redis of a mode, whose first attempt to connect is over."""
    async with open_redis(url, None, told.markers.environment, "test", told.markers) as clients:
        await clients.settled()
        yield clients


async def test_an_unmarked_redis_is_marked(redis_url: str):
    """By whoever knows that PostgreSQL is ours."""
    async with opened(redis_url, Told("staging")) as clients:
        assert clients.hot.is_up
    assert await holds(redis_url) == {environment_marker("staging"): "staging"}


async def test_no_key_is_written_beside_those_of_another_environment(redis_url: str):
    """Not even the first."""
    await mark_redis(redis_url, "production")
    told = Told()
    async with opened(redis_url, told) as clients:
        with pytest.raises(NotSent):
            await clients.hot.execute("SET", "hf:dev:x", 1)
    assert await holds(redis_url) == {THEIRS: "production"}
    assert told.stop.is_set()


@pytest.mark.parametrize("text", ["", "\xff"])
async def test_a_marker_of_ours_that_says_something_else_counts(
    redis_url: str, capsys: pytest.CaptureFixture[str], text: str
):
    """Somebody wrote it there. The line says what mends it, and that is true."""
    async with plain_redis(redis_url) as plain:
        await plain.set(OURS, text)
        told = Told()
        async with opened(redis_url, told) as clients:
            assert not clients.hot.is_up
        assert told.stop.is_set()
        said = capsys.readouterr().err
        says, _, mend = said.removesuffix(")\n").rpartition(" (only if it is dev's all the same: ")
        assert says.endswith(f": the marker there says {text!r}: mend REDIS_URL or ENVIRONMENT")
        await plain.execute_command(*mend.split())
    async with opened(redis_url, Told()) as clients:
        assert clients.hot.is_up
    assert await holds(redis_url) == {OURS: "dev"}


async def test_a_marker_of_ours_that_names_another_environment_is_believed(
    redis_url: str, capsys: pytest.CaptureFixture[str]
):
    """The line holds no command that would have the two share a database."""
    async with plain_redis(redis_url) as plain:
        await plain.set(OURS, "production")
    told = Told()
    async with opened(redis_url, told):
        assert told.stop.is_set()
    said = capsys.readouterr().err
    assert "'production': mend REDIS_URL or ENVIRONMENT (were the marker wrong itself: docs/" in said
    assert "DEL" not in said


async def test_the_line_names_the_setting(redis_url: str, capsys: pytest.CaptureFixture[str]):
    """And it is one line: that Redis is away would be another story."""
    await mark_redis(redis_url, "production")
    async with opened(redis_url, Told()):
        pass
    line = "holdfast: REDIS_URL must lead to the Redis database of ENVIRONMENT 'dev': "
    assert (
        capsys.readouterr().err
        == f"{line}the one there holds keys of 'production': mend REDIS_URL or ENVIRONMENT\n"
    )


@pytest.mark.parametrize("kind", ["waiting", "near", "subscriptions"])
async def test_every_connection_asks(redis_url: str, kind: str):
    """Each reconnects by itself."""
    await mark_redis(redis_url, "production")
    told = Told()
    clients = RedisClients(redis_url, None, "dev", "test", told.markers)
    if kind == "waiting":
        clients.waiting("x")
    elif kind == "near":
        near: Near[bytes] = Near(clients.address, name="near", before="hf:", examine=clients.examine).open()
    else:
        clients.subscriptions.subscribe("hf:dev:x", lambda _: None)
    try:
        async with asyncio.timeout(30):
            await told.stop.wait()
    finally:
        if kind == "near":
            await near.close()
        await clients.close()


async def test_what_postgresql_has_not_said_is_not_written(redis_url: str):
    """An empty Redis stays so until then; then it is used at once."""
    told = Told(is_sure=False)
    async with opened(redis_url, told) as clients:
        assert not clients.hot.is_up
        assert await holds(redis_url) == {}
        told.markers.is_sure = True
        assert await clients.hot.ready(30)
    assert await holds(redis_url) == {OURS: "dev"}


async def test_a_redis_that_is_ours_is_used_while_postgresql_is_away(redis_url: str):
    """Cached reads go on."""
    await mark_redis(redis_url, "dev")
    async with opened(redis_url, Told(is_sure=False)) as clients:
        assert clients.hot.is_up


async def test_a_marker_that_is_lost_is_written_again(redis_url: str):
    """Somebody flushed it; the connection stayed."""
    told = Told()
    async with opened(redis_url, told) as clients, plain_redis(redis_url) as plain:
        await plain.flushall()
        keeping = asyncio.create_task(marker.keep(clients.hot, told.markers, 0.01))

        async def is_marked() -> bool:
            return await plain.get(OURS) == "dev"

        await until(is_marked)
        keeping.cancel()


async def test_a_redis_that_becomes_another_environments_is_left_at_the_next_reconnect(redis_url: str):
    """Behind the same address there is another server by then."""
    told = Told()
    async with opened(redis_url, told) as clients, plain_redis(redis_url) as plain:
        await clients.hot.execute("SET", "hf:dev:x", 1)
        await mark_redis(redis_url, "production")
        await plain.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(30):
            await told.stop.wait()
        with pytest.raises(HotpathError):
            await clients.hot.execute("SET", "hf:dev:y", 1)
    assert await holds(redis_url) == {THEIRS: "production"}


async def test_a_redis_that_becomes_another_environments_without_a_reconnect_is_left_too(redis_url: str):
    """It is looked at now and then."""
    told = Told()
    async with opened(redis_url, told) as clients:
        await mark_redis(redis_url, "production")
        keeping = asyncio.create_task(marker.keep(clients.hot, told.markers, 0.01))
        async with asyncio.timeout(30):
            await told.stop.wait()
        keeping.cancel()


async def test_a_full_redis_without_a_marker_is_used(redis_url: str):
    """It takes no new key for now: it is nobody else's, so nobody is harmed."""
    async with plain_redis(redis_url) as plain:
        await plain.config_set("maxmemory", 1)
        try:
            async with opened(redis_url, Told()) as clients:
                assert clients.hot.is_up
        finally:
            await plain.config_set("maxmemory", 0)


async def test_two_databases_of_one_server_may_be_two_environments(redis_url: str):
    """Each has a marker of its own."""
    url = redis_url.rpartition("/")[0] if redis_url.count("/") > 2 else redis_url
    await mark_redis(f"{url}/0", "production")
    async with opened(f"{url}/1", Told()) as clients:
        assert clients.hot.is_up
    assert await holds(f"{url}/1") == {OURS: "dev"}
