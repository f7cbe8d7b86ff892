"""Clients of the hot path, a Redis of a test's own, and a look at what a test leaves behind."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedValkey
from tests.integration.hotpath.callers import until
from tests.servers import redis_in


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Redis that the test may kill, stop, fill and misconfigure."""
    server = redis_in(tmp_path / "redis")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def nothing_left() -> AsyncIterator[list[str]]:
    """No task, no open file and no unheard error is left by the test; what the loop was told is given."""
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(f"{context['message']} {context!r}"))
    gc.collect()
    tasks, files = asyncio.all_tasks(), open_files()
    yield told
    try:
        await until(lambda: not asyncio.all_tasks() - tasks - {asyncio.current_task()}, "no task is left")
        gc.collect()
        await until(lambda: open_files() <= files, "no file or socket is left open")
        assert told == []
    finally:
        loop.set_exception_handler(None)


def open_files() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
