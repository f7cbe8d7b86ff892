"""Whatever a part does, the process ends: soon when it was told to, and when a part ended by itself."""

import asyncio
import subprocess
import sys
import time

import pytest

from app.consumer.group_parts import GroupParts
from app.consumer.leases import Holding
from app.consumer.parts import Parts
from app.consumer.patience import for_ever
from app.consumer.run import _until_stopped
from app.infra import tasks
from app.infra.postgres.dead_letters import DeadLetters
from tests.busy import BUSY_S
from tests.integration.consumer.conftest import SHARDS

STUCK = """
import asyncio
from app.consumer.parts import exit_anyway

async def main():
    stop = asyncio.Event()
    forcing = asyncio.create_task(exit_anyway(stop, 0.5))
    stop.set()
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

asyncio.run(main())
"""


async def swallows(times: int) -> None:
    """Go on after so many cancellations, as `wait_for` makes it happen."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise


@pytest.fixture
def readers(group, store, database, clients):
    """A reader of the test's streams, that owns nothing."""
    letters = DeadLetters(database)
    return {"reader": GroupParts(group, Holding("projections"), store, letters, clients, SHARDS).reader}


async def test_a_part_that_swallows_a_cancellation_does_not_keep_the_process(readers, monkeypatch):
    """It is cancelled again."""
    monkeypatch.setattr(tasks, "AGAIN_S", 0.05)
    parts, stop = Parts(), asyncio.Event()
    parts.start("relay", swallows(2))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(60):
        assert await _until_stopped(stop, readers, parts, 5) == 0
    assert not await parts.runs("relay")


async def test_a_part_that_never_ends_is_given_up(readers, monkeypatch):
    """Within the time there is, and the exit code says so."""
    monkeypatch.setattr(tasks, "AGAIN_S", 0.05)
    parts, stop = Parts(), asyncio.Event()
    task = parts.start("relay", swallows(1_000))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(60):
        assert await _until_stopped(stop, readers, parts, 3) == 1
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)


async def test_a_part_that_ends_by_itself_ends_the_process(readers):
    """A supervisor starts it again."""

    async def fails() -> None:
        raise RuntimeError("a defect")

    parts, stop = Parts(), asyncio.Event()
    parts.start("relay", fails())
    async with asyncio.timeout(60):
        assert await _until_stopped(stop, readers, parts, 3) == 1
    assert stop.is_set()


async def test_the_stop_flag_ends_a_part_that_lost_its_cancellation():
    """It is not started anew."""
    stop = asyncio.Event()

    async def loses(_: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    task = asyncio.create_task(for_ever("part", loses, stop))
    await asyncio.sleep(0)
    stop.set()
    task.cancel()
    async with asyncio.timeout(60):
        await task


def test_a_process_that_cannot_end_is_ended():
    """Even where the event loop itself would wait for ever."""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, timeout=20, check=False)
    assert ended.returncode == 1, ended.stderr
    assert b"stopped_by_force" in ended.stdout + ended.stderr
    assert time.monotonic() - started < 10 + BUSY_S
