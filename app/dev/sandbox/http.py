"""The HTTP/1.1 server of the sandbox: sockets in, `Request`s out, and either an answer or a cut connection.

Owns the connections, nothing else. A provider that misbehaves must be able to reset a TCP connection or keep
silent on it, which no ASGI server lets an application do; so the protocol is written here, on h11.

Guarantees: requests of one connection are handled one after the other; a handler runs to its end even when
the client has gone (what it did is done); heads, bodies, connections and slow senders are limited. If the
process dies here, clients see a closed connection and must ask again: nothing is kept in this module.
"""

import asyncio
import enum
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

import h11

BODY_BYTES_MAX = 256 * 1024
HEAD_BYTES_MAX = 32 * 1024
BUFFERED_BYTES_MAX = 512 * 1024
CONNECTIONS_MAX = 1024
REQUEST_READ_TIMEOUT_S = 30.0
LINGER_S = 2.0


class Request(NamedTuple):
    """One request, wholly read. `path` has no query; header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"


class Cut(enum.Enum):
    """What is done with a connection instead of answering on it."""

    RESET = "reset"  # TCP RST: what a client of a dead process or a refusing port sees
    CLOSE = "close"  # an orderly end without a byte of answer
    SILENCE = "silence"  # stays open, nothing is ever said, until the client gives up


Reply = Response | Cut
Handler = Callable[[Request], Awaitable[Reply]]


class Connections:
    """Every open connection; the factory that the listening socket calls."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.open: set[Connection] = set()
        self.closing = False

    def __call__(self) -> "Connection":
        """Make the protocol of one accepted connection."""
        return Connection(self)

    async def drain(self, timeout_s: float) -> None:
        """Let requests in progress finish for up to `timeout_s` seconds, then cut what is left."""
        self.closing = True
        deadline = asyncio.get_running_loop().time() + timeout_s
        for connection in list(self.open):
            connection.close_if_idle()
        busy = [connection.task for connection in self.open if connection.task is not None]
        if busy:
            await asyncio.wait(busy, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        for connection in list(self.open):
            connection.cut(Cut.CLOSE)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._unread_bytes = 0
        self._discarding = False
        self._deadline: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it in, or turn it away when there are too many."""
        self._transport = cast("asyncio.Transport", transport)
        if self._connections.closing or len(self._connections.open) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._connections.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count it out; a handler that is running goes on to its end."""
        self._transport = None
        self._connections.open.discard(self)
        self._stop_clock()

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._transport is None or self._discarding:
            return
        if self.task is not None:  # pipelined, or a client that does not wait: kept, up to a limit
            self._unread_bytes += len(data)
            if self._unread_bytes > BUFFERED_BYTES_MAX:
                self._transport.abort()
                return
        self._h11.receive_data(data)
        self._read()

    def eof_received(self) -> bool:
        """Keep no half-closed connections: the transport closes itself."""
        return False

    def close_if_idle(self) -> None:
        """Close unless a request is being handled; that one closes the connection with its answer."""
        if self.task is None and self._transport is not None:
            self._transport.close()

    def cut(self, how: Cut) -> None:
        """End the connection without an answer, or (SILENCE) leave it as it is."""
        if self._transport is None or how is Cut.SILENCE:
            return
        if how is Cut.RESET:
            connected = self._transport.get_extra_info("socket")
            if connected is not None:  # linger 0: the kernel sends RST instead of FIN
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _read(self) -> None:
        """Take from the parser whatever is complete; start the handler when a request is."""
        try:
            while self.task is None and self._transport is not None and not self._discarding:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        go_on = h11.InformationalResponse(status_code=100, headers=[])
                        self._transport.write(self._h11.send(go_on) or b"")
                    if self._request is not None or self._h11.trailing_data[0]:
                        self._start_clock()
                    return
                if event is h11.PAUSED or type(event) is h11.ConnectionClosed:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)

    def _take(self, event: object) -> None:
        if type(event) is h11.Request:
            self._request = event
            self._body.clear()
        elif type(event) is h11.Data:
            self._body += event.data
            if len(self._body) > BODY_BYTES_MAX:
                self._refuse(413)
        elif type(event) is h11.EndOfMessage:
            self._stop_clock()
            assert self._request is not None
            self.task = asyncio.get_running_loop().create_task(self._handle(self._request))

    async def _handle(self, head: h11.Request) -> None:
        path, _, query = head.target.decode("ascii", "replace").partition("?")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        request = Request(head.method.decode("ascii"), path, query, headers, bytes(self._body))
        try:
            reply = await self._connections.handler(request)
        except Exception as error:  # noqa: BLE001 - a defect of the sandbox: say so, keep serving the others
            reply = Response(500, b'{"error":{"type":"api_error","message":"the sandbox failed"}}')
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"sandbox: {request.method} {request.path} failed", "exception": error}
            )
        if isinstance(reply, Cut):
            self.cut(reply)  # the task stays set: nothing more is read from this connection
            return
        self._answer(reply)

    def _answer(self, reply: Response) -> None:
        self.task = None
        self._request = None
        self._unread_bytes = 0
        if self._transport is None:
            return
        head = [
            ("content-type", reply.content_type),
            ("content-length", str(len(reply.body))),
            *reply.headers,
        ]
        if self._connections.closing:
            head.append(("connection", "close"))
        sent = self._h11.send(h11.Response(status_code=reply.status, headers=head)) or b""
        body = self._h11.send(h11.Data(data=reply.body)) or b""
        end = self._h11.send(h11.EndOfMessage()) or b""
        self._transport.write(sent + body + end)
        if self._h11.our_state is h11.MUST_CLOSE:
            self._transport.close()
            return
        self._h11.start_next_cycle()
        self._read()

    def _refuse(self, status: int) -> None:
        """Answer a request that is not HTTP as we speak it, and close."""
        self._stop_clock()
        if self._transport is None:
            return
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = b'{"error":{"type":"invalid_request_error","message":"malformed or oversized request"}}'
            headers = [("content-length", str(len(body))), ("connection", "close")]
            sent = self._h11.send(h11.Response(status_code=status, headers=headers)) or b""
            self._transport.write(sent + body)
        # Closing now, with bytes unread, would make the kernel reset the connection and the answer with it.
        self._transport.write_eof()
        self._discarding = True
        self._deadline = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def _start_clock(self) -> None:
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(REQUEST_READ_TIMEOUT_S, self._refuse, 408)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
