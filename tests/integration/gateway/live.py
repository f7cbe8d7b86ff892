"""Listening to streams of events, and making events for them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import redis.asyncio

from app.contracts import streams
from app.contracts.documents import rfc3339
from app.domain.chain import link
from tests.integration.gateway.served import KEY

PATIENCE_S = 30.0


class Stream:
    """One open stream; `status` and `headers` are those of its head."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, headers: dict[str, str]
    ):
        self.reader = reader
        self.writer = writer
        self.status = status
        self.headers = headers
        self.last_id = ""
        self.comments = 0
        self.retry_ms = 0
        self._text = b""

    async def event(self, timeout_s: float = PATIENCE_S) -> dict[str, Any] | None:
        """The envelope of the next event, whose fields agree with it; None at the end of the stream."""
        async with asyncio.timeout(timeout_s):
            while True:
                while b"\n\n" not in self._text:
                    chunk = await self._chunk()
                    if not chunk:
                        return None
                    self._text += chunk
                block, _, self._text = self._text.partition(b"\n\n")
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
                if "data" not in fields:
                    self.comments += block.startswith(b":")
                    self.retry_ms = int(fields.get("retry", self.retry_ms))
                    continue
                self.last_id = fields["id"]
                envelope = json.loads(fields["data"])
                assert (fields["id"], fields["event"]) == (envelope["id"], envelope["type"])
                return envelope  # type: ignore[no-any-return]

    async def events(self, count: int) -> list[dict[str, Any]]:
        """The next so many."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            try:
                event = await self.event()
            except TimeoutError as error:
                error.add_note(f"{self.comments} heartbeats, and of {count} events {found}")
                raise
            assert event is not None, f"it ended after {found}"
            found.append(event)
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """Everything until the end."""
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found

    async def silence(self, for_s: float = 0.3) -> None:
        """Nothing comes for a while."""
        try:
            event = await self.event(for_s)
        except TimeoutError:
            return
        raise AssertionError(event)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()

    async def _chunk(self) -> bytes:
        """One chunk of the body; empty at its end, also where it is cut off."""
        try:
            size = int((await self.reader.readline()).strip() or b"0", 16)
            return (await self.reader.readexactly(size + 2))[:-2] if size else b""
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""


@asynccontextmanager
async def listening_to(port: int, path: str, *, last_id: str = "", key: str = KEY) -> AsyncIterator[Stream]:
    """Open a stream."""
    stream = await opened(port, path, last_id=last_id, key=key)
    try:
        yield stream
    finally:
        await stream.close()


async def opened(
    port: int, path: str, *, last_id: str = "", key: str = KEY, limit: int = 2**22, window: int | None = None
) -> Stream:
    """Open a stream; its head has been read. `window` is what the kernel takes in before somebody reads."""
    sock = socket.socket()
    if window is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    rows = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", "Accept: text/event-stream"]
    rows += [f"Last-Event-ID: {last_id}"] if last_id else []
    writer.write("\r\n".join([*rows, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return Stream(reader, writer, int(head[0].split(" ")[1]), headers)


class Log:
    """Writes events as the platform does, and publishes them as the relay does, or does not."""

    def __init__(self, database: asyncpg.Connection, redis_url: str):
        self.database = database
        self.redis = redis.asyncio.from_url(redis_url)

    async def write(self, subject: str, kind: str, *, at: datetime | None = None, **data: Any) -> bytes:
        """The next event of a subject, committed; its envelope."""
        last = await self.database.fetchrow(
            "SELECT sequence, hash FROM events WHERE subject = $1 ORDER BY sequence DESC LIMIT 1", subject
        )
        sequence, before = (last["sequence"] + 1, last["hash"]) if last else (1, None)
        at = at or await self.database.fetchval("SELECT clock_timestamp()")
        text = json.dumps({"type": kind, **data})
        digest = link(before, subject, sequence, kind, at, "corr", None, text)
        await self.database.execute(
            "INSERT INTO events (subject, sequence, type, time, correlation_id, data, previous_hash, hash) "
            "VALUES ($1, $2, $3, $4, 'corr', $5, $6, $7)",
            *(subject, sequence, kind, at, text, before, digest),
        )
        return json.dumps(
            {
                "id": f"{subject}:{sequence}",
                "type": kind,
                "source": streams.source("test"),
                "subject": subject,
                "time": rfc3339(at.astimezone(UTC)),
                "sequence": sequence,
                "correlationid": "corr",
                "data": json.loads(text),
            }
        ).encode()

    async def publish(self, *envelopes: bytes) -> None:
        """Tell whoever listens."""
        for envelope in envelopes:
            await self.redis.publish(streams.live("test"), envelope)

    async def happen(self, subject: str, kind: str, **data: Any) -> None:
        """Write and publish."""
        await self.publish(await self.write(subject, kind, **data))

    async def heard_by(self, count: int) -> None:
        """Wait until so many processes hear what is published."""
        channel = streams.live("test")
        async with asyncio.timeout(PATIENCE_S):
            while dict(await self.redis.pubsub_numsub(channel))[channel.encode()] != count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def logging_to(database: asyncpg.Connection, redis_url: str) -> AsyncIterator[Log]:
    """A log over a database and a Redis."""
    log = Log(database, redis_url)
    try:
        yield log
    finally:
        await log.redis.aclose()
