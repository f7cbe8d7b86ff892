"""A server that says the same again for as long as it is let, and what listening to it costs a loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import h11
import pytest

SAID_AT_ONCE_BYTES = 256 * 1024


@asynccontextmanager
async def flooding(first: bytes, again: bytes) -> AsyncIterator[str]:
    """Answer each connection with `first`, then `again` without an end; the origin."""
    many = again * (SAID_AT_ONCE_BYTES // len(again))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(65536)
            writer.write(first)
            while True:
                writer.write(many)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Steps:
    """Steps that parsers of HTTP took: in all, and at most between two turns of somebody else's."""

    def __init__(self) -> None:
        self.taken = 0
        self.in_a_turn_most = 0


@asynccontextmanager
async def counted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Steps]:
    """Count them, while a task beside them takes every turn that it gets."""
    steps, next_event = Steps(), h11.Connection.next_event

    def counting(connection: h11.Connection) -> object:
        steps.taken += 1
        return next_event(connection)

    async def take_turns() -> None:
        while True:
            before = steps.taken
            await asyncio.sleep(0)
            steps.in_a_turn_most = max(steps.in_a_turn_most, steps.taken - before)

    monkeypatch.setattr(h11.Connection, "next_event", counting)
    turns = asyncio.create_task(take_turns())
    await asyncio.sleep(0)
    try:
        yield steps
        await asyncio.sleep(0)
    finally:
        turns.cancel()
