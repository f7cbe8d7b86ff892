"""Calls to a provider over HTTP/1.1: a few kept connections to one origin, and a deadline for every call.

Owns those connections. The providers' adapters send five calls an order; through a general client they cost
more processor time than the order's own work in the worker (0.5 ms each; 0.1 ms here), so this one does
only what they need: no redirects, cookies, proxies or decompression. The protocol itself is h11's, TLS is
the standard library's with its usual verification.

Guarantees: a call answers, raises `CallFailed`, or is cancelled, within its deadline; a connection on which
anything but one complete exchange happened is never used again; nothing is ever sent twice; however an answer
is cut up, reading it keeps the loop for milliseconds.
If the process dies during a call, whether the provider got it is unknown: callers use idempotent calls only.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import h11

from app.observability import tracing

BODY_BYTES_MAX = 4 * 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024
PIECES_MAX = 256
PIECE_BYTES = 512
HINT_PIECES = 32
"""An answer's pieces, and one more for every so many bytes of its body; a hint (1xx) counts as several."""
IDLE_S_MAX = 20.0

Headers = Sequence[tuple[str, str]]


class CallFailed(Exception):
    """No complete answer came. Whether the call was received is unknown, unless `connected` is false."""

    def __init__(self, detail: str, *, connected: bool) -> None:
        """Keep what was seen."""
        super().__init__(detail)
        self.connected = connected


class Answer(NamedTuple):
    """A complete answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Channel(asyncio.Protocol):
    """One connection and the protocol's state on it."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._pieces = 0
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what comes unasked (a server giving notice) ends the connection."""
        if self._answer is None:
            self.abort()
            return
        self._http.receive_data(data)
        self._read()

    def eof_received(self) -> None:
        """The other side is done: an answer without a length may be complete by that."""
        if self._answer is not None:
            self._http.receive_data(b"")
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whoever waits hears of it."""
        self._transport = None
        self._fail(exc or ConnectionResetError("closed before the answer"))

    def abort(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def exchange(self, request: h11.Request, body: bytes) -> Answer:
        """Send one request, read its answer to the end."""
        if self._transport is None:
            raise ConnectionResetError("closed")
        self._head = None
        self._body.clear()
        self._pieces = 0
        self._answer = asyncio.get_running_loop().create_future()
        sent = self._http.send(request) or b""
        if body:
            sent += self._http.send(h11.Data(data=body)) or b""
        self._transport.write(sent + (self._http.send(h11.EndOfMessage()) or b""))
        try:
            return await self._answer
        finally:
            self._answer = None

    def _read(self) -> None:
        """Take what is complete from the parser, until the answer is."""
        try:
            while self._answer is not None and not self._answer.done():
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return
                self._pieces += HINT_PIECES if type(event) is h11.InformationalResponse else 1
                if self._pieces > PIECES_MAX + len(self._body) // PIECE_BYTES:
                    self._fail(ConnectionAbortedError("the answer comes in too many pieces"))
                elif type(event) is h11.Response:
                    self._head = event
                elif type(event) is h11.Data:
                    self._body += event.data
                    if len(self._body) > BODY_BYTES_MAX:
                        self._fail(ConnectionAbortedError("the answer is too large"))
                elif type(event) is h11.EndOfMessage and self._head is not None:
                    head = self._head
                    names = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
                    self._answer.set_result(Answer(head.status_code, names, bytes(self._body)))
                elif event is h11.PAUSED or type(event) is h11.ConnectionClosed:
                    self._fail(ConnectionResetError("closed before the answer"))
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def ready_again(self) -> bool:
        """Make ready for another exchange, if both sides keep the connection and nothing more came."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return self.open and not self._http.trailing_data[0]

    @property
    def open(self) -> bool:
        """Whether the other side has kept it open, as far as one can see."""
        return self._transport is not None and not self._transport.is_closing()


class Outbound:
    """Calls one origin. Close it with `aclose`."""

    def __init__(
        self,
        origin: str,
        *,
        connections_max: int = 64,
        connect_timeout_s: float = 2.0,
        call_timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take `http(s)://host[:port]`, perhaps with the path that all targets begin with, and the limits.

        `call_timeout_s` covers waiting for a connection too. Raises ValueError for another kind of URL.
        """
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be http(s)://host[:port][/path]")
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path.rstrip("/")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._places = asyncio.Semaphore(connections_max)
        self._idle: list[_Channel] = []

    async def call(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Answer:
        """Send one request and return its answer, whatever its status. Raises CallFailed."""
        attributes: tracing.Attributes = {"http.request.method": method, "server.address": self._host}
        with tracing.inner(f"{method} {self._host}", "client", attributes) as span:
            answer = await self._call(method, target, headers, body)
            span.set("http.response.status_code", answer.status)
            return answer

    async def _call(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        head = [("host", self._authority), *headers]
        if body or method in {"POST", "PUT"}:
            head.append(("content-length", str(len(body))))
        request = h11.Request(method=method, target=self._prefix + target or "/", headers=head)
        connected = False
        try:
            async with asyncio.timeout(self._call_timeout_s), self._places:
                channel = await self._channel()
                connected = True
                return await self._exchange(channel, request, body)
        except TimeoutError as error:
            raise CallFailed("no answer in time", connected=connected) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise CallFailed(f"{type(error).__name__}: {error}"[:200], connected=connected) from error

    async def _channel(self) -> _Channel:
        """The kept connection that was used last and is still open, or a new one."""
        loop = asyncio.get_running_loop()
        while self._idle:
            channel = self._idle.pop()
            if channel.open and loop.time() - channel.idle_since < IDLE_S_MAX:
                return channel
            channel.abort()
        name = self._host if self._tls is not None else None
        async with asyncio.timeout(self._connect_timeout_s):
            _, channel = await loop.create_connection(
                _Channel, self._host, self._port, ssl=self._tls, server_hostname=name
            )
            return channel

    async def _exchange(self, channel: _Channel, request: h11.Request, body: bytes) -> Answer:
        """One exchange; the connection is kept only after a complete one."""
        kept = False
        try:
            answer = await channel.exchange(request, body)
            kept = channel.ready_again()
        finally:
            if not kept:
                channel.abort()
        if kept:
            channel.idle_since = asyncio.get_running_loop().time()
            self._idle.append(channel)
        return answer

    async def aclose(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # the loop's turn in which the sockets are really closed
