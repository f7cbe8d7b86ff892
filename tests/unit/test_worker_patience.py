"""`patiently`: a server that is away, one that says nothing, and a process that is told to stop meanwhile."""

import asyncio

import pytest

from app.domain.errors import Unavailable
from app.workers import patience
from app.workers.patience import patiently


async def nothing() -> None:
    """A server that takes the question and never answers."""
    await asyncio.get_running_loop().create_future()


async def test_whoever_answers_is_heard_however_late(monkeypatch: pytest.MonkeyPatch):
    """Refused once, silent once, then there."""
    monkeypatch.setattr(patience, "PAUSE_S", 0.0)
    monkeypatch.setattr(patience, "ANSWER_S", 0.01)
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise Unavailable("temporal", "it does not answer")
        if asked == 2:
            await nothing()
        return "here"

    assert await patiently(ask, asyncio.Event(), away="temporal_is_away") == "here"
    assert asked == 3


async def test_a_process_that_is_told_to_stop_waits_for_no_answer():
    """A server that says nothing would keep it past its grace period."""
    stop = asyncio.Event()
    waiting = asyncio.create_task(patiently(nothing, stop, away="temporal_is_away"))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(5):
        assert await waiting is None


async def test_an_error_of_ours_is_not_waited_out():
    """Only what means "not now" is."""

    async def ask() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await patiently(ask, asyncio.Event(), away="temporal_is_away")


async def test_whoever_gives_up_leaves_no_question_behind():
    """A cancelled start has no task that goes on asking."""
    ended = asyncio.Event()

    async def ask() -> None:
        try:
            await nothing()
        finally:
            ended.set()

    waiting = asyncio.create_task(patiently(ask, asyncio.Event(), away="temporal_is_away"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await ended.wait()
