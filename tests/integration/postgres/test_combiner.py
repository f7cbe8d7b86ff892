"""The combiner: who goes together, who goes when, and that everybody gets an outcome of his own."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from app.domain.errors import Unavailable
from app.infra.postgres import combiner as module
from app.infra.postgres.combiner import BATCH_SIZE_MAX, BATCH_WEIGHT_MAX, WAITING_MAX, Combiner


class Counter:
    """Work that is held up until somebody lets it go; answers each number with its negative."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()
        if not held:
            self.may_go.set()

    async def run(self, numbers: Sequence[int]) -> list[int | Exception]:
        """Even numbers are fine, odd ones are each wrong by themselves; 13 is wrong for all, 0 is away."""
        self.batches.append(list(numbers))
        await self.may_go.wait()
        if 0 in numbers:
            raise Unavailable("postgres", "away")
        if 13 in numbers:
            raise ValueError(13)
        return [KeyError(number) if number % 2 else -number for number in numbers]


async def all_of(combiner: Combiner[int, int], numbers: Sequence[int]) -> list[int | BaseException]:
    """What becomes of them when they ask at once."""
    return await asyncio.gather(*map(combiner.ask, numbers), return_exceptions=True)


async def under_way(counter: Counter, batches: int) -> None:
    """Wait until as many batches have begun."""
    async with asyncio.timeout(60):
        while len(counter.batches) < batches:
            await asyncio.sleep(0)


async def test_what_is_asked_in_one_tick_goes_together_in_order():
    """And each gets what is his."""
    counter = Counter()
    assert await all_of(Combiner(counter.run), [2, 4, 6]) == [-2, -4, -6]
    assert counter.batches == [[2, 4, 6]]


async def test_the_first_does_not_wait_for_company(monkeypatch: pytest.MonkeyPatch):
    """Nothing lingers while nothing is under way."""
    monkeypatch.setattr(module, "LINGER_S", 3600)
    counter = Counter()
    combiner = Combiner(counter.run)
    async with asyncio.timeout(60):
        assert [await combiner.ask(2), await combiner.ask(4)] == [-2, -4]
    assert counter.batches == [[2], [4]]


async def test_what_comes_meanwhile_goes_in_the_next_batch(monkeypatch: pytest.MonkeyPatch):
    """As soon as the one under way is done."""
    monkeypatch.setattr(module, "LINGER_S", 3600)
    counter = Counter(held=True)
    combiner = Combiner(counter.run)
    first = asyncio.create_task(all_of(combiner, [2]))
    await under_way(counter, 1)
    second = asyncio.create_task(all_of(combiner, [4, 6]))
    third = asyncio.create_task(all_of(combiner, [8]))
    await asyncio.sleep(0.01)
    assert counter.batches == [[2]]
    counter.may_go.set()
    assert [await first, await second, await third] == [[-2], [-4, -6], [-8]]
    assert counter.batches == [[2], [4, 6, 8]]


async def test_whoever_has_waited_long_enough_goes_beside_the_batch_that_is_under_way():
    """One that is slow does not hold up the rest; but no more than so many at a time."""
    counter = Counter(held=True)
    combiner = Combiner(counter.run, in_flight_max=2)
    asked = [asyncio.create_task(combiner.ask(2))]
    await under_way(counter, 1)
    asked.append(asyncio.create_task(combiner.ask(4)))
    await under_way(counter, 2)
    asked.append(asyncio.create_task(combiner.ask(6)))
    await asyncio.sleep(module.LINGER_S * 5)
    assert counter.batches == [[2], [4]]
    counter.may_go.set()
    assert await asyncio.gather(*asked) == [-2, -4, -6]


async def test_a_batch_is_only_so_large_and_only_so_heavy():
    """What is enough for a batch goes at once; what weighs more than that goes alone."""
    counter = Counter()
    combiner = Combiner(counter.run)
    numbers = list(range(2, 2 * BATCH_SIZE_MAX + 200, 2))
    assert await all_of(combiner, numbers) == [-number for number in numbers]
    assert [len(batch) for batch in counter.batches] == [BATCH_SIZE_MAX, len(numbers) - BATCH_SIZE_MAX]
    counter.batches.clear()
    weights = [1, 1, BATCH_WEIGHT_MAX, BATCH_WEIGHT_MAX + 1, 1]
    await asyncio.gather(*(combiner.ask(2, weight) for weight in weights))
    assert [len(batch) for batch in counter.batches] == [2, 1, 1, 1]


async def test_an_error_of_ones_own_is_nobody_elses():
    """The work says which outcome is whose."""
    two, error, four = await all_of(Combiner(Counter().run), [2, 3, 4])
    assert (two, four) == (-2, -4)
    assert isinstance(error, KeyError)


async def test_one_that_cannot_be_done_is_left_alone_with_its_error():
    """The batch is halved until the others are through, in their order."""
    counter = Counter()
    numbers = [2, 4, 6, 13, 8, 10, 12]
    outcomes = await all_of(Combiner(counter.run), numbers)
    assert [repr(outcome) for outcome in outcomes] == ["-2", "-4", "-6", "ValueError(13)", "-8", "-10", "-12"]
    done = [batch for batch in counter.batches if 13 not in batch]
    assert [number for batch in done for number in batch] == [2, 4, 6, 8, 10, 12]


async def test_what_is_away_is_away_for_the_whole_batch():
    """It is not asked again for each of them."""
    counter = Counter()
    combiner = Combiner(counter.run)
    assert all(isinstance(outcome, Unavailable) for outcome in await all_of(combiner, [2, 0, 4]))
    assert len(counter.batches) == 1
    assert await combiner.ask(2) == -2


async def test_an_asker_who_leaves_disturbs_nobody():
    """Before his batch begins he is not in it; afterwards it goes on without him."""
    counter = Counter(held=True)
    combiner = Combiner(counter.run)
    first, leaves = asyncio.create_task(combiner.ask(2)), asyncio.create_task(combiner.ask(4))
    await under_way(counter, 1)
    gone, last = asyncio.create_task(combiner.ask(6)), asyncio.create_task(combiner.ask(8))
    await asyncio.sleep(0)
    leaves.cancel()
    gone.cancel()
    counter.may_go.set()
    assert [await first, await last] == [-2, -8]
    assert leaves.cancelled()
    assert gone.cancelled()
    assert counter.batches == [[2, 4], [8]]


async def test_too_many_are_turned_away_at_once(monkeypatch: pytest.MonkeyPatch):
    """The line has an end, and whoever stands in it is served."""
    monkeypatch.setattr(module, "WAIT_MAX_S", 60.0)
    counter = Counter(held=True)
    combiner = Combiner(counter.run, in_flight_max=1)
    first = asyncio.create_task(combiner.ask(2))
    await under_way(counter, 1)
    line = [asyncio.ensure_future(combiner.ask(2)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="wait already"):
        await combiner.ask(2)
    counter.may_go.set()
    assert set(await asyncio.gather(first, *line)) == {-2}


async def test_what_waited_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch):
    """Whoever asked has been told long ago; work for nobody only makes others late."""
    counter = Counter(held=True)
    combiner = Combiner(counter.run, in_flight_max=1)
    first = asyncio.create_task(combiner.ask(2))
    await under_way(counter, 1)
    late = asyncio.create_task(combiner.ask(4))
    await asyncio.sleep(0)
    monkeypatch.setattr(module, "WAIT_MAX_S", 0.0)
    await asyncio.sleep(0.001)
    counter.may_go.set()
    assert await first == -2
    with pytest.raises(Unavailable, match="not begun"):
        await late
    assert counter.batches == [[2]]


async def test_the_end_of_the_process_leaves_nobody_waiting():
    """A batch that is cancelled cancels those who wait for it."""
    counter = Counter(held=True)
    combiner = Combiner(counter.run)
    asked = asyncio.create_task(combiner.ask(2))
    await under_way(counter, 1)
    (batch,) = combiner._under_way
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    counter.may_go.set()
    assert await combiner.ask(4) == -4


async def test_batches_begin_evenly_spaced():
    """Two that begin together leave everybody who comes then to wait for the whole of both."""
    takes_s, begun = 0.1, list[float]()

    async def run(asked: Sequence[int]) -> Sequence[int | Exception]:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(takes_s)
        return asked

    combiner = Combiner(run, in_flight_max=2)
    asking = set[asyncio.Task[int]]()
    async with asyncio.timeout(60):
        while len(begun) < 24:
            asking.add(asyncio.create_task(combiner.ask(len(asking))))
            await asyncio.sleep(module.LINGER_S)
        await asyncio.gather(*asking)
    settled = begun[16:24]
    gaps = [later - earlier for earlier, later in pairwise(settled)]
    assert min(gaps) >= takes_s / 2 * 0.8
