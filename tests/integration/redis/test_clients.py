"""Deadlines and the breaker: what a dead, stuck or full Redis costs."""

import asyncio
import os
import signal
import time

import pytest
from redis.exceptions import ResponseError

from app.domain.errors import Unavailable
from app.infra.redis import clients as redis_clients
from app.infra.redis.clients import Breaker, open_redis
from app.observability import metrics
from tests.busy import BUSY_S

NOBODY = "redis://127.0.0.1:1"


async def until(is_so, timeout_s: float = 60) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.01)


async def fails(clients) -> float:
    """Ask in vain; how long it took, in seconds."""
    started = time.perf_counter()
    with pytest.raises(Unavailable):
        await clients.is_well()
    return time.perf_counter() - started


async def fails_in_redis_py(clients) -> float:
    """The same, asked by the clients of the streams."""
    started = time.perf_counter()
    with pytest.raises(Unavailable):
        async with clients.bounded():
            await clients.reads.ping()
    return time.perf_counter() - started


async def until_well(clients) -> None:
    """Wait until commands are answered again."""
    async with asyncio.timeout(60):
        while True:
            try:
                await clients.is_well()
                async with clients.bounded():
                    await clients.reads.ping()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("ask", [fails, fails_in_redis_py])
async def test_a_stuck_server_costs_the_deadline_then_nothing(valkey, clients, ask):
    """A server that is there and says nothing delays a few requests by the deadline, the rest not at all."""
    await until_well(clients)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        first = [await ask(clients) for _ in range(Breaker.FAILURES_MAX)]
        assert max(first) < 0.5 + BUSY_S
        started = time.perf_counter()
        for _ in range(100):
            await ask(clients)
        assert time.perf_counter() - started < 5  # not a hundred deadlines
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until_well(clients)


async def test_a_server_that_comes_back_is_used_again(valkey, clients):
    """Dead at the start, dead in the middle: nothing fails for good."""
    await valkey.kill()
    async with open_redis(valkey.url, None, "test", "late") as late:
        for _ in range(5):
            await fails(late)
            await fails(clients)
        await valkey.start()
        await until_well(late)
        await until_well(clients)


async def test_a_change_is_one_line_and_one_value(valkey, clients, monkeypatch):
    """However many commands find Redis away, and whichever client asks."""
    lines = []
    monkeypatch.setattr(redis_clients.log, "warning", lambda event, **_: lines.append(event))
    monkeypatch.setattr(redis_clients.log, "info", lambda event, **_: lines.append(event))
    await until_well(clients)
    assert metrics.REDIS_UP._value.get() == 1
    for _ in range(2):
        lines.clear()
        await valkey.kill()
        for _ in range(10):
            await fails(clients)
            await fails_in_redis_py(clients)
        await until(lambda: metrics.REDIS_UP._value.get() == 0)
        await valkey.start()
        await until_well(clients)
        await until(lambda: metrics.REDIS_UP._value.get() == 1)
        assert lines == ["redis_is_away", "redis_is_back"]


async def test_going_is_no_loss(valkey, monkeypatch):
    """A process that stops does not say that Redis is away."""
    lines = []
    monkeypatch.setattr(redis_clients.log, "warning", lambda event, **_: lines.append(event))
    async with open_redis(valkey.url, None, "test", "going") as going:
        await going.is_well()
    assert lines == []


async def test_a_silent_server_is_noticed_while_nobody_asks(valkey, clients):
    """The metric is true in a process that has nothing to do."""
    await until_well(clients)
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        await until(lambda: metrics.REDIS_UP._value.get() == 0)
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until(lambda: metrics.REDIS_UP._value.get() == 1)


async def test_the_clients_of_the_streams_are_made_when_they_are_used(clients):
    """A process without streams has one connection."""
    await clients.is_well()
    assert clients._made == []
    await clients.reads.ping()
    assert clients._made == [clients.reads]


@pytest.mark.parametrize(
    ("url", "db", "used"),
    [("", None, 0), ("", 3, 3), ("/2", None, 2), ("/2", 3, 2), ("/0", 3, 0), ("?db=2", 3, 2)],
)
async def test_the_database_of_the_url_wins(url, db, used):
    """REDIS_DB is for URLs that name none, to every client alike."""
    async with open_redis(f"{NOBODY}{url}", db, "test", "test") as clients:
        assert clients.address.db == used
        assert clients.reads.connection_pool.connection_kwargs["db"] == used


async def test_a_cancelled_command_never_shifts_replies(clients):
    """Whoever stops waiting does not leave an answer for the next one."""
    for number in range(20):
        await clients.writes.set(f"k{number}", number)
    await clients.writes.execute_command("CLIENT", "PAUSE", "30", "ALL")

    async def read(number: int) -> bytes:
        async with clients.bounded(0.01 if number % 2 else 5):
            return await clients.reads.get(f"k{number}")

    answers = await asyncio.gather(*(read(n) for n in range(20)), return_exceptions=True)
    assert any(isinstance(answer, Unavailable) for answer in answers)
    await until_well(clients)
    again = await asyncio.gather(*(clients.reads.get(f"k{n}") for n in range(20)))
    assert again == [str(n).encode() for n in range(20)]
    for number, answer in enumerate(answers):
        assert answer == str(number).encode() or isinstance(answer, Unavailable)


async def test_a_full_server_refuses_writes_and_stays_in_use(clients):
    """No memory for a write is "not now"; reads go on."""
    await clients.writes.config_set("maxmemory", 1)
    try:
        for _ in range(Breaker.FAILURES_MAX + 1):
            with pytest.raises(Unavailable):
                async with clients.bounded():
                    await clients.writes.set("k", b"v")
            assert await clients.is_well()
    finally:
        await clients.writes.config_set("maxmemory", 0)


async def test_an_answer_that_is_an_error_is_no_failure_of_the_server(clients):
    """A defect of ours stays loud and does not open the breaker."""
    await clients.writes.set("k", b"v")
    for _ in range(Breaker.FAILURES_MAX + 1):
        with pytest.raises(ResponseError):
            async with clients.bounded():
                await clients.writes.lpush("k", b"v")
    assert await clients.is_well()
