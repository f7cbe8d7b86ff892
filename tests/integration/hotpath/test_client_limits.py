"""Everything has a limit: what is in flight, what waits, what one tick issues, what the socket holds."""

import asyncio
import resource
import socket
import time
from collections import Counter

import pytest

from app.hotpath.client import Client
from app.hotpath.connection import WRITE_BUFFER_BYTES_MAX
from app.hotpath.errors import MayHaveHappened, NotSent, Overloaded
from app.hotpath.pipeline import IN_FLIGHT_MAX, WAITING_BYTES_MAX, WAITING_MAX
from tests.busy import BUSY_S
from tests.integration.hotpath.callers import ended, opened, until, works
from tests.proxy import HELD_BYTES_MAX, FaultProxy

pytestmark = pytest.mark.usefixtures("nothing_left")


def ends(issued: list["asyncio.Future[bytes]"]) -> Counter[str]:
    """How those that are done ended."""
    return Counter(
        type(future.exception()).__name__ if future.exception() else "answered"
        for future in issued
        if future.done()
    )


async def test_so_many_are_in_flight_so_many_wait_the_rest_is_refused(fault_proxy: FaultProxy):
    """At once, with NotSent: nothing of it happened. What was taken is answered in order afterwards."""
    async with opened(fault_proxy.url, in_flight_max=10, deadline_s=60) as client:
        fault_proxy.to_client.silence()
        issued = [client.execute("INCR", "counter") for _ in range(10 + WAITING_MAX + 500)]
        assert ends(issued) == {"Overloaded": 500}
        await until(lambda: len(client._connection.sent) == 10, "ten are sent")
        late = client.execute("INCR", "counter")
        with pytest.raises(Overloaded, match="nothing was sent: 8192 commands wait already"):
            await late
        assert client.in_flight == 10 + WAITING_MAX
        fault_proxy.heal()
        taken = issued[:-500]
        assert await asyncio.gather(*taken) == list(range(1, len(taken) + 1))
        assert ends(issued[-500:]) == {"Overloaded": 500}
        assert client.in_flight == 0
        assert await client.execute("GET", "counter") == b"%d" % len(taken)


async def test_one_tick_issues_no_more_than_is_sent_and_waits(redis_url: str):
    """A loop that never awaits is stopped by the same limits, however large they are."""
    async with opened(redis_url) as client:
        taken = IN_FLIGHT_MAX + WAITING_MAX
        issued = [client.execute("ECHO", n) for n in range(taken + 1000)]
        assert taken <= len(issued) - ends(issued)["Overloaded"] < taken + 100
        answers = await asyncio.gather(*issued, return_exceptions=True)
        assert all(answer == b"%d" % n for n, answer in enumerate(answers) if isinstance(answer, bytes))
        assert sum(isinstance(answer, bytes) for answer in answers) >= taken


async def test_bytes_that_wait_are_bounded(fault_proxy: FaultProxy):
    """A server that reads nothing fills the socket, then a buffer, then a queue; then callers are told."""
    value = b"x" * 256 * 1024
    fault_proxy.keep_little()
    async with opened(fault_proxy.url, deadline_s=60) as client:
        connection = client._connection
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        fault_proxy.to_server.silence()
        issued: list[asyncio.Future[bytes]] = []
        while not ends(issued)["Overloaded"]:
            assert len(issued) * len(value) < 2 * (
                WAITING_BYTES_MAX + WRITE_BUFFER_BYTES_MAX + HELD_BYTES_MAX
            )
            await asyncio.sleep(0)
            issued.append(client.execute("SET", f"k{len(issued)}", value))
            assert client._unsent_bytes <= WAITING_BYTES_MAX
            buffered = connection._transport.get_write_buffer_size()
            assert buffered <= 2 * WRITE_BUFFER_BYTES_MAX + len(value)  # what it may hold, and one write
        assert connection.is_paused  # a moment later the proxy may have read on
        fault_proxy.heal()
        outcomes = await asyncio.gather(*issued, return_exceptions=True)
        assert Counter(map(type, outcomes)) == {bytes: len(issued) - 1, Overloaded: 1}
        assert await client.execute("DBSIZE") == len(issued) - 1


async def test_large_values_of_one_tick_are_bounded(fault_proxy: FaultProxy):
    """The same without any pause in which something could be sent."""
    value = b"x" * 256 * 1024
    async with opened(fault_proxy.url, deadline_s=60) as client:
        issued = [client.execute("SET", f"k{n}", value) for n in range(400)]
        refused = ends(issued)["Overloaded"]
        assert 400 - refused <= 2 * WAITING_BYTES_MAX // len(value)
        await asyncio.gather(*issued, return_exceptions=True)
        assert await client.execute("DBSIZE") == 400 - refused


async def test_one_command_may_be_larger_than_all_that_may_wait(redis_url: str):
    """If nothing else waits."""
    value = b"x" * (WAITING_BYTES_MAX + 1)
    async with opened(redis_url) as client:
        assert await client.execute("SET", "k", value) == b"OK"
        assert await client.execute("STRLEN", "k") == len(value)
        await client.execute("DEL", "k")


async def test_cancelled_commands_make_room(fault_proxy: FaultProxy):
    """Those who wait no more take no place in the queue for long."""
    async with opened(fault_proxy.url, in_flight_max=1) as client:
        fault_proxy.to_client.silence()
        first = client.execute("ECHO", "first")
        waiting = [client.execute("ECHO", "waiting") for _ in range(WAITING_MAX)]
        assert isinstance(await ended(client.execute("ECHO", "refused")), Overloaded)
        for future in waiting:
            future.cancel()

        async def is_taken() -> bool:
            asked = client.execute("ECHO", "refused")
            await asyncio.sleep(0)
            return not asked.done() or not isinstance(asked.exception(), Overloaded)

        assert await until(is_taken, "there is room") < 1 + BUSY_S
        fault_proxy.heal()
        assert await first == b"first"
        assert await client.execute("ECHO", "last") == b"last"


async def test_those_who_wait_end_in_their_deadlines_too(fault_proxy: FaultProxy):
    """What was sent is in doubt, what waited was not sent."""
    async with opened(fault_proxy.url, in_flight_max=10, deadline_s=0.2, breaker=False) as client:
        fault_proxy.to_server.silence()
        started = time.monotonic()
        issued = [client.execute("INCR", "counter") for _ in range(100)]
        outcomes = await asyncio.gather(*issued, return_exceptions=True)
        assert Counter(map(type, outcomes)) == {MayHaveHappened: 10, NotSent: 90}
        assert time.monotonic() - started < 0.2 + 0.4 + BUSY_S
        fault_proxy.heal()
        await until(lambda: works(client), "all is well")
        assert await client.execute("GET", "counter", deadline_s=5) == b"10"


async def test_a_short_deadline_is_kept_beside_long_ones(fault_proxy: FaultProxy):
    """The timer is set for the long ones, and looks in time for the short one."""
    async with opened(fault_proxy.url, deadline_s=30) as client:
        fault_proxy.to_client.silence()
        long = client.execute("ECHO", "long")
        await asyncio.sleep(0.05)
        started = time.monotonic()
        assert isinstance(await ended(client.execute("ECHO", "short", deadline_s=0.05)), MayHaveHappened)
        assert time.monotonic() - started < 0.05 + 0.2 + BUSY_S
        fault_proxy.heal()
        assert await long == b"long"


async def test_a_client_with_nothing_to_do_does_nothing(redis_url: str):
    """No timer looks for deadlines while there are none, and a long wait is not watched every moment."""
    async with opened(redis_url, deadline_s=10, breaker=False) as client:
        await client.execute("PING")
        started, cpu = time.monotonic(), time.process_time()
        assert await client.execute("BLPOP", "list", 1) is None
        assert time.monotonic() - started > 0.9
        assert time.process_time() - cpu < 0.05
        await until(lambda: not client._deadlines.is_running, "nobody looks", within_s=11)


async def test_memory_stays_where_it_was(redis_url: str):
    """A hundred thousand commands, answered, refused and cancelled, leave nothing behind."""

    async def work(client: Client) -> None:
        for n in range(200):
            issued = [client.execute("ECHO", n) for n in range(50)]
            issued[n % 50].cancel()
            await asyncio.gather(*issued, return_exceptions=True)

    async with opened(redis_url) as client:
        await work(client)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10):
            await work(client)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 10_000  # KiB
        assert client.in_flight == 0
