"""Every socket that a client opens is closed by it: whenever it is cancelled, closed, or its loop ends.

uvloop warns of a transport that nobody has closed when it is collected; here that is a failure. Cancellations
come behind so many turns of the loop, from none to as many as a whole connect takes, so at every place where
they can come at all: between the socket and the greeting, too, and in the middle of the handshake of TLS.
"""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import uvloop

from app.hotpath.address import Address
from app.hotpath.client import Client
from tests.integration.hotpath.test_client import behind_tls
from tests.proxy import FaultProxy

pytestmark = pytest.mark.usefixtures("nothing_left")

TURNS_MAX = 120
TLS = Path(__file__).parents[1] / "providers" / "tls"
WAYS = ["tcp", "tls", "unix"]


@contextmanager
def nothing_unclosed() -> Iterator[None]:
    """No transport that was made meanwhile is collected unclosed."""
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in told] == []


@asynccontextmanager
async def reached(way: str, redis_url: str, folder: Path) -> AsyncIterator[Address]:
    """A Redis by TCP, by TLS, or by a socket of the file system."""
    async with AsyncExitStack() as stack:
        if way == "tcp":
            url = redis_url
        elif way == "tls":
            behind = await stack.enter_async_context(behind_tls(redis_url, TLS))
            url = f"{behind}?ssl_ca_certs={TLS / 'ca.pem'}"
        else:
            address = Address.parse(redis_url)
            server = await stack.enter_async_context(
                await asyncio.start_unix_server(
                    partial(carried, address.host, address.port), folder / "redis.sock"
                )
            )
            url = f"unix://{server.sockets[0].getsockname()}"
        yield Address.parse(url)


async def carried(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes to a server and back."""
    there, back = await asyncio.open_connection(host, port)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(65536):
                sink.write(chunk)
        sink.close()

    await asyncio.gather(carry(reader, back), carry(there, writer))


async def turns(count: int) -> None:
    """Let the loop go round so often; now and then it waits for the kernel, or all would be done at once."""
    for number in range(count):
        await asyncio.sleep(0 if number % 8 else 0.0002)


@pytest.mark.parametrize("way", WAYS)
async def test_a_dial_that_is_cancelled_anywhere_closes_its_socket(way: str, redis_url: str, tmp_path: Path):
    """Before there is one, while it connects, in its handshake and its greeting, and just as it is done."""
    async with reached(way, redis_url, tmp_path) as address:
        with nothing_unclosed():
            for count in range(TURNS_MAX):
                client = Client(address, name="test", greeting=lambda: [("PING",)])
                dialing = asyncio.ensure_future(client._dial())
                await turns(count)
                if not dialing.cancel():
                    break
                with pytest.raises(asyncio.CancelledError):
                    await dialing
            else:  # on a machine that is very slow
                dialing = asyncio.ensure_future(client._dial())
            connection = await dialing
            connection.abort()
            await connection.lost.wait()
            del connection, dialing, client


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_is_closed_anywhere_closes_its_socket(way: str, redis_url: str, tmp_path: Path):
    """Also where the closing is cancelled itself, once it has begun."""
    async with reached(way, redis_url, tmp_path) as address:
        with nothing_unclosed():
            for count in range(TURNS_MAX):
                for patience in (None, 1, 2, 3):
                    client = Client(address, name="test").open()
                    await turns(count)
                    was_up = client.is_up
                    closing = asyncio.ensure_future(client.close())
                    if patience is not None:
                        await turns(patience)
                        closing.cancel()
                    with suppress(asyncio.CancelledError):
                        await closing
                if was_up:
                    break
            await turns(10)
            del client, closing


async def test_a_server_that_falls_silent_or_breaks_off_leaves_no_socket(fault_proxy: FaultProxy):
    """Timeouts of the greeting, resets in the middle of it, and the losses of one that was used."""
    with nothing_unclosed():
        async with Client(Address.parse(fault_proxy.url), name="test", heartbeat_s=0.05) as client:
            assert await client.ready(60)
            for cut_after in (0, 1, 40, 200):
                fault_proxy.to_client.cut_after, fault_proxy.to_client.cut_by_reset = cut_after, True
                await fault_proxy.end(by_reset=True)
                await turns(50)
            fault_proxy.heal()
            fault_proxy.to_client.silence()
            await fault_proxy.end()
            await asyncio.sleep(0.1)  # in the middle of a greeting that is not answered
        del client


@pytest.mark.parametrize("count", [0, 2, 8])
async def test_a_loop_that_ends_right_after_a_client_leaves_no_socket(redis_url: str, count: int):
    """As that of a command: what `close` has given up is closed by the time it returns."""

    async def command() -> None:
        async with Client(Address.parse(redis_url), name="test"):
            await turns(count)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(command())

    with nothing_unclosed():
        await asyncio.to_thread(run)
