"""What stands before gateways on a cluster: a Service. It sends each new connection to one that is ready.

As a Service does, it knows connections, not requests: one that was begun stays with its gateway, whatever
becomes of that, and closes when that closes it. Readiness is asked as the kubelet does; whoever is taken out
gets no new connection.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

LOOK_S = 0.1
_CHUNK_BYTES = 65_536
_PATIENCE_S = 10.0


class Balancer:
    """Listens on one port for gateways on others."""

    def __init__(self) -> None:
        self._members: list[int] = []
        self._ready: list[int] = []
        self._turn = itertools.count()
        self._pumping: set[asyncio.Task[None]] = set()

    def add(self, port: int) -> None:
        """Send connections there, too, as soon as it is ready."""
        self._members.append(port)

    def remove(self, port: int) -> None:
        """Send no new ones there; those that are open stay."""
        self._members.remove(port)
        self._ready = [one for one in self._ready if one != port]

    async def until_ready(self, port: int) -> None:
        """Wait until connections go there."""
        async with asyncio.timeout(60):
            while port not in self._ready:
                await asyncio.sleep(LOOK_S / 2)

    async def watch(self) -> None:
        """Ask everybody whether they are ready, again and again."""
        async with httpx.AsyncClient(timeout=3, headers={"Connection": "close"}) as client:
            while True:
                for port in list(self._members):
                    is_ready = False
                    with suppress(httpx.HTTPError):
                        answer = await client.get(f"http://127.0.0.1:{port}/readyz")
                        is_ready = answer.status_code == 200
                    if port in self._members and is_ready != (port in self._ready):
                        others = [one for one in self._ready if one != port]
                        self._ready = [*others, port] if is_ready else others
                await asyncio.sleep(LOOK_S)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._pumping.add(task)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                there, back = await self._connection()
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.close()
        finally:
            self._pumping.discard(task)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:  # a Service with nobody ready refuses; here that would only hide who is to blame
            if self._ready:
                port = self._ready[next(self._turn) % len(self._ready)]
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(LOOK_S / 10)

    async def end(self) -> None:
        """End every connection."""
        for task in list(self._pumping):
            task.cancel()
        await asyncio.gather(*self._pumping, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until there are no more, then say so on the other side."""
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


@asynccontextmanager
async def balancing(port: int) -> AsyncIterator[Balancer]:
    """A balancer on this port, until the end of the block."""
    balancer = Balancer()
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", port)
    watching = asyncio.create_task(balancer.watch())
    try:
        yield balancer
        assert not watching.done(), watching
    finally:
        watching.cancel()
        server.close()
        await balancer.end()
        await asyncio.gather(watching, return_exceptions=True)
