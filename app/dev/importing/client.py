"""Owns a small HTTP/1.1 client: a few connections that are kept open, one request at a time on each.

It is small because the machine is shared with the stack that it asks. It never repeats anything by itself:
whoever asks knows whether asking again is safe.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 15.0
_HEAD_BYTES_MAX: Final = 65_536


class Answer(msgspec.Struct, frozen=True):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class NoAnswerError(Exception):
    """The server could not be reached, hung up, or took too long: what was asked may have been done."""


class Client:
    """Asks one server, with at most so many requests at once."""

    def __init__(self, url: str, api_key: str, connections_max: int) -> None:
        """Ask at `url` with this key. Raises ValueError for a URL that is none."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL like http://127.0.0.1:8080")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._head = (
            f"Host: {parts.netloc.rpartition('@')[2]}\r\nAuthorization: Bearer {api_key}\r\n"
            "Accept: application/json\r\nUser-Agent: holdfast-import\r\n"
        )
        self._free = asyncio.Semaphore(connections_max)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and wait for its answer. Raises NoAnswerError."""
        async with self._free:
            reader, writer = await self._connection()
            kept = False
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    writer.write(self._request(method, path, body, headers or {}))
                    answer, kept = await _read(reader)
                return answer
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                raise NoAnswerError(type(error).__name__) from error
            finally:
                if kept:
                    self._idle.append((reader, writer))
                else:
                    writer.close()

    async def close(self) -> None:
        """Hang up."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await asyncio.open_connection(
                    self._host, self._port, ssl=self._tls, limit=_HEAD_BYTES_MAX
                )
        except OSError as error:
            raise NoAnswerError(type(error).__name__) from error

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode("latin-1") + b"\r\n" + (body or b"")


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """One answer, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    version, status = first.split(" ", 2)[:2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    kept = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    if status in {"204", "304"}:
        body = b""
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _chunks(reader)
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body, kept = await reader.read(), False
    return Answer(int(status), headers, body), kept


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        part = await reader.readexactly(size + 2)
        if not size:
            return b"".join(parts)
        parts.append(part[:-2])
