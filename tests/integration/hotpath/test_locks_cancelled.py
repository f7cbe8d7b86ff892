"""Whoever goes away, at whatever moment and however, leaves no lock and no place in line behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from random import Random

import pytest

from app.hotpath.address import Address
from app.hotpath.errors import HotpathError, MayHaveHappened
from app.hotpath.locks import Lease, LockNotAcquired
from app.hotpath.locks_lease import ACQUIRE
from app.hotpath.locks_line import Line
from app.hotpath.subscriptions import Subscriptions
from tests.busy import BUSY_S
from tests.integration.hotpath.lock_world import (
    PREFIX,
    Process,
    keys,
    left_behind,
    nothing_is_left,
    process,
    queue,
    queued,
    until,
)
from tests.proxy import FaultProxy


@pytest.fixture
async def one(redis_url) -> AsyncIterator[Process]:
    """A process."""
    async with process(redis_url) as opened:
        yield opened


@pytest.fixture
async def two(redis_url) -> AsyncIterator[Process]:
    """Another."""
    async with process(redis_url) as opened:
        yield opened


async def rest(process_: Process) -> None:
    """Wait until a process has nothing to do with locks any more."""
    await until(lambda: not (process_.locks.lines or process_.locks.watch.held or process_.locks._tasks))


@pytest.mark.parametrize("holder", ["nobody", "the same process", "another process"])
async def test_a_task_may_be_cancelled_at_every_step(one, two, holder):
    """After each number of ticks, on the way to the lock, inside, and on the way back."""

    async def use() -> None:
        async with one.locks.hold("n"):
            for _ in range(5):
                await asyncio.sleep(0)

    async def hold_shortly() -> None:
        async with (one if holder == "the same process" else two).locks.hold("n"):
            await asyncio.sleep(0.002)

    for ticks in range(60):
        holding = asyncio.create_task(asyncio.sleep(0) if holder == "nobody" else hold_shortly())
        using = asyncio.create_task(use())
        for _ in range(ticks):
            await asyncio.sleep(0)
        using.cancel()
        await asyncio.gather(using, holding, return_exceptions=True)
        await nothing_is_left(two.client)
        await rest(one)
        await rest(two)


async def test_a_lock_that_comes_together_with_a_cancellation_is_given_back(one, two, monkeypatch):
    """The waiter has been given the lock and does not know it yet when it is cancelled."""
    take = Line._take

    def take_and_cancel(line: Line, *given: float) -> float:
        pause_s = take(line, *given)
        waiting.cancel()
        return pause_s

    async with one.locks.hold("n"):
        waiting = asyncio.create_task(two.locks.hold("n", lifetime_s=60).__aenter__())
        await queued(one.client, "n", 1)
        monkeypatch.setattr(Line, "_take", take_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await nothing_is_left(one.client)
    await rest(two)


async def test_a_lock_that_comes_right_after_a_cancellation_goes_to_the_next(one, two, monkeypatch):
    """The first waiter was cancelled in this very tick, and has not noticed yet."""
    take = Line._take

    def cancel_and_take(line: Line, *given: float) -> float:
        first.cancel()
        return take(line, *given)

    async with one.locks.hold("n"):
        first, second = (asyncio.create_task(two.locks.hold("n").__aenter__()) for _ in range(2))
        await queued(one.client, "n", 1)
        monkeypatch.setattr(Line, "_take", cancel_and_take)
    async with asyncio.timeout(60):
        assert await (await second).release()
    assert first.cancelled()
    await nothing_is_left(one.client)
    await rest(two)


async def test_a_lock_that_was_asked_for_another_has_the_lifetime_of_who_gets_it(fault_proxy: FaultProxy):
    """Who stood first is cancelled while the lock is on its way, with a lifetime that it wanted."""
    fault_proxy.to_client.delay_s = 0.1
    async with process(fault_proxy.url) as one:
        lease = await one.locks.hold("n").__aenter__()
        first = asyncio.create_task(one.locks.hold("n", lifetime_s=100).__aenter__())
        second = asyncio.create_task(one.locks.hold("n", lifetime_s=5).__aenter__())
        await queued(one.client, "n", 1)
        releasing = asyncio.create_task(lease.release())
        await asyncio.sleep(0.05)  # half of the way back
        first.cancel()
        assert await releasing
        next_lease = await second
        assert 3000 < await one.client.execute("PTTL", next_lease.key) <= 5000
        assert await next_lease.release()


async def test_a_storm_of_cancellations_leaves_nothing(fault_proxy: FaultProxy, redis_url, seed, one):
    """Hundreds come, wait, hold and go at random, over slow connections: one holder at a time, then none."""
    fault_proxy.to_client.delay_s = 0.002
    fault_proxy.to_client.jitter_s = 0.005
    await storm(fault_proxy.url, seed, seconds=3.0)
    await nothing_is_left(one.client)


async def test_a_storm_of_faults_leaves_nothing(fault_proxy: FaultProxy, seed, one):
    """The same while connections fall silent, are cut, reset and refused."""
    misbehaving = asyncio.create_task(fault_proxy.misbehave(pause_s=0.15))
    try:
        await storm(fault_proxy.url, seed, seconds=4.0, misbehaving=misbehaving)
    finally:
        misbehaving.cancel()
    # What was in doubt when a connection broke may have come to the server last: its lifetime ends it.
    await nothing_is_left(one.client, timeout_s=10)


async def storm(url: str, seed: int, *, seconds: float, misbehaving: asyncio.Task | None = None) -> None:
    """Three processes with 30 tasks each, on three names."""
    random = Random(seed)
    inside: dict[str, set[Lease]] = {f"n{n}": set() for n in range(3)}
    tokens: dict[str, int] = dict.fromkeys(inside, 0)
    turns = 0

    async def use(process_: Process, name: str) -> None:
        nonlocal turns
        lease = process_.locks.hold(name, lifetime_s=1.5, wait_s=random.choice((0, 0.05, 0.5, 5)))
        with suppress(HotpathError):
            async with lease:
                others = [other for other in inside[name] if other.is_held]
                assert others == [] or not lease.is_held
                assert lease.token > tokens[name]
                tokens[name] = lease.token
                inside[name].add(lease)
                turns += 1
                try:
                    await asyncio.sleep(random.random() * 0.01)
                finally:
                    inside[name].discard(lease)

    async def come_and_go(process_: Process) -> None:
        while loop.time() < until_s:
            task = asyncio.create_task(use(process_, random.choice(sorted(inside))))
            if random.random() < 0.5:
                await asyncio.wait([task], timeout=random.random() * 0.05)
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(process(url, deadline_s=0.1)) for _ in range(3)]
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        await asyncio.gather(*(come_and_go(process_) for process_ in processes for _ in range(30)))
        if misbehaving is not None:
            misbehaving.cancel()
            await asyncio.wait([misbehaving])
        for process_ in processes:
            await rest(process_)
    assert turns > 100


async def test_a_lock_that_came_to_one_who_is_gone_goes_on(one, two, monkeypatch):
    """Its process lives and says so; the next one need not wait for the claim to run out."""
    monkeypatch.setattr("app.hotpath.locks_line.NET_S", 60.0)  # nobody asks but who is woken
    lease = await one.locks.hold("n").__aenter__()
    for number in range(3):
        owner = f"{(one, two)[number % 2].locks.process}.gone{number}"
        assert await two.locks.ask(ACQUIRE, lease.keys, owner, 1000, "wait") < 0
    waiting = asyncio.create_task(two.locks.hold("n").__aenter__())
    await queued(one.client, "n", 4)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await lease.release()
    next_lease = await waiting
    assert loop.time() - started < 0.5 + BUSY_S
    assert await next_lease.release()
    assert await left_behind(one.client) == set()


async def test_processes_that_died_are_skipped_in_the_same_round_trip(one, two):
    """Nobody hears their wakes, so the script goes on to the first who lives."""
    lease = await one.locks.hold("n").__aenter__()
    for number in range(50):
        assert await two.locks.ask(ACQUIRE, lease.keys, f"dead{number}.1", 1000, "wait") < 0
    waiting = asyncio.create_task(two.locks.hold("n").__aenter__())
    await queued(one.client, "n", 51)
    await lease.release()
    next_lease = await waiting
    assert next_lease.token == lease.token + 1
    assert await queue(one.client, "n") == []
    # The queue of dead processes alone is nothing to wait for either.
    assert await two.locks.ask(ACQUIRE, lease.keys, "dead.1", 1000, "wait") < 0
    assert await next_lease.release()
    assert await left_behind(one.client) == set()


async def test_a_process_that_hears_and_does_not_answer_costs_its_claim(redis_url, one, two):
    """A frozen process has a second to take what it was given."""
    async with Subscriptions(Address.parse(redis_url), name="frozen") as frozen:
        hearing = frozen.subscribe(f"{PREFIX}wake:frozen", lambda _: None)
        await until(lambda: hearing.is_confirmed)
        lease = await one.locks.hold("n").__aenter__()
        assert await two.locks.ask(ACQUIRE, lease.keys, "frozen.1", 1000, "wait") < 0
        waiting = asyncio.create_task(two.locks.hold("n").__aenter__())
        await queued(one.client, "n", 2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await lease.release()
        next_lease = await waiting
        assert 0.9 < loop.time() - started < 2.5 + BUSY_S
        assert await next_lease.release()


async def test_a_wake_may_overtake_the_answer(fault_proxy: FaultProxy, redis_url, one, monkeypatch):
    """Pub/sub is quicker than the answer "you stand in line": the lock is claimed right after that."""
    monkeypatch.setattr("app.hotpath.locks_line.NET_S", 60.0)  # nobody asks but who is woken
    fault_proxy.to_client.delay_s = 0.3
    async with process(fault_proxy.url, wakes_url=redis_url) as slow:
        lease = await one.locks.hold("n").__aenter__()
        waiting = asyncio.create_task(slow.locks.hold("n").__aenter__())
        await queued(one.client, "n", 1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await lease.release()
        next_lease = await waiting
        assert loop.time() - started < 0.9 + BUSY_S  # the rest of the first answer, and the second one
        assert await next_lease.release()


async def test_a_late_wake_takes_nothing_away(one, two):
    """A wake for somebody who has the lock already, or has given it back, changes nothing."""

    async def wake(*, heard: int) -> None:
        before = one.subscriptions.statistics.pushes
        for _ in range(heard):
            await two.client.execute("PUBLISH", channel, f"{lease.owner} {lease.key}")
        await two.client.execute("PUBLISH", channel, "nonsense")
        await until(lambda: one.subscriptions.statistics.pushes == before + heard + 1)
        await until(lambda: not one.locks._tasks)

    channel = f"{PREFIX}wake:{one.locks.process}"
    async with two.locks.hold("n"):
        waiting = asyncio.create_task(one.locks.hold("n").__aenter__())
        await queued(two.client, "n", 1)
    lease = await waiting
    await wake(heard=3)
    assert await two.client.execute("GET", lease.key) == lease.owner.encode()
    assert await lease.release()
    async with two.locks.hold("n") as other:
        await wake(heard=1)
        assert await two.client.execute("GET", other.key) == other.owner.encode()


async def test_a_wake_that_is_lost_delays_by_a_second_at_most(redis_url, one):
    """Without pub/sub, waiters ask now and then."""
    async with process(redis_url) as deaf:
        lease = await one.locks.hold("n").__aenter__()
        waiting = asyncio.create_task(deaf.locks.hold("n").__aenter__())
        await queued(one.client, "n", 1)
        await deaf.subscriptions._client.close()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await lease.release()
        next_lease = await waiting
        assert loop.time() - started < 1.5 + BUSY_S
        assert await next_lease.release()


async def test_a_question_in_doubt_is_asked_again(fault_proxy: FaultProxy, one):
    """Whether the lock was taken, or only a place in line: the same owner is told what it has, once."""
    async with process(fault_proxy.url, deadline_s=0.1) as doubtful:
        async with doubtful.locks.hold("n"):
            pass
        for number in range(5):
            name = f"n{number}"
            fault_proxy.to_client.silence()  # the server does everything, and its answers stay away
            waiting = asyncio.create_task(doubtful.locks.hold(name, wait_s=30).__aenter__())
            async with asyncio.timeout(60):
                while not await one.client.execute("EXISTS", keys(name)[0]):
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.15)  # its deadline passes
            fault_proxy.heal()
            lease = await waiting
            assert await lease.release()
    await nothing_is_left(one.client)


async def test_a_question_in_doubt_that_may_not_wait_is_given_back(fault_proxy: FaultProxy, one):
    """The caller hears of the doubt; the lock that it may have got does not stay."""
    async with process(fault_proxy.url, deadline_s=0.1) as doubtful:
        fault_proxy.to_client.silence()
        with pytest.raises(MayHaveHappened):
            await doubtful.locks.hold("n", lifetime_s=60, wait_s=0).__aenter__()
        assert await left_behind(one.client) != set()
        fault_proxy.heal()
        await nothing_is_left(one.client)


@pytest.mark.parametrize("fault", ["silent", "reset"])
async def test_a_release_in_doubt_is_done_again(fault_proxy: FaultProxy, one, fault):
    """The holder goes on at once or within a deadline; the lock is free as soon as the server hears of it."""
    async with process(fault_proxy.url, deadline_s=0.1) as doubtful:
        lease = await doubtful.locks.hold("n", lifetime_s=60).__aenter__()
        waiting = asyncio.create_task(one.locks.hold("n", wait_s=30).__aenter__())
        await queued(one.client, "n", 1)
        fault_proxy.to_server.silence()
        if fault == "reset":
            await fault_proxy.end(by_reset=True)
        assert not await lease.release()
        assert not lease.is_lost
        assert not waiting.done()
        fault_proxy.heal()
        async with asyncio.timeout(60):
            assert await (await waiting).release()
    await nothing_is_left(one.client)


async def test_waiting_bounds_hold_for_a_whole_crowd(one, two):
    """A thousand who wait for a tenth of a second are refused then, all of them, and leave no place."""
    async with one.locks.hold("n"):
        loop = asyncio.get_running_loop()
        started = loop.time()
        results = await asyncio.gather(
            *(two.locks.hold("n", wait_s=0.2).__aenter__() for _ in range(1000)), return_exceptions=True
        )
        assert {type(result) for result in results} == {LockNotAcquired}
        assert loop.time() - started < 2 + BUSY_S
        await queued(one.client, "n", 0)
    await rest(two)
    await nothing_is_left(one.client)
