"""`HttpSender`: one POST to a stranger, within limits: of time, of what is read, of where it goes.

Redirects are not followed, and nothing is kept between two posts: no connection, no cookie. If the process
dies in the middle, whether the receiver has it is unknown, and it is sent again under the same id.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Final

import h11

from app.domain.webhooks import Post, Receipt, signature
from app.infra.webhooks.addresses import ForbiddenError, Resolve, Resolver, Target, addresses_of, target_of
from app.infra.webhooks.faults import SaidError, words_of

TIMEOUT_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 5.0
"""For each of the host's addresses; all within the other."""
HEAD_BYTES_MAX: Final = 16 * 1024
HINTS_MAX: Final = 8
"""Of all heads together up to the final one, and how many (1xx) may come before it."""
REST_BYTES_MAX: Final = 64 * 1024
REST_STEPS_MAX: Final = 128
REST_TIMEOUT_S: Final = 1.0
"""How much of a body, in how many pieces, and how long, is listened to once the status is known."""
RETRY_AFTER_S_MAX: Final = 24 * 3600.0
_AGENT: Final = "Holdfast-Webhooks/1"
_READ_BYTES: Final = 16 * 1024

Clock = Callable[[], float]


class HttpSender:
    """Fulfils the port `Sender`. Close it with `close`."""

    def __init__(
        self,
        *,
        private_allowed: bool,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock = time.time,
    ) -> None:
        """Send to the public internet by HTTPS; with `private_allowed` (development) anywhere, by HTTP too.

        `clock` gives Unix seconds.
        """
        self._private_allowed = private_allowed
        self._timeout_s = timeout_s
        self._own = Resolver()
        self._resolve = resolve or self._own
        self._tls = tls or ssl.create_default_context()
        self._clock = clock

    async def send(self, post: Post) -> Receipt:
        """One attempt. What goes wrong is in the receipt."""
        try:
            async with asyncio.timeout(self._timeout_s):
                target = target_of(post.url, private_allowed=self._private_allowed)
                reader, writer = await self._connect(target)
                try:
                    return await self._exchange(post, target, reader, writer)
                finally:
                    writer.transport.abort()
        except ForbiddenError as error:
            return Receipt(None, str(error))
        except TimeoutError:
            return Receipt(None, f"timed out after {self._timeout_s:g} s without an answer")
        except (OSError, EOFError, h11.ProtocolError) as error:
            return Receipt(None, words_of(error))

    def close(self) -> None:
        """End the threads that resolve names."""
        self._own.close()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of the addresses that were looked at."""
        addresses = await addresses_of(target, self._resolve, private_allowed=self._private_allowed)
        tls = self._tls if target.is_secure else None
        failed: OSError = SaidError("the host has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await asyncio.open_connection(
                        address, target.port, ssl=tls, server_hostname=target.host if tls else None
                    )
            except TimeoutError:
                failed = SaidError(f"timed out after {CONNECT_TIMEOUT_S:g} s while connecting")
            except OSError as error:
                failed = error
        raise failed

    async def _exchange(
        self, post: Post, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Receipt:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        request = h11.Request(method="POST", target=target.path, headers=self._headers(post, target))
        for event in (request, h11.Data(data=post.body), h11.EndOfMessage()):
            writer.write(http.send(event) or b"")
        head = await _head(http, reader)  # nothing is drained: a receiver may answer before it has read all
        await _swallow(http, reader)
        given = next(
            (value.decode("latin-1") for name, value in head.headers if name == b"retry-after"), None
        )
        error = None if 200 <= head.status_code < 300 else _said(head)
        return Receipt(head.status_code, error, self._retry_after_s(given))

    def _headers(self, post: Post, target: Target) -> list[tuple[str, str]]:
        timestamp = int(self._clock())
        return [
            ("host", target.authority),
            ("user-agent", _AGENT),
            ("content-type", "application/json"),
            ("content-length", str(len(post.body))),
            ("connection", "close"),
            ("webhook-id", post.delivery_id),
            ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", signature(post.secrets, post.delivery_id, timestamp, post.body)),
        ]

    def _retry_after_s(self, given: str | None) -> float:
        """What `Retry-After` asks for (seconds, or a date), within bounds; 0 where it says nothing."""
        if given is None:
            return 0.0
        text = given.strip()
        if text.isascii() and text.isdigit():
            return min(float(text[:10]), RETRY_AFTER_S_MAX)
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - self._clock()
        except (ValueError, OverflowError):
            return 0.0
        return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


async def _head(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    """The final answer's head. Raises EOFError, OSError and h11.RemoteProtocolError."""
    heard = hints = 0
    while not isinstance(event := http.next_event(), h11.Response):
        if isinstance(event, h11.InformationalResponse):
            hints += 1
            if hints > HINTS_MAX:
                raise SaidError(f"more than {HINTS_MAX} hints (1xx) came before the answer")
        elif event is not h11.NEED_DATA:
            raise EOFError
        elif heard == HEAD_BYTES_MAX:
            raise SaidError("the head of the answer is too large")
        else:
            came = await _hear(http, reader, HEAD_BYTES_MAX - heard)
            if not came:
                raise EOFError
            heard += came
    return event


async def _swallow(http: h11.Connection, reader: asyncio.StreamReader) -> None:
    """Listen to the rest for a moment: to hang up in the middle would look like an error over there."""
    heard = 0
    try:
        async with asyncio.timeout(REST_TIMEOUT_S):
            for _ in range(REST_STEPS_MAX):
                event = http.next_event()
                if event is h11.NEED_DATA and heard < REST_BYTES_MAX:
                    heard += await _hear(http, reader, _READ_BYTES)
                elif not isinstance(event, h11.Data):
                    return
    except (OSError, TimeoutError, h11.RemoteProtocolError):
        return


async def _hear(http: h11.Connection, reader: asyncio.StreamReader, most: int) -> int:
    """Give the parser what came, up to so many bytes; how many, 0 at the end."""
    data = await reader.read(most)
    http.receive_data(data)
    await asyncio.sleep(0)  # reading does not wait where something lies ready: others have their turn now
    return len(data)


def _said(head: h11.Response) -> str:
    if 300 <= head.status_code < 400:
        return f"{head.status_code}: redirects are not followed"
    return f"the receiver answered {head.status_code}"
