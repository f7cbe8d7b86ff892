"""A Redis database in which our marker is missing: the keys there say whose it is, in one step."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from app.contracts.streams import environment_marker
from app.domain.errors import Unavailable
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import NotSent
from app.infra.markers import Markers
from app.infra.redis import marker
from app.infra.redis.clients import open_redis
from tests.integration.isolation.other import Told, holds, plain_redis, until

OURS = environment_marker("dev")
LEAST = ("+hello", "+eval", "+evalsha", "+get", "+set", "+scan")
"""What a Redis user needs to be let in, besides what the work itself needs."""


@asynccontextmanager
async def used(url: str, told: Told) -> AsyncIterator[bool]:
    """Whether a mode uses this Redis, once its first attempt to connect is over."""
    async with open_redis(url, None, told.markers.environment, "test", told.markers) as clients:
        await clients.settled()
        yield clients.hot.is_up


async def refusal(url: str, told: Told) -> str:
    """Why a mode does not use this Redis."""
    async with open_redis(url, None, told.markers.environment, "test", told.markers) as clients:
        with pytest.raises(NotSent) as refused:
            await clients.hot.execute("PING", deadline_s=30)
        return str(refused.value)


async def crowd(plain: Redis, before: str, count: int) -> None:
    """So many keys of somebody's."""
    await plain.mset({f"{before}{number}": number for number in range(count)})


@pytest.mark.parametrize(
    ("own", "key", "named"),
    [
        ("dev", "hf:production:environment", "production"),
        ("dev", "hf:production:{ord_1}:document", "production"),
        ("dev", "hf:production:events:0", "production"),
        ("prod", "hf:production:x", "production"),
        ("production", "hf:prod:x", "prod"),
        ("dev", "hf:dev-2:x", "dev-2"),
        ("dev", "hf:{dev}:x", "{dev}"),
        ("d*", "hf:dev:x", "dev"),
        ("d?v", "hf:dev:x", "dev"),
        ("[a-z]ev", "hf:dev:x", "dev"),
        ("dev", "hf:d*:x", "d*"),
        ("d.v", "hf:dev:x", "dev"),
        ("%a+", "hf:dev:x", "dev"),
    ],
)
async def test_one_key_of_another_environment_is_enough(
    redis_url: str, capsys: pytest.CaptureFixture[str], own: str, key: str, named: str
):
    """Whatever its name has in common with ours, or means in a pattern."""
    async with plain_redis(redis_url) as plain:
        await plain.set(key, "x")
    told = Told(own)
    async with used(redis_url, told) as is_used:
        assert not is_used
    assert told.stop.is_set()
    assert f": the one there holds keys of {named!r}: mend REDIS_URL or " in capsys.readouterr().err
    assert await holds(redis_url) == {key: "x"}


@pytest.mark.parametrize("key", ["hf", "hf:environment", "hfx:production:x", "app:hf:x:y", "HF:production:x"])
async def test_keys_of_other_programs_are_no_environments(redis_url: str, key: str):
    """They share the database with us, if somebody likes it so."""
    async with plain_redis(redis_url) as plain:
        await plain.set(key, "x")
    async with used(redis_url, Told()) as is_used:
        assert is_used
    assert await holds(redis_url) == {key: "x", OURS: "dev"}


async def test_keys_of_ours_without_their_marker_are_marked_again(redis_url: str):
    """It was evicted."""
    async with plain_redis(redis_url) as plain:
        await crowd(plain, "hf:dev:{x}:", 3)
        async with used(redis_url, Told()) as is_used:
            assert is_used
        assert await plain.get(OURS) == "dev"


async def test_whose_it_is_is_seen_before_postgresql_has_said_anything(redis_url: str):
    """The process need not wait for that to know where it is."""
    async with plain_redis(redis_url) as plain:
        await plain.set("hf:production:x", 1)
    told = Told(is_sure=False)
    async with used(redis_url, told) as is_used:
        assert not is_used
    assert told.stop.is_set()


async def test_of_two_environments_that_find_it_empty_one_has_it(redis_url: str):
    """They come at the same moment, over and over; the other one stops."""
    async with plain_redis(redis_url) as plain:
        for _ in range(10):
            await plain.flushdb()
            both = {name: Told(name) for name in ("dev", "production")}
            await asyncio.gather(*(_come(redis_url, told.markers) for told in both.values()))
            marked = await holds(redis_url)
            stopped = {name for name, told in both.items() if told.stop.is_set()}
            assert len(stopped) == 1
            (winner,) = both.keys() - stopped
            assert marked == {environment_marker(winner): winner}


async def _come(url: str, markers: Markers) -> None:
    async with Client(Address.parse(url), name="test", examine=marker.examiner(markers)) as client:

        async def has_answer() -> bool:
            return client.is_up or markers.wrong is not None

        await until(has_answer)


async def test_a_new_connection_costs_one_round_trip(redis_url: str):
    """The server knows the script by then."""
    async with used(redis_url, Told()), plain_redis(redis_url) as plain:
        await plain.config_resetstat()
        async with used(redis_url, Told()) as is_used:
            assert is_used
        asked = await plain.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): asked[name]["calls"] for name in asked}
    assert {name: calls.get(name, 0) for name in ("hello", "evalsha", "get", "eval", "scan", "set")} == {
        "hello": 1,
        "evalsha": 1,
        "get": 1,  # the script's
        "eval": 0,
        "scan": 0,
        "set": 0,
    }


async def test_a_key_of_another_environment_is_found_among_thousands(redis_url: str):
    """On whichever page it is."""
    async with plain_redis(redis_url) as plain:
        await crowd(plain, "app:", 5 * marker.PAGE_KEYS)
        await plain.set("hf:production:x", 1)
    told = Told()
    async with used(redis_url, told) as is_used:
        assert not is_used
    assert told.stop.is_set()


@asynccontextmanager
async def beyond(url: str, told: Told) -> AsyncIterator[Client]:
    """A client that looks at one page, at its first attempt and soon after."""
    examine = marker.examiner(told.markers, pages_max=1, pause_s=0.01)
    async with Client(Address.parse(url), name="test", examine=examine) as client:
        yield client


async def test_where_there_are_too_many_keys_to_say_nothing_is_done(redis_url: str):
    """Any of them might be another environment's: it is neither marked nor used, and nobody stops."""
    told = Told()
    async with plain_redis(redis_url) as plain:
        await crowd(plain, "app:", 5 * marker.PAGE_KEYS)
        async with beyond(redis_url, told) as client:
            why: list[str] = []
            client.when_down.append(why.append)
            await until(_is(why))
            assert f"SET {OURS} dev, if it is ours" in why[0]
            assert not client.is_up
        assert await plain.get(OURS) is None
    assert not told.stop.is_set()


async def test_an_operator_says_whose_a_huge_database_is(redis_url: str):
    """Nothing is started again for that."""
    async with plain_redis(redis_url) as plain, beyond(redis_url, Told()) as client:
        await crowd(plain, "app:", 5 * marker.PAGE_KEYS)
        await plain.set(OURS, "dev")
        assert await client.ready(30)


async def test_a_huge_database_is_not_looked_through_by_every_attempt(redis_url: str):
    """It serves somebody else meanwhile."""
    told = Told()
    examine = marker.examiner(told.markers, pages_max=1)
    async with plain_redis(redis_url) as plain:
        await crowd(plain, "app:", 5 * marker.PAGE_KEYS)
        await plain.config_resetstat()
        async with Client(Address.parse(redis_url), name="test") as client:
            for _ in range(3):
                with pytest.raises(Unavailable, match="too many keys"):
                    await examine(client.execute)
        assert (await plain.info("commandstats"))["cmdstat_scan"]["calls"] == 1


async def test_a_huge_database_with_keys_of_ours_is_ours(redis_url: str):
    """Where they are, our marker was, and no other environment since."""
    async with plain_redis(redis_url) as plain:
        await crowd(plain, "hf:dev:{x}:", 5 * marker.PAGE_KEYS)
        async with beyond(redis_url, Told()) as client:
            assert await client.ready(30)
        assert await plain.get(OURS) == "dev"


@asynccontextmanager
async def user(url: str, *rules: str) -> AsyncIterator[str]:
    """The address for a Redis user that may do only this."""
    async with plain_redis(url) as plain:
        await plain.execute_command("ACL", "SETUSER", "narrow", "reset", "on", "nopass", *rules)
        try:
            yield url.replace("redis://", "redis://narrow:x@")
        finally:
            await plain.execute_command("ACL", "DELUSER", "narrow")


async def test_a_user_who_is_kept_to_our_keys_marks(redis_url: str):
    """No other key is needed."""
    async with user(redis_url, *LEAST, "~hf:dev:*") as url, used(url, Told()) as is_used:
        assert is_used
    assert await holds(redis_url) == {OURS: "dev"}


async def test_a_user_who_is_kept_to_our_keys_sees_those_of_others(redis_url: str):
    """SCAN names what nobody may read."""
    async with plain_redis(redis_url) as plain:
        await plain.set("hf:production:x", 1)
    told = Told()
    async with user(redis_url, *LEAST, "~hf:dev:*") as url, used(url, told) as is_used:
        assert not is_used
    assert told.stop.is_set()


@pytest.mark.parametrize("lacks", ["+evalsha", "+get", "+set", "+scan", "~hf:dev:*"])
async def test_a_user_who_may_not_ask_has_no_redis(redis_url: str, lacks: str):
    """Nobody can say whose it is; the process goes on without, and says what the user lacks."""
    told = Told()
    rules = {*LEAST, "~hf:dev:*"} - {lacks} | {"~hf:production:*"}
    async with user(redis_url, *rules) as url:
        needs = r"grant it \+eval \+evalsha \+get \+set \+scan ~hf:dev:\* &hf:dev:\* \(the server says: "
        assert re.search(needs, await refusal(url, told))
    assert not told.stop.is_set()
    assert await holds(redis_url) == {}


async def test_a_marker_that_is_no_text_is_no_marker(redis_url: str):
    """It says nothing, so nobody can say whose it is. The line says which key it is, and what to do."""
    async with plain_redis(redis_url) as plain:
        await plain.hset(OURS, "environment", "dev")
        told = Told()
        said = await refusal(redis_url, told)
        assert said.endswith(
            f"what it has at {OURS} is no marker, so nobody knows whose it is: DEL {OURS}, if it is ours"
        )
        assert not told.stop.is_set()
        await plain.delete(OURS)
    async with used(redis_url, told) as is_used:
        assert is_used


def _is(found: list[str]):
    async def anything() -> bool:
        return bool(found)

    return anything
