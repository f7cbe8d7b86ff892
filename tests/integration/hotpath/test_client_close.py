"""The end of a client: whatever it does just then, nothing hangs and nothing is left."""

import asyncio
import time
from random import Random

import pytest

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import HotpathError, MayHaveHappened, NotSent, Unreachable
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import ended, opened, until
from tests.proxy import FAULTS, FaultProxy

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_commands_in_flight_are_answered(fault_proxy: FaultProxy):
    """Those that were issued before `close` are sent and awaited, even those of the same tick."""
    async with opened(fault_proxy.url) as client:
        fault_proxy.to_client.delay_s = 0.1
        sent = [client.execute("ECHO", n) for n in range(10)]
        await asyncio.sleep(0.02)
        issued = [client.execute("ECHO", n) for n in range(10, 20)]
        await client.close()
        assert await asyncio.gather(*sent, *issued) == [b"%d" % n for n in range(20)]


async def test_commands_that_are_not_answered_do_not_hold_it_up(fault_proxy: FaultProxy):
    """A silent server, a command with a minute's patience: it ends within about a second, in doubt."""
    async with opened(fault_proxy.url, deadline_s=60) as client:
        fault_proxy.to_client.silence()
        issued = [client.execute("ECHO", n, safe=bool(n % 2)) for n in range(10)]
        started = time.monotonic()
        await client.close()
        assert time.monotonic() - started < 2 + BUSY_S
        outcomes = await asyncio.gather(*issued, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {MayHaveHappened}


async def test_after_it_commands_are_refused(redis_url: str):
    """At once, and for good; opening again changes nothing."""
    client = Client(Address.parse(redis_url), name="test")
    for _ in range(2):
        error = await ended(client.execute("PING"))
        assert isinstance(error, Unreachable)
        assert "it is not open" in str(error)
    client.open()
    client.open()
    assert await client.ready(60)
    await client.close()
    client.open()
    error = await ended(client.execute("PING"))
    assert isinstance(error, NotSent)
    assert "it is closed" in str(error)
    assert not await client.ready(0.05)
    assert not client.is_up
    assert not client.send_unanswered("SUBSCRIBE", "c")
    assert client.statistics.connections == 1


async def test_twice_at_once_and_never_opened(redis_url: str):
    """Any number of times."""
    never = Client(Address.parse(redis_url), name="test")
    await never.close()
    async with opened(redis_url) as client:
        await asyncio.gather(client.close(), client.close())
        await client.close()
    at_once = Client(Address.parse(redis_url), name="test").open()
    await at_once.close()
    just_begun = Client(Address.parse(redis_url), name="test").open()
    issued = just_begun.execute("PING")
    await asyncio.sleep(0)
    await just_begun.close()
    assert isinstance(await ended(issued), NotSent)


async def test_nobody_is_told_that_it_is_down(redis_url: str):
    """It goes because its owner goes; what is lost with the connection is told."""
    told: list[str] = []
    async with opened(redis_url) as client:
        client.when_down.append(told.append)
        client.when_lost.append(lambda: told.append("lost"))
    assert told == ["lost"]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_in_the_middle_of_a_fault(fault_proxy: FaultProxy, seed: int, fault):
    """While it waits, is refused, dials, asks, or has just lost everything."""
    random = Random(seed)
    for pause_s in (0, random.random() * 0.1, random.random() * 0.5):
        fault_proxy.heal()
        async with opened(fault_proxy.url, deadline_s=0.1, heartbeat_s=0.05) as client:
            issued = [client.execute("INCR", "k", safe=bool(n % 2)) for n in range(20)]
            await fault(fault_proxy)
            await asyncio.sleep(pause_s)
            issued += [client.execute("INCR", "k", safe=bool(n % 2), deadline_s=30) for n in range(20)]
            started = time.monotonic()
            await client.close()
            assert time.monotonic() - started < 2 + BUSY_S
            assert all(future.done() for future in issued)
            for future in issued:
                assert future.exception() is None or isinstance(future.exception(), HotpathError)


async def test_a_close_that_is_cancelled_leaves_nothing(fault_proxy: FaultProxy):
    """The socket and the tasks go all the same."""
    async with opened(fault_proxy.url) as client:
        fault_proxy.to_client.silence()
        issued = client.execute("PING", deadline_s=30)
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert isinstance(await ended(issued), MayHaveHappened)


async def test_callbacks_that_fail_disturb_nothing(fault_proxy: FaultProxy, nothing_left: list[str]):
    """Each is reported; commands, reconnects and the end go on."""

    def fail(*_: object) -> None:
        raise RuntimeError("a defect of the owner")

    async with opened(fault_proxy.url, deadline_s=1) as client:
        for callbacks in (client.when_connected, client.when_down, client.when_lost, client.when_up):
            callbacks.append(fail)
        assert await client.execute("PING") == b"PONG"
        await fault_proxy.refuse()
        await fault_proxy.end()
        await until(lambda: client._refusal is not None, "it is down")
        fault_proxy.listen()
        await until(lambda: client.is_up, "it is up again")
        assert await client.execute("PING") == b"PONG"
    assert len(nothing_left) == 5
    assert all("a callback of the hot path failed" in line for line in nothing_left)
    nothing_left.clear()


async def test_a_greeting_that_fails_is_tried_again(redis_url: str, nothing_left: list[str]):
    """Whatever its owner's function does, or the server answers to it."""
    greetings = [ZeroDivisionError("a defect"), [("NONSENSE",)], [("GET", None)], []]

    def greet() -> list[tuple[str, ...]]:
        greeting = greetings.pop(0)
        if isinstance(greeting, Exception):
            raise greeting
        return greeting

    why: list[str] = []
    async with Client(Address.parse(redis_url), name="test", greeting=greet) as client:
        client.when_down.append(why.append)
        assert await client.ready(60)
        assert not greetings
        assert "a defect" in why[0]
