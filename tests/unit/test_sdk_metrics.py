"""Whatever becomes of the SDK's exporter, the worker's scrape gets an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from app.infra.temporal import sdk_metrics


@asynccontextmanager
async def exporter(answer: bytes | None) -> AsyncIterator[int]:
    """Something that answers so and hangs up, or, with None, never does; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have patience for a tenth of a second only."""
    return lambda: monkeypatch.setattr(sdk_metrics, "TIMEOUT_S", 0.1)


async def test_what_it_answers_is_taken():
    """As long as it says."""
    async with exporter(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n") as port:
        assert await sdk_metrics.fetch(port) == b"a 1\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\na 1\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\na 1\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\na 1\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\na 1\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_none(answer):
    """Cut short, without a length, too long, or of somebody else."""
    async with exporter(answer) as port:
        assert await sdk_metrics.fetch(port) is None


async def test_one_that_never_answers_is_none(quick):
    """In time."""
    quick()
    async with exporter(None) as port:
        assert await sdk_metrics.fetch(port) is None


async def test_one_that_is_gone_is_none():
    """Nobody listens there any more."""
    async with exporter(b"") as port:
        pass
    assert await sdk_metrics.fetch(port) is None
