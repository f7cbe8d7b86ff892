"""A TCP proxy that misbehaves: between any client and any server, switchable while it runs.

It is written on bare sockets, so that it can do what polite servers never do: reset, fall silent one way,
stop in the middle of a reply. What it holds back is kept, and goes on its way when it is healed: as on a
network that was stuck, answers come late rather than never.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from random import Random
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from app.dev.stack.ports import any_free

CHUNK_BYTES: Final = 64 * 1024
HELD_CHUNKS_MAX: Final = 256
HELD_BYTES_MAX: Final = HELD_CHUNKS_MAX * CHUNK_BYTES
RESET: Final = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends RST


class Direction:
    """What happens to bytes on their way to one side; for every connection, changeable at any time."""

    def __init__(self, random: Random) -> None:
        """Let everything pass."""
        self.random = random
        self.moved = asyncio.Event()
        self.heal()

    def heal(self) -> None:
        """Let everything pass, what was held back first."""
        self.delay_s = 0.0
        """Every byte arrives so much later, in seconds; order is kept."""
        self.jitter_s = 0.0
        """And up to so much more."""
        self.drip_bytes = 0
        """So many bytes at a time (0: all), with `drip_pause_s` between them."""
        self.drip_pause_s = 0.001
        self.cut_after: int | None = None
        """So many more bytes, then `cut_by_reset` or an orderly end."""
        self.cut_by_reset = False
        self.rewrite: Callable[[bytes], bytes] | None = None
        """What becomes of each chunk."""
        self.is_silent = False
        self.wake()

    def silence(self) -> None:
        """Hold everything back until it is healed; nobody is told."""
        self.is_silent = True

    def wake(self) -> None:
        """Let those who wait look again."""
        self.moved.set()
        self.moved = asyncio.Event()

    def due_at(self, now: float, before: float) -> float:
        """When a chunk that came now may go on; never before the one that came before it."""
        return max(before, now + self.delay_s + self.random.random() * self.jitter_s)


class FaultProxy:
    """`async with FaultProxy(url, seed=…) as proxy`: connect to `proxy.url` instead.

    `to_server` and `to_client` say what happens on the way there and back. `heal()` ends every fault.
    """

    def __init__(self, url: str, *, seed: int) -> None:
        """Prepare; `seed` decides everything that is random."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._parts = parts
        self._target = (parts.hostname, parts.port)
        self.random = Random(seed)
        self.to_server = Direction(Random(self.random.random()))
        self.to_client = Direction(Random(self.random.random()))
        self.is_black_hole = False
        """New connections are accepted, and that is all."""
        self.accepted = 0
        self._listening: socket.socket | None = None
        self._port = 0
        self._links: set[_Link] = set()

    async def __aenter__(self) -> Self:
        self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        await self.end(by_reset=True)

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1, or did."""
        return self._port

    @property
    def url(self) -> str:
        """The server's URL, through this proxy."""
        login, at, _ = self._parts.netloc.rpartition("@")
        return self._parts._replace(netloc=f"{login}{at}127.0.0.1:{self._port}").geturl()

    @property
    def links(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def listen(self) -> None:
        """Take connections, on the same port as before."""
        if self._listening is not None:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port = self._port or any_free()
        listening.bind(("127.0.0.1", self._port))
        listening.listen(128)
        listening.setblocking(False)
        self._listening = listening
        # Not a task: it could be cancelled between the kernel's answer and ours, and lose a connection.
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def keep_little(self) -> None:
        """Let the kernel keep little of what new connections send while nobody reads it."""
        assert self._listening is not None
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)

    async def refuse(self) -> None:
        """Refuse new connections, as a port where nobody listens; those that are open stay."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def end(self, *, by_reset: bool = False) -> None:
        """End every open connection, in order or by RST."""
        links = list(self._links)
        for link in links:
            link.end(by_reset=by_reset)
        if links:
            await asyncio.wait([link.task for link in links])

    def heal(self) -> None:
        """End every fault. Connections that were accepted into the black hole stay there."""
        self.is_black_hole = False
        self.to_server.heal()
        self.to_client.heal()
        self.listen()

    async def misbehave(self, *, pause_s: float = 0.05) -> None:
        """One fault after another, each of a random kind and at most `pause_s` seconds, until cancelled."""
        try:
            while True:
                kind = self.random.choice(FAULTS)
                await kind(self)
                await asyncio.sleep(self.random.uniform(0.2, 1) * pause_s)
                self.heal()
                await asyncio.sleep(self.random.uniform(0.2, 1) * pause_s)
        finally:
            self.heal()

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:
            return  # whoever came is gone again
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        link = _Link(client, self, black_hole=self.is_black_hole)
        self._links.add(link)
        link.task.add_done_callback(lambda _, link=link: self._links.discard(link))


class _Link:
    """One client's connection and ours to the server; ends as a whole."""

    def __init__(self, client: socket.socket, proxy: FaultProxy, *, black_hole: bool) -> None:
        self._client = client
        self._server: socket.socket | None = None
        self._proxy = proxy
        self._by_reset = False
        self.task = asyncio.create_task(self._run_in_hole() if black_hole else self._run())
        self.task.add_done_callback(self._close)  # also of one that is cancelled before its first step

    def end(self, *, by_reset: bool) -> None:
        self._by_reset = self._by_reset or by_reset
        self.task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        proxy = self._proxy
        try:
            self._server = socket.socket()
            self._server.setblocking(False)
            self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(self._server, proxy._target)
            ways = [
                asyncio.create_task(self._carry(self._client, self._server, proxy.to_server)),
                asyncio.create_task(self._carry(self._server, self._client, proxy.to_client)),
            ]
            async with AsyncExitStack() as stack:
                stack.push_async_callback(_ended, ways)
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, or the test ends this connection

    async def _run_in_hole(self) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()

    def _close(self, _: object) -> None:
        for side in (self._client, self._server):
            if side is None:
                continue
            if self._by_reset:
                with suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.close()

    async def _carry(self, source: socket.socket, target: socket.socket, way: Direction) -> None:
        """Carry bytes one way until an end is done. Reading and writing overlap, so a delay is no brake."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS_MAX)
        writing = asyncio.create_task(self._deliver(held, target, way))
        reading = asyncio.create_task(_collect(source, held, way))
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not writing.done():
                await asyncio.wait([writing])  # what was under way still arrives, then the end
        finally:
            await _ended([reading, writing])

    async def _deliver(
        self, held: "asyncio.Queue[tuple[float, bytes]]", target: socket.socket, way: Direction
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_at, chunk = await held.get()
            if not chunk:
                return
            if (pause_s := due_at - loop.time()) > 0:
                await asyncio.sleep(pause_s)
            if way.rewrite is not None:
                chunk = way.rewrite(chunk)
            while chunk:
                while way.is_silent:
                    await way.moved.wait()
                size = way.drip_bytes or len(chunk)
                if way.cut_after is not None:
                    size = min(size, way.cut_after)
                    way.cut_after -= size
                with suppress(OSError):
                    await loop.sock_sendall(target, chunk[:size])
                if way.cut_after == 0:
                    way.cut_after = None
                    self._by_reset = way.cut_by_reset
                    return
                chunk = chunk[size:]
                if way.drip_bytes:
                    await asyncio.sleep(way.drip_pause_s)


async def _collect(source: socket.socket, held: "asyncio.Queue[tuple[float, bytes]]", way: Direction) -> None:
    loop = asyncio.get_running_loop()
    due_at = 0.0
    while True:
        try:
            chunk = await loop.sock_recv(source, CHUNK_BYTES)
        except OSError:
            chunk = b""
        due_at = way.due_at(loop.time(), due_at)
        await held.put((due_at, chunk))
        if not chunk:
            return


async def _ended(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- the faults of `misbehave` ---------------------------------------------------------------------------


async def slow(proxy: FaultProxy) -> None:
    """Replies come late, and not evenly."""
    proxy.to_client.delay_s = proxy.random.uniform(0, 0.03)
    proxy.to_client.jitter_s = 0.02


async def dripping(proxy: FaultProxy) -> None:
    """Replies come a few bytes at a time."""
    proxy.to_client.drip_bytes = proxy.random.randint(1, 64)


async def deaf(proxy: FaultProxy) -> None:
    """The server hears nothing."""
    proxy.to_server.silence()


async def mute(proxy: FaultProxy) -> None:
    """The server does everything, and its answers stay on the way."""
    proxy.to_client.silence()


async def cut(proxy: FaultProxy) -> None:
    """The connection ends in the middle of a reply."""
    proxy.to_client.cut_after = proxy.random.randint(1, 500)
    proxy.to_client.cut_by_reset = proxy.random.random() < 0.5


async def half_a_command(proxy: FaultProxy) -> None:
    """The connection ends in the middle of a command."""
    proxy.to_server.cut_after = proxy.random.randint(1, 500)


async def closed(proxy: FaultProxy) -> None:
    """The server closes every connection."""
    await proxy.end()


async def reset(proxy: FaultProxy) -> None:
    """The server resets every connection."""
    await proxy.end(by_reset=True)


async def refused(proxy: FaultProxy) -> None:
    """The server is gone, and nobody listens in its place."""
    await proxy.refuse()
    await proxy.end(by_reset=True)


async def swallowed(proxy: FaultProxy) -> None:
    """New connections are taken, and nothing is ever said."""
    proxy.is_black_hole = True
    await proxy.end()


FAULTS: Final[tuple[Callable[[FaultProxy], Awaitable[None]], ...]] = (
    slow,
    dripping,
    deaf,
    mute,
    cut,
    half_a_command,
    closed,
    reset,
    refused,
    swallowed,
)
