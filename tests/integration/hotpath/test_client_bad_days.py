"""Slow, silent, half-open, resetting and absent servers: commands end in time, and all heals by itself."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from app.dev.servers import EmbeddedValkey
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import HotpathError, MayHaveHappened, NotSent, Unreachable
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import PATIENT_S, ended, opened, until, works
from tests.proxy import FAULTS, FaultProxy

pytestmark = pytest.mark.usefixtures("nothing_left")

DEADLINE_S = 0.1
"""How much later than its deadline a command may end on a machine that other tests use, too."""


async def timed(client: Client, *parts: Any, **options: Any) -> tuple[float, Any]:
    """How long a command took, in seconds, and how it ended."""
    started = time.monotonic()
    outcome = await ended(client.execute(*parts, **options))
    return time.monotonic() - started, outcome


async def slow(proxy: FaultProxy) -> None:
    """Answers come after the deadline."""
    proxy.to_client.delay_s = 0.3


async def trickling(proxy: FaultProxy) -> None:
    """A byte now and then, so that something always comes, and never an answer in time."""
    proxy.to_client.drip_bytes, proxy.to_client.drip_pause_s = 1, 0.05


@pytest.mark.parametrize("fault", [*FAULTS, slow, trickling], ids=lambda fault: fault.__name__)
async def test_every_command_ends_in_its_deadline(fault_proxy: FaultProxy, fault: Any):
    """With its answer or an error that says whether it may have happened, whatever the server does."""
    async with opened(fault_proxy.url, deadline_s=DEADLINE_S) as client:
        await fault(fault_proxy)
        began = time.monotonic()
        while time.monotonic() - began < 0.3:
            outcomes = await asyncio.gather(*(timed(client, "ECHO", n) for n in range(20)))
            assert max(seconds for seconds, _ in outcomes) < DEADLINE_S + BUSY_S
            for n, (_, outcome) in enumerate(outcomes):
                assert outcome == b"%d" % n or isinstance(outcome, NotSent | MayHaveHappened)
            await asyncio.sleep(0.002)
        fault_proxy.heal()
        assert await until(lambda: works(client), "all is normal again") < 2 + BUSY_S


@pytest.mark.parametrize("seconds", [0.3, pytest.param(5, marks=pytest.mark.full)])
async def test_after_any_fault_all_is_normal_within_two_seconds(redis_url: str, seed: int, seconds: float):
    """However long it lasted, with nobody's help: for every kind of fault at once, while commands come."""

    async def asks(client: Client, outcomes: Counter[str]) -> None:
        while True:
            outcomes[type(await ended(client.execute("PING", safe=True))).__name__] += 1
            await asyncio.sleep(0.01)

    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(FaultProxy(redis_url, seed=seed + n)) for n in range(len(FAULTS))
        ]
        clients = [await stack.enter_async_context(opened(p.url, deadline_s=DEADLINE_S)) for p in proxies]
        outcomes = [Counter[str]() for _ in clients]
        asking = [
            asyncio.create_task(asks(client, counter))
            for client, counter in zip(clients, outcomes, strict=True)
        ]
        for fault, proxy in zip(FAULTS, proxies, strict=True):
            await fault(proxy)
        await asyncio.sleep(seconds)
        took = {}
        for fault, proxy, client in zip(FAULTS, proxies, clients, strict=True):
            proxy.heal()
            took[fault.__name__] = asyncio.create_task(until(lambda client=client: works(client), "normal"))
        await asyncio.wait(took.values())
        print({name: f"{task.result():.3f}" for name, task in took.items()}, outcomes)
        assert max(task.result() for task in took.values()) < 2
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def test_a_dead_server_costs_microseconds(own_redis: EmbeddedValkey):
    """Refused at once, without a system call, until it is back; then all is well within two seconds."""
    async with opened(own_redis.url, deadline_s=DEADLINE_S) as client:
        await own_redis.kill()
        await until(lambda: client._refusal is not None, "it is known to be gone")
        assert await cost_of_refusal(client) < 50e-6
        _, outcome = await timed(client, "PING")
        assert isinstance(outcome, Unreachable)
        assert "refused" in str(outcome) or "failed" in str(outcome)
        await own_redis.start()
        assert await until(lambda: works(client), "it is back") < 2 + BUSY_S
        assert client.is_up


async def test_a_silent_server_is_asked_by_the_client_not_by_its_callers(own_redis: EmbeddedValkey):
    """A few callers pay their deadline, the rest microseconds; the first answer ends it."""
    told: list[str] = []
    async with opened(own_redis.url, deadline_s=DEADLINE_S) as client:
        client.when_down.append(lambda why: told.append(f"down: {why}"))
        client.when_up.append(lambda: told.append("up"))
        os.kill(own_redis.pid, signal.SIGSTOP)
        try:
            waits = 0
            while client.is_up:
                seconds, outcome = await timed(client, "PING")
                assert seconds < DEADLINE_S + BUSY_S
                assert isinstance(outcome, MayHaveHappened)
                waits += 1
            assert waits == 3
            assert await cost_of_refusal(client) < 50e-6
            await asyncio.sleep(1.5)  # long enough for the connection to be given up, and for new ones
            assert await cost_of_refusal(client) < 50e-6
            assert not client.is_up
        finally:
            os.kill(own_redis.pid, signal.SIGCONT)
        assert await until(lambda: works(client), "it answers again") < 2 + BUSY_S
    assert told == ["down: the server does not answer in time", "up"]


async def cost_of_refusal(client: Client, commands: int = 2_000) -> float:
    """Seconds of CPU for a command that is refused."""
    started = time.process_time()
    for _ in range(commands):
        with pytest.raises(Unreachable):
            await client.execute("GET", "k")
    cost = (time.process_time() - started) / commands
    print(f"a refused command costs {cost * 1e6:.1f} µs")
    return cost


async def test_a_short_silence_opens_and_closes_the_breaker(fault_proxy: FaultProxy):
    """It closes on the same connection, as soon as the server answers in time."""
    async with opened(fault_proxy.url, deadline_s=DEADLINE_S) as client:
        fault_proxy.to_client.silence()
        await asyncio.gather(*(ended(client.execute("PING")) for _ in range(3)))
        assert not client.is_up
        fault_proxy.heal()
        assert await until(lambda: client.is_up, "it is up") < 0.5 + BUSY_S
        assert client.statistics.connections == 1


async def test_impatient_callers_do_not_close_the_way_for_others(fault_proxy: FaultProxy):
    """A deadline that nobody could keep says nothing about the server, as long as it answers others."""
    fault_proxy.to_client.delay_s = 0.02
    async with opened(fault_proxy.url, deadline_s=DEADLINE_S) as client:
        for _ in range(20):
            hasty = [ended(client.execute("PING", deadline_s=0.001)) for _ in range(5)]
            assert {type(outcome) for outcome in await asyncio.gather(*hasty)} == {MayHaveHappened}
        assert client.is_up
        fault_proxy.to_client.silence()
        async with asyncio.timeout(60):
            while client.is_up:  # but silence is silence
                await ended(client.execute("PING", deadline_s=0.001))


async def test_a_client_for_blocking_commands_has_no_breaker(fault_proxy: FaultProxy):
    """A command that waits at the server for long is no timeout."""
    async with opened(fault_proxy.url, deadline_s=5, breaker=False) as client:
        for _ in range(4):
            assert isinstance(
                await ended(client.execute("BLPOP", "list", 5, deadline_s=0.05)), MayHaveHappened
            )
        assert client.is_up


async def test_a_process_that_was_busy_does_not_blame_the_server(redis_url: str):
    """Neither with commands sent, nor not yet sent, nor in the very tick that took so long."""
    async with opened(redis_url, deadline_s=DEADLINE_S) as client:
        for _ in range(3):
            issued = [client.execute("ECHO", n) for n in range(50)]
            time.sleep(0.3)  # not sent yet
            assert await asyncio.gather(*issued) == [b"%d" % n for n in range(50)]
            issued = [client.execute("ECHO", n) for n in range(50)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.3)  # sent
            issued += [client.execute("ECHO", n) for n in range(50, 100)]
            assert await asyncio.gather(*issued) == [b"%d" % n for n in range(100)]
        assert client.is_up
        assert client.statistics.timeouts == 0


async def test_a_process_that_is_always_late_still_ends_its_commands(fault_proxy: FaultProxy):
    """The benefit of the doubt is given once."""

    async def hog() -> None:
        while True:
            time.sleep(0.05)
            await asyncio.sleep(0)

    async with opened(fault_proxy.url, deadline_s=DEADLINE_S) as client:
        fault_proxy.to_server.silence()
        hogging = asyncio.create_task(hog())
        try:
            seconds, outcome = await timed(client, "PING")
        finally:
            hogging.cancel()
        assert isinstance(outcome, MayHaveHappened)
        assert seconds < DEADLINE_S + 8 * 0.05 + BUSY_S


SLEEPER = """
import asyncio, sys, time, uvloop
from app.hotpath.address import Address
from app.hotpath.client import Client

async def run() -> None:
    async with Client(Address.parse(sys.argv[1]), name="sleeper", deadline_s=1) as client:
        assert await client.ready(60)
        for n in range(3000):
            if n == 100:
                print("begun", flush=True)
            answers = await asyncio.gather(*(client.execute("ECHO", n) for n in range(8)))
            assert answers == [b"%d" % n for n in range(8)]
            await asyncio.sleep(0.001)
            if n == 100:
                begun_at = time.monotonic()
            elif n > 200 and time.monotonic() - begun_at > 3:
                break
        print(client.statistics.timeouts, client.statistics.connections)

(uvloop.run if sys.argv[2] == "uvloop" else asyncio.run)(run())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_process_that_was_stopped_does_not_blame_the_server(redis_url: str, loop: str):
    """SIGSTOP for two seconds in the middle of commands with one: none fails."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SLEEPER, redis_url, loop, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        child.send_signal(signal.SIGCONT)
        output, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    assert output == b"0 1\n"


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_an_idle_connection_that_died_silently_is_found(fault_proxy: FaultProxy, way: str):
    """Nobody asks anything, and the heartbeat still sees that nobody would be answered."""
    async with opened(fault_proxy.url, deadline_s=DEADLINE_S, heartbeat_s=0.2) as client:
        lost = asyncio.Event()
        client.when_lost.append(lost.set)
        await asyncio.sleep(0.5)
        assert client.statistics.connections == 1
        assert client.statistics.replies >= 2  # the heart beats
        getattr(fault_proxy, way).silence()
        async with asyncio.timeout(0.2 + DEADLINE_S + 1 + BUSY_S):
            await lost.wait()
        fault_proxy.heal()
        assert await until(lambda: works(client), "it is back") < 2 + BUSY_S


async def test_a_server_that_only_pushes_is_deaf(fault_proxy: FaultProxy, redis_url: str):
    """What comes unasked is no answer: a connection that is dead one way is given up."""
    pushes: list[Any] = []
    async with (
        opened(redis_url) as other,
        opened(
            fault_proxy.url,
            deadline_s=DEADLINE_S,
            greeting=lambda: [("CLIENT", "TRACKING", "ON", "BCAST")],
            on_push=pushes.append,
        ) as client,
    ):
        fault_proxy.to_server.silence()

        async def is_lost() -> bool:
            await other.execute("INCR", "k")  # an invalidation goes to the deaf one
            await ended(client.execute("PING"))
            return client._connection is None

        assert await until(is_lost, "it is given up") < 3 + BUSY_S
        assert pushes[0] == [b"invalidate", [b"k"]]


async def test_pauses_between_attempts_grow_are_bounded_and_uneven(fault_proxy: FaultProxy):
    """A server that is gone is not hammered, and not by all at once."""
    pauses: list[float] = []
    async with opened(fault_proxy.url) as client:
        await fault_proxy.refuse()
        await asyncio.sleep(0)
        attempts: list[float] = []
        client._keeper._failed = lambda why: attempts.append(time.monotonic())
        await fault_proxy.end()
        await until(lambda: len(attempts) == 8, "some attempts")
        pauses = [after - before for before, after in pairwise(attempts)]
    assert pauses[0] < 0.05 + BUSY_S
    assert all(0.25 <= pause < 0.5 + BUSY_S for pause in pauses[5:])
    assert len({round(pause, 4) for pause in pauses}) == len(pauses)


async def test_commands_wait_for_a_connection_that_comes_back_at_once(
    fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
):
    """A reconnect is not seen by callers, but for the commands that were under way."""
    monkeypatch.setattr("app.hotpath.client.GRACE_S", 60.0)
    lost = asyncio.Event()
    async with opened(fault_proxy.url) as client:
        client.when_lost.append(lost.set)
        for n in range(3):
            lost.clear()
            await fault_proxy.end(by_reset=bool(n % 2))
            await lost.wait()
            assert await client.execute("ECHO", n) == b"%d" % n
        assert client.statistics.connections == 4


async def test_commands_wait_no_longer_than_a_moment_for_a_connection(fault_proxy: FaultProxy):
    """An attempt that hangs costs the first callers a moment, the rest nothing."""
    async with opened(fault_proxy.url) as client:
        fault_proxy.is_black_hole = True
        await fault_proxy.end()
        await until(lambda: client._connection is None, "it is lost")
        seconds, outcome = await timed(client, "PING", deadline_s=PATIENT_S)
        assert isinstance(outcome, Unreachable)
        assert seconds < 0.2 + BUSY_S
        assert await cost_of_refusal(client) < 50e-6


async def test_nothing_listens_and_then_something_does(fault_proxy: FaultProxy):
    """Opening never fails; commands do, and then no more."""
    await fault_proxy.refuse()
    async with Client(Address.parse(fault_proxy.url), name="early", deadline_s=DEADLINE_S) as client:
        assert not await client.ready(0.1)
        assert isinstance(await ended(client.execute("PING")), NotSent)
        fault_proxy.listen()
        assert await until(lambda: works(client), "it is there") < 2 + BUSY_S
        assert await client.ready(0)


async def test_a_connection_that_breaks_during_its_greeting(fault_proxy: FaultProxy, seed: int):
    """After any byte of it: nothing hangs, the next attempt works."""
    random = Random(seed)
    greeting = 0

    def measure(chunk: bytes) -> bytes:
        nonlocal greeting
        greeting = greeting or len(chunk)
        return chunk

    fault_proxy.to_client.rewrite = measure
    async with opened(fault_proxy.url, deadline_s=1) as client:
        for cut_after in [*random.sample(range(1, greeting - 1), 3), greeting - 1, greeting, greeting]:
            fault_proxy.to_client.cut_after = cut_after
            fault_proxy.to_client.cut_by_reset = random.random() < 0.5
            await fault_proxy.end()
            await until(lambda: works(client), "it is back")


async def test_errors_say_where_and_why(fault_proxy: FaultProxy):
    """Whoever reads the log at night knows which server."""
    async with opened(fault_proxy.url, deadline_s=DEADLINE_S) as client:
        await fault_proxy.refuse()
        await fault_proxy.end()
        await until(lambda: client._refusal is not None, "it is down")
        error = await ended(client.execute("PING"))
    assert isinstance(error, HotpathError)
    assert f"127.0.0.1:{fault_proxy.port}/0" in str(error)
    assert "Connect" in str(error)
