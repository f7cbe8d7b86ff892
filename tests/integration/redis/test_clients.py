"""Deadlines and the breaker: what a dead, stuck or full Redis costs."""

import asyncio
import os
import signal
import time

import pytest
from redis.exceptions import ResponseError

from app.domain.errors import Unavailable
from app.infra.redis.clients import Breaker, open_redis
from app.observability import metrics


async def fails(clients) -> float:
    """Ask in vain; how long it took, in seconds."""
    started = time.perf_counter()
    with pytest.raises(Unavailable):
        await clients.is_well()
    return time.perf_counter() - started


async def until_well(clients) -> None:
    """Wait until commands are answered again."""
    async with asyncio.timeout(10):
        while True:
            try:
                await clients.is_well()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_stuck_server_costs_the_deadline_then_nothing(valkey, clients):
    """A server that is there and says nothing delays a few requests by the deadline, the rest not at all."""
    await clients.is_well()
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        first = [await fails(clients) for _ in range(Breaker.FAILURES_MAX)]
        assert max(first) < 0.5
        assert metrics.REDIS_UP._value.get() == 0
        started = time.perf_counter()
        for _ in range(100):
            await fails(clients)
        assert time.perf_counter() - started < 0.1
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    await until_well(clients)
    assert metrics.REDIS_UP._value.get() == 1


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
