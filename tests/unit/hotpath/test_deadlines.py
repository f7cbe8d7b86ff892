"""One timer for all: when it looks, and what it does with a process that is late."""

import asyncio
import time
from math import inf

from app.hotpath.deadlines import SWEEP_S, Deadlines


class Looks:
    """What is due, and when somebody looked for it."""

    def __init__(self, due_after_s: float = inf) -> None:
        self.started = time.monotonic()
        self.due_at = self.started + due_after_s
        self.at: list[float] = []
        self.looked = asyncio.Event()

    def look(self, now: float) -> float:
        """Note it; there is more to come until what is due is past."""
        self.at.append(now - self.started)
        self.looked.set()
        return inf if now >= self.due_at else self.due_at

    async def until_due(self) -> None:
        """Wait until it was seen that it is due."""
        async with asyncio.timeout(5):
            while not self.at or self.at[-1] < self.due_at - self.started:
                self.looked.clear()
                await self.looked.wait()


async def test_it_looks_when_something_may_be_due_and_then_no_more():
    """Not every moment: after the shortest deadline there is, and when the earliest is up."""
    looks = Looks(due_after_s=0.15)
    deadlines = Deadlines(looks.look, 0.1)
    deadlines.start()
    deadlines.start()
    await looks.until_due()
    assert len(looks.at) == 2
    assert looks.at[0] >= 0.1
    assert not deadlines.is_running


async def test_a_shorter_deadline_is_looked_for_in_time():
    """Although the timer was set for a long one."""
    looks = Looks(due_after_s=0.05)
    deadlines = Deadlines(looks.look, 60)
    deadlines.start()
    deadlines.allow(0.02)
    await looks.until_due()
    assert looks.at[0] < 0.5
    assert deadlines.shortest_s == 0.02


async def test_it_looks_no_more_often_than_it_must():
    """Deadlines of nothing do not make a busy loop."""
    looks = Looks(due_after_s=0.2)
    deadlines = Deadlines(looks.look, 0)
    deadlines.start()
    await looks.until_due()
    assert len(looks.at) <= 0.2 / SWEEP_S + 1


async def test_a_process_that_slept_reads_first():
    """What came meanwhile is in the socket: it is given a tick, before anybody is told that it is late."""
    looks = Looks(due_after_s=0.01)
    deadlines = Deadlines(looks.look, 0.01)
    deadlines.start()
    time.sleep(0.1)
    await asyncio.sleep(0)
    assert looks.at == []
    await looks.until_due()
    assert len(looks.at) == 1


async def test_one_that_always_sleeps_is_looked_after_all_the_same():
    """The benefit of the doubt ends."""
    looks = Looks(due_after_s=0.01)
    deadlines = Deadlines(looks.look, 0.01)
    deadlines.start()
    for _ in range(8):
        time.sleep(0.06)
        await asyncio.sleep(0)
    assert len(looks.at) == 1


async def test_stopped_it_looks_no_more():
    """In any state."""
    looks = Looks(due_after_s=0.01)
    deadlines = Deadlines(looks.look, 0.01)
    deadlines.stop()
    deadlines.start()
    deadlines.stop()
    deadlines.start()
    time.sleep(0.06)
    await asyncio.sleep(0)
    deadlines.stop()
    await asyncio.sleep(0.05)
    assert looks.at == []
    assert not deadlines.is_running
