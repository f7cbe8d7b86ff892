"""Servers that are there and in no mood: full, loading, read-only, busy, flushed, or talking nonsense."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.dev.servers import EmbeddedValkey
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, HotpathError, MayHaveHappened, NotNow, NotSent
from app.hotpath.scripts import Script
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import PATIENT_S, ended, opened, until, works
from tests.proxy import FaultProxy
from tests.servers import redis_in

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_an_error_in_the_middle_of_a_pipeline_is_its_callers_alone(redis_url: str):
    """Wrong type, wrong number of words, unknown command: the neighbours get their answers."""
    async with opened(redis_url) as client:
        await client.execute("SET", "k", "v")
        outcomes = await asyncio.gather(
            client.execute("ECHO", 1),
            client.execute("LPUSH", "k", "v"),
            client.execute("ECHO", 2),
            client.execute("GET"),
            client.execute("NONSENSE", "a"),
            client.execute("EVAL", "return redis.call('INCR', 'k')", 0),
            client.execute("ECHO", 3),
            return_exceptions=True,
        )
        errors = [outcome for outcome in outcomes if isinstance(outcome, ErrorReply)]
        assert [outcomes[n] for n in (0, 2, 6)] == [b"1", b"2", b"3"]
        assert [error.code for error in errors] == ["WRONGTYPE", "ERR", "ERR", "ERR"]
        assert not any(isinstance(error, NotNow) for error in errors)
        assert errors[0].message == str(errors[0])
        assert errors[0].message.startswith("WRONGTYPE Operation against a key")
        assert client.is_up


async def test_an_error_inside_an_array_stands_in_its_place(redis_url: str):
    """A script that collects outcomes returns them all; nothing is raised."""
    script = "return {1, redis.pcall('INCR', KEYS[1]), {redis.error_reply('MINE was this')}, 'end'}"
    async with opened(redis_url) as client:
        await client.execute("SET", "k", "v")
        first, error, (own,), last = await client.execute("EVAL", script, 1, "k")
        assert (first, last) == (1, b"end")
        assert isinstance(error, ErrorReply)
        assert isinstance(own, ErrorReply)
        assert own.code == "MINE"


async def test_an_answer_of_another_type_is_given_as_it_is(redis_url: str):
    """The client judges nothing: what a command answers, its caller gets."""
    async with opened(redis_url) as client:
        await client.execute("RPUSH", "l", "1", "2")
        for command, answer in [(("LRANGE", "l", 0, -1), [b"1", b"2"]), (("TYPE", "l"), b"list")]:
            assert await client.execute(*command) == answer


async def test_a_reply_of_64_megabytes(redis_url: str):
    """It arrives whole; the others are answered or told in time, and everybody rightly afterwards."""
    size = 64 * 1024 * 1024

    async def ask(client: Client, n: int) -> float:
        started = time.monotonic()
        outcome = await ended(client.execute("ECHO", n, deadline_s=0.1))
        assert outcome == b"%d" % n or isinstance(outcome, MayHaveHappened | NotSent)
        return time.monotonic() - started

    async with opened(redis_url) as client:
        await client.execute("SET", "large", b"x" * size)
        large = client.execute("GET", "large")
        slowest = 0.0
        while not large.done():
            slowest = max(slowest, *await asyncio.gather(*(ask(client, n) for n in range(20))))
        print(f"the slowest of the others took {slowest * 1000:.0f} ms")
        assert slowest < 1 + BUSY_S
        assert await large == b"x" * size
        del large
        answers = await asyncio.gather(*(client.execute("ECHO", n) for n in range(100)))
        assert answers == [b"%d" % n for n in range(100)]
        assert client.statistics.connections == 1
        await client.execute("DEL", "large")


async def test_a_reply_of_64_megabytes_that_nobody_wants_any_more(redis_url: str):
    """Its caller is gone; it is read and dropped."""
    async with opened(redis_url) as client:
        await client.execute("SET", "large", b"x" * 64 * 1024 * 1024)
        with pytest.raises(MayHaveHappened):
            await client.execute("GET", "large", deadline_s=0.001)
        assert await client.execute("ECHO", "a") == b"a"
        assert client.statistics.dropped == 1
        await client.execute("DEL", "large")


async def test_no_memory_for_a_write(own_redis: EmbeddedValkey):
    """Not now; reads go on, and nothing is thought of the server."""
    async with opened(own_redis.url) as client:
        await client.execute("SET", "k", "v")
        await client.execute("CONFIG", "SET", "maxmemory", "1")
        for _ in range(5):
            error = await ended(client.execute("SET", "k", "w"))
            assert isinstance(error, NotNow)
            assert error.code == "OOM"
        assert await client.execute("GET", "k") == b"v"
        error = await ended(client.evaluate(Script.of(b"return redis.call('SET', KEYS[1], 'w')"), ["k"]))
        assert isinstance(error, NotNow)
        assert client.is_up
        await client.execute("CONFIG", "SET", "maxmemory", "0")
        assert await client.execute("SET", "k", "w") == b"OK"


async def test_a_replica_refuses_writes(own_redis: EmbeddedValkey):
    """Read-only now, and a master again later."""
    async with opened(own_redis.url) as client:
        await client.execute("SET", "k", "v")
        await client.execute("REPLICAOF", "127.0.0.1", 1)
        error = await ended(client.execute("SET", "k", "w"))
        assert isinstance(error, NotNow)
        assert error.code == "READONLY"
        assert await client.execute("GET", "k") == b"v"
        await client.execute("CONFIG", "SET", "replica-serve-stale-data", "no")
        error = await ended(client.execute("GET", "k"))
        assert isinstance(error, NotNow)
        assert error.code == "MASTERDOWN"
        await client.execute("REPLICAOF", "NO", "ONE")
        assert await client.execute("SET", "k", "w") == b"OK"
        assert client.statistics.connections == 1


async def test_a_server_that_cannot_save_refuses_writes(tmp_path: Path):
    """MISCONF: not now."""
    folder = tmp_path / "gone"
    folder.mkdir()
    async with (
        running(redis_in(tmp_path / "redis", settings={"enable-protected-configs": "yes"})) as server,
        opened(server.url) as client,
    ):
        await client.execute("CONFIG", "SET", "save", "3600 1", "dir", str(folder))
        folder.rmdir()
        await client.execute("SET", "k", "v")
        await client.execute("BGSAVE")

        async def refuses() -> bool:
            return isinstance(await ended(client.execute("SET", "k", "w")), NotNow)

        await until(refuses, "the failure is known")
        assert (await ended(client.execute("SET", "k", "w"))).code == "MISCONF"
        await client.execute("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        assert await client.execute("SET", "k", "w") == b"OK"
        await client.execute("CONFIG", "SET", "save", "")  # or it does not end without saving


async def test_a_script_that_does_not_end(own_redis: EmbeddedValkey):
    """First silence, then BUSY: both in time. Killed, it was as if nothing had been."""
    async with opened(own_redis.url) as client, opened(own_redis.url, deadline_s=0.1) as other:
        await client.execute("CONFIG", "SET", "busy-reply-threshold", 300)
        endless = client.execute("EVAL", "while true do end", 0)
        outcomes: list[Any] = []
        while not isinstance(outcome := await ended(other.execute("GET", "k")), NotNow):
            assert outcome is None or isinstance(outcome, MayHaveHappened | NotSent)
            outcomes.append(outcome)
            await asyncio.sleep(0.005)
        assert any(isinstance(outcome, MayHaveHappened) for outcome in outcomes)
        assert outcome.code == "BUSY"
        assert await other.execute("SCRIPT", "KILL") == b"OK"
        error = await ended(endless)
        assert isinstance(error, ErrorReply)
        assert await until(lambda: works(other), "all is well") < 2 + BUSY_S
        assert client.statistics.connections == other.statistics.connections == 1


async def test_a_server_that_loads_its_data(tmp_path: Path):
    """It is connected to while it loads, and used as soon as it has."""
    place = tmp_path / "redis"
    server = redis_in(place, settings={"dbfilename": "dump.rdb"})
    await server.start()
    async with opened(server.url) as client:
        keys = ((f"key:{n}", "x" * 100) for n in range(5_000))
        await client.execute("MSET", *(word for pair in keys for word in pair))
        await client.execute("SAVE")
        await server.stop()
        slow = {"key-load-delay": "100", "loading-process-events-interval-bytes": "1024"}
        server = redis_in(place, server.port, settings={"dbfilename": "dump.rdb"} | slow)
        starting = asyncio.create_task(server.start())
        seen: list[str] = []
        try:
            async with asyncio.timeout(30):
                while True:
                    outcome = await ended(client.execute("GET", "key:1", deadline_s=0.5))
                    if outcome == b"x" * 100:
                        break
                    assert isinstance(outcome, HotpathError)
                    seen.append(outcome.code if isinstance(outcome, NotNow) else type(outcome).__name__)
                    await asyncio.sleep(0.005)
            assert "LOADING" in seen
            assert await client.execute("DBSIZE") == 5_000
        finally:
            await asyncio.wait([starting])
            await server.stop()


async def test_flushes_and_kills_in_the_middle(own_redis: EmbeddedValkey, seed: int):
    """FLUSHALL, SCRIPT FLUSH, CLIENT KILL while commands come: answers are right, errors are typed."""
    random = Random(seed)
    script = Script.of(b"return {KEYS[1], redis.call('GET', KEYS[1])}")

    async def ask(client: Client, n: int) -> None:
        for _ in range(100):
            kind = random.randrange(3)
            if kind == 0:
                outcome = await ended(client.execute("GET", f"k{n}", safe=True))
                right: Any = (None, b"v%d" % n)
            elif kind == 1:
                outcome = await ended(client.evaluate(script, [f"k{n}"]))
                right = ([b"k%d" % n, None], [b"k%d" % n, b"v%d" % n])
            else:
                outcome = await ended(client.execute("SET", f"k{n}", f"v{n}"))
                right = (b"OK",)
            assert outcome in right or isinstance(outcome, MayHaveHappened | NotSent), outcome
            await asyncio.sleep(random.random() * 0.01)

    async with opened(own_redis.url) as admin, opened(own_redis.url, name="victim") as client:
        asking = asyncio.gather(*(ask(client, n) for n in range(30)))
        while not asking.done():
            await admin.execute(*random.choice([("FLUSHALL",), ("SCRIPT", "FLUSH"), ("FLUSHDB", "ASYNC")]))
            if random.random() < 0.1:
                await admin.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.01)
        await asking
        assert client.statistics.connections > 1
        assert await until(lambda: works(client), "all is well") < 2 + BUSY_S


GARBAGE = [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x00\x01\x02\x03",
    b"$-5\r\n",
    b"$3\r\nabcdef\r\n",
    b":12a\r\n",
    b"*99999999999999999999\r\n",
    b"%1\r\n*1\r\n+a\r\n:1\r\n",  # a map whose key is an array
    b"+OK\r\n" * 50,  # answers to nothing
    b"-ERR \xff\xfe\r\n" * 50,
    b"\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda garbage: repr(garbage[:12]))
async def test_garbage_ends_the_connection_and_nothing_else(fault_proxy: FaultProxy, garbage: bytes):
    """What follows it can be told apart no more: a new connection is made, and nobody gets a wrong answer."""
    async with opened(fault_proxy.url, deadline_s=2) as client:
        fault_proxy.to_client.rewrite = lambda chunk: chunk + garbage
        await client.execute("PING")
        await until(
            lambda: client.statistics.connections > 1 or not client.is_up, "the connection is given up"
        )
        fault_proxy.heal()
        assert await until(lambda: works(client), "all is well") < 2 + BUSY_S
        answers = await asyncio.gather(*(client.execute("ECHO", n) for n in range(20)))
        assert answers == [b"%d" % n for n in range(20)]


async def test_garbage_before_answers_fails_those_who_wait(fault_proxy: FaultProxy):
    """They are told that it may have happened, and why."""
    async with opened(fault_proxy.url, deadline_s=2) as client:
        fault_proxy.to_client.rewrite = lambda chunk: b"?" + chunk
        error = await ended(client.execute("PING"))
        assert isinstance(error, MayHaveHappened)
        assert "Protocol error" in str(error)


@asynccontextmanager
async def running(server: EmbeddedValkey) -> AsyncIterator[EmbeddedValkey]:
    """A server of other settings."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def talking(*lines: bytes) -> AsyncIterator[str]:
    """A server that says always the same to whoever connects, and closes."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.writelines(lines)
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
        (b"-DENIED Redis is running in protected mode\r\n", "protected mode"),
        (b"", "closed the connection"),
        (b"$1000\r\nhalf", "closed the connection"),
    ],
)
async def test_a_server_that_is_none_is_named_as_what_it_is(line: bytes, reason: str):
    """The reason is in what operators are told and in every refusal."""
    why: list[str] = []
    async with (
        talking(line) as url,
        Client(Address.parse(url), name="test", deadline_s=PATIENT_S) as client,
    ):
        client.when_down.append(why.append)
        await until(lambda: why, "it is told")
        assert reason in why[0]
        assert reason in str(await ended(client.execute("PING")))
