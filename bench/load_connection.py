"""One keep-alive connection of the load generator: a request, its answer, the next request.

It understands what servers answer to GET and POST over HTTP/1.1: a head, and a body of `Content-Length`
bytes. Anything else is an error of the run, never a silent miscount. If the connection is lost, its owner is
told and opens another.
"""

import asyncio
import re
import time
from typing import Final, Protocol, cast

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length: "
_ANY_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_BODILESS: Final = frozenset({204, 304})

IDLE: Final = -1


class Owner(Protocol):
    """Who hears of answers and losses."""

    def answered(self, connection: "Connection", status: int, head_end: int, answer: bytes) -> None:
        """The request under way was answered; `answer` is all of it, its body begins at `head_end`."""
        ...

    def closed(self, connection: "Connection") -> None:
        """The connection is gone, with the request that was under way."""
        ...

    def broken(self, why: str) -> None:
        """What came is not an answer."""
        ...


class Connection(asyncio.Protocol):
    """A connection with at most one request under way: `number`, counted from `began` (perf_counter)."""

    __slots__ = ("_missing", "_owner", "_rest", "_write", "began", "number", "transport")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._rest = b""
        self._missing = 0  # bytes that must come before looking again is worth it
        self.number = IDLE
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to write at hand."""
        self.transport = cast("asyncio.Transport", transport)
        self._write = self.transport.write

    def send(self, number: int, request: bytes, began: float) -> None:
        """Send a request; its latency counts from `began`."""
        self.number = number
        self.began = began
        self._write(request)

    def data_received(self, data: bytes) -> None:
        """Take what came; most answers come whole."""
        if self._rest:
            data = self._rest = self._rest + data
            if len(data) < self._missing:
                return
        head_end = data.find(_END) + 4
        if head_end == 3:
            self._rest = data
            return
        total = head_end + self._length(data, head_end)
        if len(data) < total:
            self._rest, self._missing = data, total
            return
        if len(data) > total or self.number == IDLE:
            self._owner.broken(f"Bytes that nobody asked for: {data[total:][:80]!r}")
            return
        self._rest, self._missing = b"", 0
        self._owner.answered(self, int(data[9:12]), head_end, data)

    def _length(self, data: bytes, head_end: int) -> int:
        at = data.find(_LENGTH, 0, head_end)
        if at >= 0:
            at += len(_LENGTH)
            return int(data[at : data.find(b"\r", at)])
        match = _ANY_LENGTH.search(data, 0, head_end)
        if match:
            return int(match[1])
        if data[9:12].isdigit() and int(data[9:12]) in _BODILESS:
            return 0
        self._owner.broken(f"An answer without Content-Length: {data[:200]!r}")
        return 0

    def connection_lost(self, _: Exception | None) -> None:
        """Say so."""
        self._owner.closed(self)

    def age_s(self) -> float:
        """How long the request under way has been waited for, seconds; 0 when there is none."""
        return 0.0 if self.number == IDLE else time.perf_counter() - self.began
