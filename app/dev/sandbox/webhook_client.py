"""The connections to the receiver of the webhooks: one URL, keep-alive, a deadline for everything.

Owns a few idle connections. A POST that finds its kept connection closed is sent once more on a fresh one: a
webhook may come twice. Nothing here outlives the process.
"""

import asyncio
from urllib.parse import urlsplit

import h11

ATTEMPT_TIMEOUT_S = 10.0
IDLE_CONNECTIONS_MAX = 8
READ_BYTES = 16 * 1024


class Unreachable(Exception):
    """The receiver could not be connected to, broke the connection, or did not answer in time."""


class _Channel:
    """One connection and the protocol's state on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT)

    async def post(self, target: str, headers: list[tuple[str, str]], body: bytes) -> int:
        """Send one request and read its answer to the end; its status."""
        sent = self.http.send(h11.Request(method="POST", target=target, headers=headers)) or b""
        sent += self.http.send(h11.Data(data=body)) or b""
        sent += self.http.send(h11.EndOfMessage()) or b""
        self.writer.write(sent)
        status = 0
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.reader.read(READ_BYTES))
            elif type(event) is h11.Response:
                status = event.status_code
            elif type(event) is h11.EndOfMessage:
                return status
            elif event is h11.PAUSED or type(event) is h11.ConnectionClosed:
                raise ConnectionResetError("closed before the answer was complete")

    def reusable(self) -> bool:
        """Make ready for the next request, if both sides keep the connection."""
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
            return True
        return False


class WebhookClient:
    """POSTs to one URL."""

    def __init__(self, url: str) -> None:
        """Take an `http://` URL. Raises ValueError for anything else."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("must be an http:// URL")
        self._host = parts.hostname
        self._port = parts.port or 80
        self._authority = parts.netloc.rpartition("@")[2]
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._idle: list[_Channel] = []

    async def post(self, headers: list[tuple[str, str]], body: bytes) -> int:
        """Send one webhook; the status it was answered with. Raises Unreachable."""
        full = [("host", self._authority), ("content-length", str(len(body))), *headers]
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                while self._idle:
                    status = await self._try(self._idle.pop(), full, body, kept=True)
                    if status is not None:
                        return status
                reader, writer = await asyncio.open_connection(self._host, self._port)
                status = await self._try(_Channel(reader, writer), full, body, kept=False)
                assert status is not None
                return status
        except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
            raise Unreachable(str(error)) from error

    async def _try(
        self, channel: _Channel, headers: list[tuple[str, str]], body: bytes, *, kept: bool
    ) -> int | None:
        """The status, or None when a kept connection turned out to be closed."""
        done = False
        try:
            status = await channel.post(self._target, headers, body)
            done = channel.reusable() and len(self._idle) < IDLE_CONNECTIONS_MAX
        except (OSError, h11.RemoteProtocolError):
            if kept:
                return None
            raise
        finally:
            if not done:
                channel.writer.close()
        if done:
            self._idle.append(channel)
        return status

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().writer.close()
