"""A lock has one holder at a time, is taken and given back in one round trip each, and passes on in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import Unreachable
from app.hotpath.locks import SLOTS, LockLost, LockNotAcquired, Locks
from app.hotpath.locks_lease import EXTEND, RELEASE
from app.hotpath.subscriptions import Subscriptions
from tests.busy import BUSY_S
from tests.integration.hotpath.lock_world import (
    PREFIX,
    Process,
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


@pytest.fixture
async def three(redis_url) -> AsyncIterator[Process]:
    """A third."""
    async with process(redis_url) as opened:
        yield opened


async def test_there_is_one_holder_at_a_time(one, two, three):
    """A counter that is read and written in two steps counts every one of 300 turns, under 300 tokens."""
    tokens = []

    async def count(process: Process) -> None:
        async with process.locks.hold("n", wait_s=30) as lease:
            value = int(await process.client.execute("GET", "counter") or 0)
            await asyncio.sleep(0)
            await process.client.execute("SET", "counter", value + 1)
            assert lease.is_held
            tokens.append(lease.token)

    await asyncio.gather(*(count(process) for process in (one, two, three) for _ in range(100)))
    assert int(await one.client.execute("GET", "counter")) == 300
    assert tokens == sorted(set(tokens))
    await nothing_is_left(one.client)


async def test_taking_extending_and_giving_back_are_one_command_each(one):
    """Where nobody else wants the lock, nothing else is sent, whatever was done before."""
    async with one.locks.hold("n"):
        pass  # the server has the scripts now
    for step in range(3):
        before = one.client.statistics.commands
        lease = await one.locks.hold("n").__aenter__()
        assert one.client.statistics.commands == before + 1
        await lease.extend(5)
        assert one.client.statistics.commands == before + (2 if step else 3)  # the first time it is unknown
        assert await lease.release()
        assert one.client.statistics.commands == before + (3 if step else 4)
    assert await left_behind(one.client) == set()


async def test_tokens_never_go_back(one, two):
    """Given back, run out or deleted: whoever is next has a greater token."""
    tokens = []
    for process_ in (one, two, one):
        async with process_.locks.hold("n") as lease:
            tokens.append(lease.token)
    async with one.locks.hold("n") as lease:
        tokens.append(lease.token)
        await one.client.execute("DEL", lease.key)
        async with two.locks.hold("n") as other:
            tokens.append(other.token)
    assert tokens == sorted(set(tokens))


async def test_a_refusal_is_told_in_time(one, two):
    """No wait: one question. A bounded wait: no longer than that, and the place in line is gone with it."""
    async with one.locks.hold("n"):
        loop = asyncio.get_running_loop()
        for process_ in (one, two):
            started = loop.time()
            with pytest.raises(LockNotAcquired):
                await process_.locks.hold("n", wait_s=0).__aenter__()
            assert loop.time() - started < 0.1 + BUSY_S
            started = loop.time()
            with pytest.raises(LockNotAcquired):
                await process_.locks.hold("n", wait_s=0.1).__aenter__()
            assert 0.09 < loop.time() - started < 0.3 + BUSY_S
        await queued(one.client, "n", 0)
        assert len(await left_behind(one.client)) == 1
    await nothing_is_left(one.client)


async def test_nobody_else_can_give_a_lock_back_or_extend_it(one, two):
    """The server compares the owner, so a stranger's release or a late one changes nothing."""
    async with one.locks.hold("n") as lease:
        for stranger in (two.locks, one.locks):
            assert await stranger.ask(RELEASE, (lease.key,), f"{stranger.process}.999") == 0
            assert await stranger.ask(EXTEND, (lease.key,), f"{stranger.process}.999", 1) == 0
        assert await one.client.execute("GET", lease.key) == lease.owner.encode()
        await one.client.execute("DEL", lease.key)
        async with two.locks.hold("n") as other:
            assert not await lease.release()
            assert await two.client.execute("GET", other.key) == other.owner.encode()
    assert not await lease.release()


async def test_a_lock_whose_holder_vanished_is_free_after_its_lifetime(redis_url, one):
    """Who waits knows how long the holder has, and asks again right then; tokens go on."""
    async with process(redis_url) as gone:
        lease = await gone.locks.hold("n", lifetime_s=0.3).__aenter__()
        gone.locks.watch.look_at(float("inf"))  # its watchdog died with it
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with one.locks.hold("n", wait_s=30) as next_one:
            assert 0.2 < loop.time() - started < 0.6 + BUSY_S
            assert next_one.token > lease.token
            assert lease.is_lost
            with pytest.raises(LockLost):
                lease.check()


async def test_extending_sets_a_new_lifetime(one):
    """Longer or shorter, from now on; and not once the lock is given back."""
    async with one.locks.hold("n", lifetime_s=1) as lease:
        for lifetime_s in (100, 5):
            await lease.extend(lifetime_s)
            left_ms = await one.client.execute("PTTL", lease.key)
            assert lifetime_s * 1000 - 500 < left_ms <= lifetime_s * 1000
            assert lease.is_held
    with pytest.raises(LockLost):
        await lease.extend(1)


async def test_the_scripts_may_vanish_at_any_moment(one, two):
    """A server that was flushed of its scripts is given them again, by whoever asks next."""
    for _ in range(3):
        await one.client.execute("SCRIPT", "FLUSH")
        async with one.locks.hold("n") as lease:
            await one.client.execute("SCRIPT", "FLUSH")
            await lease.extend(10)
            waiting = asyncio.create_task(two.locks.hold("n").__aenter__())
            await queued(one.client, "n", 1)
            await one.client.execute("SCRIPT", "FLUSH")
        next_lease = await waiting
        await one.client.execute("SCRIPT", "FLUSH")
        assert await next_lease.release()
    assert await left_behind(one.client) == set()


async def test_processes_are_served_in_the_order_they_came(one, two, three):
    """First come, first served, whoever's connection is quicker."""
    order = []

    async def turn(process_: Process, name: str) -> None:
        async with process_.locks.hold("n"):
            order.append(name)

    for _ in range(5):
        async with one.locks.hold("n"):
            turns = []
            for place, (process_, name) in enumerate(((three, "3"), (one, "1"), (two, "2")), 1):
                turns.append(asyncio.create_task(turn(process_, name)))
                await queued(one.client, "n", place)
        await asyncio.gather(*turns)
    assert "".join(order) == "312" * 5


async def test_waiters_of_one_process_have_one_place_and_keep_their_order(one, two):
    """A crowd in one process is one waiter to the server, and takes turns with the other processes."""
    order = []

    async def turn(process_: Process, name: str) -> None:
        async with process_.locks.hold("n", lifetime_s=5 + len(order) % 2):
            order.append(name)

    async with one.locks.hold("n"):
        crowd = [asyncio.create_task(turn(one, f"a{n}")) for n in range(100)]
        await queued(one.client, "n", 1)
        others = [asyncio.create_task(turn(two, f"b{n}")) for n in range(3)]
        await queued(one.client, "n", 2)
        assert len(set(await queue(one.client, "n"))) == 2
    await asyncio.gather(*crowd, *others)
    assert order[:7] == ["a0", "b0", "a1", "b1", "a2", "b2", "a3"]
    assert order[7:] == [f"a{n}" for n in range(4, 100)]
    await nothing_is_left(one.client)


async def test_a_lock_is_handed_over_in_two_round_trips(fault_proxy: FaultProxy):
    """The server wakes the next process, which claims the lock; within a process one round trip is enough."""
    fault_proxy.to_server.delay_s = fault_proxy.to_client.delay_s = 0.05
    round_trip_s = 0.1
    loop = asyncio.get_running_loop()
    async with process(fault_proxy.url) as one, process(fault_proxy.url) as two:

        async def hand_over(to: Process) -> float:
            lease = await one.locks.hold("n").__aenter__()
            waiting = asyncio.create_task(to.locks.hold("n").__aenter__())
            await queued(one.client, "n", 1)
            started = loop.time()
            await lease.release()
            next_lease = await waiting
            took_s = loop.time() - started
            await next_lease.release()
            return took_s

        for waiting_process, round_trips in ((two, 2), (one, 1)):
            tries = 20  # one of them has the machine for itself
            while await hand_over(waiting_process) >= (round_trips + 0.5) * round_trip_s:
                tries -= 1
                assert tries


async def test_a_crowd_in_one_process_costs_three_commands_a_turn(one):
    """A turn is a place in line and a release that hands over; nobody asks again and again."""
    async with one.locks.hold("n"):
        pass
    before = one.client.statistics.commands

    async def turn() -> None:
        async with one.locks.hold("n"):
            await asyncio.sleep(0)

    await asyncio.gather(*(turn() for _ in range(200)))
    assert one.client.statistics.commands - before < 200 * 3


async def test_many_wait_for_a_limit_and_no_more(one, monkeypatch):
    """Beyond the limit a waiter is refused at once, as if the server were overloaded."""
    monkeypatch.setattr("app.hotpath.locks_line.WAITERS_MAX", 5)
    async with one.locks.hold("n"):
        crowd = [asyncio.create_task(one.locks.hold("n").__aenter__()) for _ in range(8)]
        await until(lambda: sum(task.done() for task in crowd) == 3)
        assert {type(task.exception()).__name__ for task in crowd if task.done()} == {"Overloaded"}
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
    await nothing_is_left(one.client)


async def test_a_server_that_is_away_from_the_start_is_told_at_once():
    """Nobody waits for a lock on a server that nobody can reach."""
    address = Address("127.0.0.1", 1)
    async with (
        Client(address, name="locks") as client,
        Subscriptions(address, name="lock-wakes") as subscriptions,
        Locks(client, subscriptions, prefix=PREFIX) as away,
    ):
        loop = asyncio.get_running_loop()
        with pytest.raises(Unreachable):
            await away.hold("n", wait_s=5).__aenter__()
        started = loop.time()
        for _ in range(100):
            with pytest.raises(Unreachable):
                await away.hold("n", wait_s=5).__aenter__()
        assert loop.time() - started < 0.1 + BUSY_S
        assert away.lines == {}


async def test_a_wrong_type_under_the_key_is_an_error_for_everybody(one, two):
    """Waiting would not mend it."""
    async with one.locks.hold("n") as lease:
        waiting = [asyncio.create_task(two.locks.hold("n").__aenter__()) for _ in range(2)]
        await queued(one.client, "n", 1)
        await one.client.execute("DEL", lease.key)
        await one.client.execute("RPUSH", lease.key, "x")
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert getattr(error, "code", None) == "WRONGTYPE"


async def test_names_may_hold_anything(one, two):
    """Braces, blanks, other scripts, what keys are made of: locks stay apart, each in one slot."""
    names = ["a b", "{x}", "}{", "ключ", "lock:{lock:a}", "", "tokens", "held:a", "queue:a", "a", "}:held:a"]
    async with AsyncExitStack() as stack:
        leases = [await stack.enter_async_context(one.locks.hold(name)) for name in names]
        waiting = [asyncio.create_task(two.locks.hold(name).__aenter__()) for name in names]
        for name, lease in zip(names, leases, strict=True):
            await queued(one.client, name, 1)
            tags = {key.partition("{")[2].partition("}")[0] for key in lease.keys}
            assert len(tags) == 1
            assert tags.pop().startswith("lock:")
        assert all(lease.is_held for lease in leases)
    for lease in await asyncio.gather(*waiting):
        assert await lease.release()
    assert await left_behind(one.client) == set()


async def test_counters_stay_few_whatever_is_locked(one):
    """A name that is used once leaves nothing; names share the counters of tokens, and those are few."""
    for start in range(0, 5000, 500):
        leases = [one.locks.hold(f"order:{n}") for n in range(start, start + 500)]
        await asyncio.gather(*(lease.__aenter__() for lease in leases))
        await asyncio.gather(*(lease.release() for lease in leases))
    assert await left_behind(one.client) == set()
    assert await one.client.execute("DBSIZE") <= SLOTS


@pytest.mark.parametrize("prefix", ["a{b:", "a}b:", "held:"])
def test_a_prefix_that_would_part_the_keys_is_refused(prefix):
    """A hash tag in the prefix would come before the lock's own."""
    with pytest.raises(ValueError):
        Locks(None, None, prefix=prefix)


async def test_closing_gives_back_what_is_held_and_refuses_who_waits(redis_url, one):
    """Whoever ends in order leaves nothing for others to wait for."""
    async with process(redis_url) as ending:
        lease = await ending.locks.hold("n").__aenter__()
        waiting = asyncio.create_task(ending.locks.hold("n").__aenter__())
        await queued(one.client, "n", 1)
    assert lease.is_lost
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Unreachable)
    assert await left_behind(one.client) == set()
