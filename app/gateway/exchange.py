"""One request and its answer, as plain values: what the gateway's functions take and give.

Nothing here knows Litestar or Granian, so a route can be called by whatever carries bytes.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from itertools import count
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

import msgspec

from app.infra.postgres.api_keys import ApiKey

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

JSON: Final = b"application/json"

_CORRELATION: Final = re.compile(rb"[\x20-\x7e]{1,128}\Z")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")


Stream: TypeAlias = Callable[[Receive, Send, tuple[str, int]], Awaitable[None]]
"""Sends a whole response to a peer (address, port), from its head to its end, maybe a long while later."""


class Reply(msgspec.Struct, frozen=True):
    """What is answered: status, the bytes of the body with their type, and headers (lower-case names).

    With a `stream`, that sends it all.
    """

    status: int
    body: bytes = b""
    headers: Headers = ()
    media: bytes = JSON
    stream: Stream | None = None


class Call:
    """A request: how it came, who asks, and which ids follow it.

    `correlation_id` is the caller's `X-Correlation-ID`, else the trace id of its `traceparent`, else new;
    `order_id` is the order that the request turns out to be about; `limits` are the headers that tell the
    caller what is left of its limit; `stream` is what answers when the request itself is done with.
    """

    __slots__ = (
        "caller",
        "correlation_id",
        "headers",
        "limits",
        "method",
        "order_id",
        "parameters",
        "path",
        "query",
        "receive",
        "request_id",
        "route",
        "stream",
        "traceparent",
    )

    def __init__(
        self, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]], receive: Receive
    ) -> None:
        """Take a request apart; its body is read when somebody asks for it."""
        self.method = method
        self.path = path
        self.query = query
        self.headers = _combined(headers)
        self.receive = receive
        self.request_id = f"req_{new_id()}"
        self.traceparent, trace_id = _trace(self.header(b"traceparent"))
        self.correlation_id = (
            correlation_of(self.headers.get(b"x-correlation-id")) or trace_id or self.request_id[4:]
        )
        self.route = "unmatched"
        self.parameters: dict[str, str] = {}
        self.caller: ApiKey | None = None
        self.limits: Headers = ()
        self.order_id: str | None = None
        self.stream: Stream | None = None

    def header(self, name: bytes) -> str | None:
        """A header by its lower-case name; repeated ones are joined with commas."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def query_pairs(self) -> list[tuple[str, str]]:
        """The query's names and values, decoded. Raises ValueError where it cannot be (or is endless)."""
        return parse_qsl(
            self.query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50
        )


_process: Final = secrets.token_hex(8)
_numbers: Final = count(secrets.randbits(24))


def new_id() -> str:
    """24 hexadecimal digits that nobody else has: 64 random bits of the process, then a number."""
    return f"{_process}{next(_numbers) & 0xFFFFFFFF:08x}"


def _combined(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in pairs:
        found[name] = found[name] + b", " + value if name in found else value
    return found


def correlation_of(given: bytes | None) -> str | None:
    """A caller's correlation id, where it can be kept."""
    return given.decode() if given is not None and _CORRELATION.match(given) else None


def _trace(given: str | None) -> tuple[str | None, str | None]:
    """A valid traceparent and its trace id."""
    match = _TRACEPARENT.match(given or "")
    if match is None or given is None or given.startswith("ff") or not match[1].strip("0"):
        return None, None
    return (given, match[1]) if match[2].strip("0") else (None, None)


async def send_reply(send: Send, reply: Reply) -> None:
    """Send an answer over ASGI."""
    headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
    if reply.status in {204, 304}:
        headers = list(reply.headers)
    elif reply.body:
        headers.append((b"content-type", reply.media))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
