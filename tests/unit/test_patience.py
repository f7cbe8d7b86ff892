"""`Patience`: what `asyncio.timeout` does, with one timer for all."""

import asyncio

import pytest

from app.gateway.deadlines import Patience


async def forever() -> None:
    """Wait until somebody cancels."""
    await asyncio.get_running_loop().create_future()


async def test_who_waits_too_long_is_told_in_time() -> None:
    """Each after its own beginning, however many wait."""
    patience, loop = Patience(0.05), asyncio.get_running_loop()
    waited: list[float] = []

    async def wait() -> None:
        began = loop.time()
        with pytest.raises(TimeoutError), patience.hold():
            await forever()
        waited.append(loop.time() - began)

    waiting = [asyncio.create_task(wait())]
    await asyncio.sleep(0.03)
    waiting += [asyncio.create_task(wait()) for _ in range(20)]
    await asyncio.gather(*waiting)
    assert len(waited) == 21
    assert min(waited) > 0.045  # the loop counts milliseconds


async def test_who_is_done_in_time_is_left_alone() -> None:
    """Also while others, who began earlier, still wait; and later, when the time is over."""
    patience = Patience(0.02)
    slow = asyncio.create_task(waiting_with(patience))
    for _ in range(100):
        with patience.hold():
            await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await slow
    await asyncio.sleep(0.03)  # were anybody cancelled who is done, it would be this task
    with patience.hold():
        await asyncio.sleep(0)


async def waiting_with(patience: Patience) -> None:
    """Wait for ever, within the limit."""
    with patience.hold():
        await forever()


async def test_a_cancelled_task_stays_cancelled() -> None:
    """Whoever cancels it is not told of a timeout."""
    waiting = asyncio.create_task(waiting_with(Patience(10)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()


async def test_an_error_within_goes_out_as_it_is() -> None:
    """And a wait within another ends by itself."""
    outer, inner = Patience(10), Patience(0.01)
    with pytest.raises(LookupError), outer.hold():
        raise LookupError("something else")
    with outer.hold():
        with pytest.raises(TimeoutError), inner.hold():
            await forever()
        await asyncio.sleep(0)


def test_it_serves_one_loop_after_another() -> None:
    """A loop that was closed takes its timer with it."""
    patience = Patience(0.01)

    async def begin() -> None:
        with patience.hold():
            await asyncio.sleep(0)

    async def wait() -> None:
        with pytest.raises(TimeoutError), patience.hold():
            await forever()

    asyncio.run(begin())
    asyncio.run(asyncio.wait_for(wait(), 5))
