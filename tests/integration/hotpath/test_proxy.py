"""The proxy of these tests does what it says, or they would prove nothing."""

import asyncio
import gc
import socket
import time
import warnings
from contextlib import suppress
from typing import Self

import pytest

from tests.busy import BUSY_S
from tests.proxy import FAULTS, FaultProxy

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"


class Caller:
    """A bare connection through the proxy."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def ping(self) -> float:
        """One round trip, in seconds."""
        started = time.perf_counter()
        self.writer.write(PING)
        assert await self.reader.readexactly(len(PONG)) == PONG
        return time.perf_counter() - started

    async def is_silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing at all comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


async def test_bytes_pass_both_ways(fault_proxy: FaultProxy):
    """Unless it is told otherwise, it is not there."""
    async with Caller(fault_proxy) as caller:
        for _ in range(100):
            await caller.ping()
        assert fault_proxy.links == 1


async def test_a_delay_delays_and_does_not_slow_down(fault_proxy: FaultProxy):
    """Pipelined commands all take the same delay; one does not wait for the other."""
    fault_proxy.to_client.delay_s = 0.1
    fault_proxy.to_client.jitter_s = 0.02
    async with Caller(fault_proxy) as caller:
        started = time.perf_counter()
        for _ in range(20):
            caller.writer.write(PING)
            await caller.writer.drain()
        assert await caller.reader.readexactly(20 * len(PONG)) == 20 * PONG
        assert 0.1 <= time.perf_counter() - started < 0.5 + BUSY_S


@pytest.mark.parametrize("way", ["to_server", "to_client"])
async def test_silence_holds_back_until_it_is_healed(fault_proxy: FaultProxy, way: str):
    """Either way may be stuck; afterwards everything arrives, late."""
    async with Caller(fault_proxy) as caller:
        getattr(fault_proxy, way).silence()
        caller.writer.write(PING)
        assert await caller.is_silent()
        fault_proxy.heal()
        assert await caller.reader.readexactly(len(PONG)) == PONG


async def test_a_drip_is_the_same_bytes(fault_proxy: FaultProxy):
    """A few bytes at a time."""
    fault_proxy.to_client.drip_bytes = 1
    async with Caller(fault_proxy) as caller:
        assert await caller.ping() >= (len(PONG) - 1) * fault_proxy.to_client.drip_pause_s


@pytest.mark.parametrize("by_reset", [True, False])
async def test_a_reply_is_cut_in_its_middle(fault_proxy: FaultProxy, by_reset: bool):
    """So many bytes, then the end, in order or not."""
    async with Caller(fault_proxy) as caller:
        fault_proxy.to_client.cut_after = 3
        fault_proxy.to_client.cut_by_reset = by_reset
        caller.writer.write(PING)
        assert await caller.reader.readexactly(3) == PONG[:3]
        if by_reset:
            with pytest.raises(ConnectionResetError):
                await caller.reader.read()
        else:
            assert await caller.reader.read() == b""


@pytest.mark.parametrize("by_reset", [True, False])
async def test_connections_end_as_told(fault_proxy: FaultProxy, by_reset: bool):
    """By RST or in order."""
    async with Caller(fault_proxy) as caller:
        await caller.ping()
        await fault_proxy.end(by_reset=by_reset)
        if by_reset:
            with pytest.raises(ConnectionResetError):
                await caller.reader.read()
        else:
            assert await caller.reader.read() == b""


async def test_the_black_hole_and_the_closed_port(fault_proxy: FaultProxy):
    """New connections are taken and nothing is said, or they are not taken at all."""
    fault_proxy.is_black_hole = True
    async with Caller(fault_proxy) as caller:
        caller.writer.write(PING)
        assert await caller.is_silent()
    await fault_proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", fault_proxy.port)
    fault_proxy.heal()
    async with Caller(fault_proxy) as caller:
        await caller.ping()


async def test_after_every_fault_it_is_healed(fault_proxy: FaultProxy):
    """Whatever it did, then a new connection works at once."""
    for fault in FAULTS:
        async with Caller(fault_proxy) as caller:
            await caller.ping()
            await fault(fault_proxy)
            with suppress(RuntimeError):  # it is closed already
                caller.writer.write(PING)
        fault_proxy.heal()
        async with Caller(fault_proxy) as caller:
            await caller.ping()


async def test_every_socket_is_closed_however_early_its_connection_ends(fault_proxy: FaultProxy):
    """Nothing is left to the garbage collector, which would warn."""
    loop = asyncio.get_running_loop()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(20):
            with socket.socket() as caller:
                caller.setblocking(False)
                before = fault_proxy.accepted
                await loop.sock_connect(caller, ("127.0.0.1", fault_proxy.port))
                async with asyncio.timeout(60):
                    while fault_proxy.accepted == before:
                        await asyncio.sleep(0)
                for _ in range(turns // 2):
                    await asyncio.sleep(0)
                await fault_proxy.end(by_reset=turns % 2 == 0)
        gc.collect()
    assert [str(one.message) for one in left if "socket" in str(one.message)] == []


async def test_the_same_seed_is_the_same_weather(redis_url: str):
    """A failure can be had again."""

    def choices(seed: int) -> list[float]:
        proxy = FaultProxy(redis_url, seed=seed)
        return [proxy.to_client.random.random(), proxy.random.random()]

    assert choices(7) == choices(7) != choices(8)
