"""The promise that matters most: a reply goes to whoever asked, whatever the others do."""

import asyncio
import gc
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import Any

import pytest

from app.hotpath.client import Client
from app.hotpath.errors import HotpathError, MayHaveHappened, NotSent
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import PATIENT_S, opened, until, works
from tests.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("nothing_left")

CALLERS = 64
KEYS = 500


class Mixed(AssertionError):
    """Somebody got another's reply."""


class Caller:
    """Asks for what only it can be told, and gives up in every way there is."""

    def __init__(self, client: Client, random: Random, numbers: "count[int]") -> None:
        self.client = client
        self.random = random
        self.numbers = numbers
        self.outcomes: Counter[str] = Counter()
        self.ways: list[Callable[[], Awaitable[None]]] = [
            self.patiently,
            self.with_a_short_deadline,
            self.until_the_task_is_cancelled,
            self.until_a_timeout,
            self.until_the_future_is_cancelled,
            self.not_at_all,
            self.together,
        ]

    async def run(self, while_: Callable[[], bool]) -> None:
        """Ask and give up, over and over."""
        while while_():
            try:
                await self.random.choice(self.ways)()
            except HotpathError as error:
                self.outcomes[type(error).__name__] += 1

    @property
    def given_up(self) -> int:
        """How many commands this caller stopped waiting for."""
        ways = "cancelled", "timed out", "forgotten", "MayHaveHappened"
        return sum(self.outcomes[way] for way in ways)

    async def ask(self, deadline_s: float = PATIENT_S) -> None:
        """One command whose answer nobody else can be given."""
        number = next(self.numbers)
        kind = self.random.randrange(4)
        if kind == 0:
            answer, right = await self.client.execute("ECHO", number, deadline_s=deadline_s), b"%d" % number
        elif kind == 1:
            key = number % KEYS
            answer, right = await self.client.execute("GET", f"k{key}", deadline_s=deadline_s), b"v%d" % key
        elif kind == 2:
            text = f"{number}:" + "x" * self.random.randrange(5000)
            answer, right = await self.client.execute("ECHO", text, deadline_s=deadline_s), text.encode()
        else:
            script = "return {KEYS[1], {ARGV[1], tonumber(ARGV[1])}}"
            answer = await self.client.execute("EVAL", script, 1, "k", number, deadline_s=deadline_s)
            right = [b"k", [b"%d" % number, number]]
        if answer != right:
            raise Mixed(f"{answer!r} instead of {right!r}")
        self.outcomes["answered"] += 1

    def soon(self) -> float:
        """Some time in which an answer may come, or not."""
        return self.random.choice([0, 0.001, self.random.random() * 0.02])

    async def patiently(self) -> None:
        """Ask, and wait for it."""
        await self.ask()

    async def with_a_short_deadline(self) -> None:
        """Ask, with a deadline that is hardly kept."""
        await self.ask(self.soon())

    async def until_the_task_is_cancelled(self) -> None:
        """The whole task is killed."""
        task = asyncio.create_task(self.ask())
        await asyncio.sleep(self.soon())
        task.cancel()
        await self.end_of(task)

    async def until_a_timeout(self) -> None:
        """The caller's own timeout."""
        try:
            await asyncio.wait_for(self.ask(), self.soon())
        except TimeoutError:
            self.outcomes["timed out"] += 1

    async def until_the_future_is_cancelled(self) -> None:
        """The command itself is cancelled, before or after it was sent."""
        future = self.client.execute("ECHO", "nobody's")
        if self.random.random() < 0.5:
            await asyncio.sleep(self.soon())
        self.outcomes["cancelled" if future.cancel() else "answered"] += 1
        if not future.cancelled() and future.exception() is None and future.result() != b"nobody's":
            raise Mixed(f'{future.result()!r} instead of b"nobody\'s"')

    async def not_at_all(self) -> None:
        """Nobody waits for it."""
        self.client.execute("ECHO", "forgotten").add_done_callback(self.saw)
        self.outcomes["forgotten"] += 1
        await asyncio.sleep(0)

    async def together(self) -> None:
        """Several at once, cancelled together."""
        asked = asyncio.gather(*(self.ask() for _ in range(3)))
        await asyncio.sleep(self.soon())
        asked.cancel()
        await self.end_of(asked)

    async def end_of(self, asked: "asyncio.Future[Any]") -> None:
        """How what was cancelled ended."""
        try:
            await asked
        except asyncio.CancelledError:
            self.outcomes["cancelled"] += 1
            if asyncio.current_task().cancelling():
                raise

    def saw(self, future: "asyncio.Future[Any]") -> None:
        """What came of the command that nobody waits for."""
        if not future.cancelled() and future.exception() is None and future.result() != b"forgotten":
            self.outcomes["mixed"] += 1


async def torment(client: Client, seed: int, cancellations: int) -> Counter[str]:
    """Many callers who give up so many commands altogether; how their commands ended. Raises Mixed."""
    numbers = count(1)
    callers = [Caller(client, Random(seed * 1000 + number), numbers) for number in range(CALLERS)]

    def is_not_enough() -> bool:
        return sum(caller.given_up for caller in callers) < cancellations

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run(is_not_enough))
    return sum((caller.outcomes for caller in callers), Counter())


async def fill(client: Client) -> None:
    """The keys that callers read."""
    await asyncio.gather(*(client.execute("SET", f"k{n}", f"v{n}") for n in range(KEYS)))


async def test_ten_thousand_cancellations_never_mix_replies(fault_proxy: FaultProxy, seed: int):
    """Over one slow connection, which none of them costs."""
    fault_proxy.to_client.delay_s = 0.001
    fault_proxy.to_client.jitter_s = 0.008
    async with opened(fault_proxy.url) as client:
        await fill(client)
        outcomes = await torment(client, seed, 10_000)
        print(outcomes)
        assert await asyncio.gather(*(client.execute("GET", f"k{n}") for n in range(KEYS))) == [
            b"v%d" % n for n in range(KEYS)
        ]
        assert client.statistics.connections == 1
        assert outcomes["mixed"] == 0
        assert outcomes["cancelled"] > 1000
        assert outcomes["answered"] > 1000
        assert outcomes["MayHaveHappened"] > 1000
        assert client.in_flight == 0


async def test_cancellations_and_broken_connections_never_mix_replies(fault_proxy: FaultProxy, seed: int):
    """The same while the connection is slowed, silenced, cut, reset and refused."""
    async with opened(fault_proxy.url, deadline_s=0.3) as client:
        await fill(client)
        weather = asyncio.create_task(fault_proxy.misbehave(pause_s=0.05))
        outcomes = await torment(client, seed, 10_000)
        weather.cancel()
        await asyncio.wait([weather])
        print(outcomes, client.statistics.connections)
        assert await until(lambda: works(client), "all is normal again") < 2 + BUSY_S
        assert client.statistics.connections > 1
        assert outcomes["mixed"] == 0
        assert client.in_flight == 0


@pytest.mark.parametrize("fault", ["forgets", "skips"])
async def test_a_shifted_reply_would_be_seen(
    nothing_left: list[str], fault_proxy: FaultProxy, seed: int, fault: str
):
    """The tests above fail on a client that takes those who gave up out of the line."""

    class Forgetful(deque):
        """Breaks the order on purpose."""

        def popleft(self) -> Any:
            entry = super().popleft()
            while fault == "skips" and entry[1].done() and self:
                entry = super().popleft()
            if fault == "forgets" and entry[1].cancelled() and self:
                entry = super().popleft()
            return entry

    fault_proxy.to_client.jitter_s = 0.008
    async with opened(fault_proxy.url) as client:
        await fill(client)
        client._connection.sent = Forgetful()
        with pytest.raises(ExceptionGroup) as caught:
            await torment(client, seed, 10_000)
        assert caught.group_contains(Mixed)
    gc.collect()
    nothing_left.clear()  # the noise of a client that was broken on purpose


async def test_what_callers_are_told_adds_up(fault_proxy: FaultProxy, seed: int):
    """What surely happened did, once; what surely did not, did not; the rest is in between."""
    sure: list[int] = []
    doubts = refused = 0
    stop = False

    async def increment() -> None:
        nonlocal doubts, refused
        while not stop:
            try:
                sure.append(await client.execute("INCR", "counter"))
            except NotSent:
                refused += 1
                await asyncio.sleep(0.001)
            except MayHaveHappened:
                doubts += 1

    async with opened(fault_proxy.url, deadline_s=0.05) as client:
        weather = asyncio.create_task(fault_proxy.misbehave(pause_s=0.1))
        callers = [asyncio.create_task(increment()) for _ in range(32)]
        await until(lambda: doubts > 300 and refused > 300 and len(sure) > 1000, "all of it happened", 60)
        stop = True
        weather.cancel()
        await asyncio.wait([weather, *callers])
        await until(lambda: works(client), "all is normal again")
        value = int(await client.execute("GET", "counter", deadline_s=PATIENT_S))
        print(f"sure {len(sure)}, value {value}, in doubt {doubts}, refused {refused}")
        assert len(set(sure)) == len(sure)
        assert len(sure) < value <= len(sure) + doubts


async def test_safe_commands_outlive_a_connection_and_others_do_not(fault_proxy: FaultProxy):
    """They are sent again; the rest is in doubt, and in this case it had happened."""
    async with opened(fault_proxy.url) as client:
        await client.execute("SET", "k", "v")
        fault_proxy.to_client.silence()
        safe = [client.execute("GET", "k", safe=True) for _ in range(3)]
        twice = client.execute("INCR", "twice", safe=True)
        unsafe = client.execute("INCR", "once")
        async with opened(fault_proxy._parts.geturl()) as other:
            await until(lambda: _exists(other, "once"), "the server has done it")
        await fault_proxy.end(by_reset=True)
        with pytest.raises(MayHaveHappened, match="may have happened: the connection broke"):
            await unsafe
        fault_proxy.heal()
        assert await asyncio.gather(*safe) == [b"v"] * 3
        assert await twice == 2
        assert await client.execute("GET", "once") == b"1"
        assert client.statistics.connections == 2


async def _exists(client: Client, key: str) -> bool:
    return bool(await client.execute("EXISTS", key))


async def test_a_safe_command_that_was_sent_is_never_called_unsent(fault_proxy: FaultProxy):
    """It was sent on the connection that broke, and there was none to repeat it: it is in doubt."""
    async with opened(fault_proxy.url) as client:
        fault_proxy.to_client.silence()
        sent = client.execute("INCR", "counter", safe=True, deadline_s=0.4)
        closed = client.execute("INCR", "other", safe=True)
        await asyncio.sleep(0.05)
        await fault_proxy.refuse()
        await fault_proxy.end(by_reset=True)
        unsent = client.execute("INCR", "never", safe=True)
        with pytest.raises(MayHaveHappened):
            await sent
        with pytest.raises(MayHaveHappened):
            await closed
        with pytest.raises(NotSent):
            await unsent
        fault_proxy.heal()
        await until(lambda: works(client), "the connection is back")
        assert not await client.execute("EXISTS", "never")


async def test_what_nobody_waits_for_is_not_sent(redis_url: str):
    """A command that is cancelled in the tick it was issued in never leaves."""
    async with opened(redis_url) as client:
        client.execute("SET", "k", "v").cancel()
        assert await client.execute("EXISTS", "k") == 0
        assert client.statistics.commands == 2  # HELLO and EXISTS
