"""A gateway that is told to stop: nobody's request is lost on a connection that is just being closed."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from litestar import Litestar, get

from app.dev.stack.ports import any_free
from app.gateway import server
from app.gateway.edge import Edge
from app.gateway.server import serve
from app.observability.access_log import AccessLog
from tests.integration.gateway.served import listening

LINGER_S = 40.0  # so long that no test can be too slow for it
ENDS_WITHIN_S = 20.0
ASKED = b"GET /order HTTP/1.1\r\nHost: x\r\n\r\n"


class Leaving:
    """A gateway without services over real HTTP, and a way to stop it."""

    def __init__(self) -> None:
        @get("/order")
        async def order() -> str:
            await self.held.wait()
            return "ok"

        self.held = asyncio.Event()
        self.held.set()
        self.port = any_free()
        self.stopping = asyncio.Event()
        self.edge = Edge(Litestar([order], openapi_config=None), AccessLog(), requests_max=8)
        self.served = asyncio.create_task(
            serve(
                self.edge,
                "127.0.0.1",
                self.port,
                self.stopping,
                drain=self.edge.leave,
                shutdown_timeout_s=10 * LINGER_S,
                linger_s=LINGER_S,
            )
        )

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that has had one answer and is kept."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(ASKED)
            assert b"connection: close" not in await head_of(reader)
            yield reader, writer
        finally:
            writer.close()

    async def stop(self) -> None:
        """Tell it to stop, and see that it heard."""
        self.stopping.set()
        async with asyncio.timeout(ENDS_WITHIN_S):
            while not self.edge.closing:
                await asyncio.sleep(0.01)


async def head_of(reader: asyncio.StreamReader) -> bytes:
    """The head of the next answer, lower case; its body is read, too."""
    async with asyncio.timeout(ENDS_WITHIN_S):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head


@pytest.fixture
async def leaving() -> AsyncIterator[Leaving]:
    """A gateway that listens; at the end it is gone within moments."""
    one = Leaving()
    await listening(one.port)
    yield one
    one.stopping.set()
    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await one.served


async def test_a_kept_connection_is_closed_with_its_next_answer(leaving: Leaving):
    """The request that was on its way is answered, and the answer says that there is no next one."""
    async with leaving.connected() as (reader, writer):
        await leaving.stop()
        writer.write(ASKED)
        head = await head_of(reader)
        assert head.startswith(b"http/1.1 200")
        assert b"connection: close" in head
        assert await reader.read() == b""


async def test_what_was_under_way_is_answered_and_closed(leaving: Leaving):
    """A request from before the signal gets its answer after it."""
    async with leaving.connected() as (reader, writer):
        leaving.held.clear()
        writer.write(ASKED)
        while not leaving.edge._in_flight:
            await asyncio.sleep(0.01)
        await leaving.stop()
        leaving.held.set()
        assert b"connection: close" in await head_of(reader)


async def test_whoever_connects_late_is_still_served(leaving: Leaving):
    """Balancers hear of readiness later than we do."""
    async with leaving.connected(), httpx.AsyncClient() as client:
        await leaving.stop()
        answer = await client.get(f"http://127.0.0.1:{leaving.port}/order")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"


async def test_a_refusal_closes_its_connection_too(leaving: Leaving):
    """Whoever comes again should come to another one."""
    async with leaving.connected() as (reader, writer):
        await leaving.stop()
        leaving.edge._in_flight = 8
        writer.write(ASKED)
        head = await head_of(reader)
        leaving.edge._in_flight = 0
        assert head.startswith(b"http/1.1 503")
        assert b"connection: close" in head


async def test_it_ends_with_the_last_connection(leaving: Leaving):
    """Long before the time to linger is over."""
    async with leaving.connected():
        await leaving.stop()
        await asyncio.sleep(0.2)
        assert not leaving.served.done()
    async with asyncio.timeout(ENDS_WITHIN_S):
        assert await leaving.served


async def test_it_goes_on_while_requests_go_on_coming(leaving: Leaving):
    """Somebody whose next request is due in a moment is not closed because others have been silent."""
    asked = itertools.count()
    async with leaving.connected():
        began = time.monotonic()
        await server.linger(leaving.port, 0.2, lambda: next(asked))
        assert time.monotonic() - began >= 0.2 * server.LINGERS_MAX
